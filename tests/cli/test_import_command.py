"""`vitarium import`, as a user types it."""

import json

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer


def test_a_published_zoo_is_imported_and_again_skipped(vitarium, published, tmp_path):
    status, _, err = vitarium("import", published, "--zoo", tmp_path / "zoo")
    assert status == 0, err
    assert "3 models imported" in err
    lines = [line for line in err.splitlines() if line.startswith("[")]
    assert len(lines) == 3
    assert lines[2].endswith("finetuning/sl_seed_42/ft_lr_0.001: 3 epochs")
    status, _, err = vitarium("import", published, "--zoo", tmp_path / "zoo")
    assert status == 0
    assert "0 models imported" in err
    assert "3 models already there" in err
    status, out, _ = vitarium("ls", tmp_path / "zoo")
    assert status == 0
    assert out.count("pretraining/") == 2


def test_a_dry_run_lists_and_writes_nothing(vitarium, published, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    status, out, _ = vitarium("import", published, "--dry-run")
    assert status == 0
    assert "3 models (vit_zoo)" in out
    assert "test_vit" in out
    assert sorted(tmp_path.rglob("*")) == before
    rows = json.loads(vitarium("import", published, "--dry-run", "--json")[1])
    child = next(row for row in rows if row["stage"] == "finetuning")
    assert (child["parent"], child["parent epoch"]) == ("pretraining/sl_seed_42", 1)
    assert (child["epochs"], child["with weights"]) == (3, 3)


def test_what_is_missing_is_said(vitarium, published, tmp_path):
    (published / "pretraining/sl_seed_42/result.json").unlink()
    (published / "pretraining/cl_seed_42/checkpoint_000002/checkpoints").unlink()
    status, _, err = vitarium("import", published, "--zoo", tmp_path / "zoo")
    assert status == 0
    assert "pretraining/sl_seed_42: it has no result.json: its epochs come without metrics" in err
    assert "pretraining/cl_seed_42: no weights were kept; it is left out" in err
    assert "2 models imported" in err
    assert "1 without weights were left out" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{source}"], "--zoo DIR names the zoo's folder"),
        (["{source}", "--set", "offset"], "--set offset: write NAME=VALUE"),
        (["{source}", "--set", "offset=9", "--zoo", "{zoo}"], "offset"),
        (["{source}", "--importer", "vit_zo", "--zoo", "{zoo}"], "did you mean 'vit_zoo'"),
        (["{source}/none", "--zoo", "{zoo}"], "does not exist"),
    ],
)
def test_bad_input_is_one_message_and_status_2(vitarium, published, tmp_path, arguments, message):
    places = {"source": published, "zoo": tmp_path / "zoo"}
    status, _, err = vitarium("import", *(text.format(**places) for text in arguments))
    assert status == 2
    assert err.startswith("error: ")
    assert message in err
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize("dry", [False, True])
def test_a_dangerous_file_is_named_before_anything_is_written(vitarium, published, tmp_path, dry):
    file = published / "finetuning/sl_seed_42/ft_lr_0.001/checkpoint_000000/checkpoints"
    torch.save(torch.nn.Linear(2, 2), file)
    options = ["--dry-run"] if dry else ["--zoo", tmp_path / "zoo"]
    status, _, err = vitarium("import", published, *options)
    assert status == 1
    assert f"error: {file} was not read: reading it would run code" in err
    assert not (tmp_path / "zoo").exists()


def test_a_file_without_a_table_is_imported_and_what_was_inferred_is_printed(vitarium, tmp_path):
    sizes = {"img_size": 32, "embed_dim": 192, "depth": 12, "num_heads": 3}
    weights = VisionTransformer(**sizes, num_classes=5).state_dict()
    for name in "abcd":
        torch.save({"model": weights, "epoch": ord(name)}, tmp_path / f"{name}.pth")
    inferred = (
        "vit_tiny_patch16_224 img_size=32, 5 outputs; assumed, as weights do not tell: 3 heads"
    )
    status, _, err = vitarium("import", tmp_path / "a.pth", "--zoo", tmp_path / "zoo")
    assert status == 0, err
    assert f"a: architecture inferred from names and shapes: {inferred}" in " ".join(err.split())
    status, out, err = vitarium("import", tmp_path, "--dry-run", "--json")
    assert status == 0, err
    assert [row["architecture"] for row in json.loads(out)] == ["vit_tiny_patch16_224"] * 4


def test_a_dry_run_finds_weights_that_do_not_fit(vitarium, tmp_path):
    weights = VisionTransformer(img_size=32, embed_dim=48, depth=1, num_heads=3).state_dict()
    torch.save(weights, tmp_path / "a.pth")
    status, _, err = vitarium(
        "import", tmp_path, "--dry-run", "--set", "architecture=vit_tiny_patch16_224"
    )
    assert status == 1
    assert "do not fit the architecture" in err


def test_ctrl_c_says_that_it_goes_on(vitarium, published, tmp_path, monkeypatch):
    from vitarium.formats import import_zoo as importing

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(importing, "import_zoo", stop)
    status, _, err = vitarium("import", published, "--zoo", tmp_path / "zoo")
    assert status == 130
    assert "run the same command to resume" in err


def test_help_has_examples(vitarium):
    status, out, _ = vitarium("import", "--help")
    assert status == 0
    assert "vitarium import published-zoo --dry-run" in out


@pytest.mark.parametrize("id", ["4695", "4e55", '"4695"'])
def test_the_beginning_of_an_id_may_look_like_a_number(vitarium, written_zoo, tmp_path, id):
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora/adapter_config.json").write_text("{}")
    arguments = ("import", tmp_path / "lora", "--zoo", written_zoo.path, "--set", f"base={id}")
    assert f"'{id.strip(chr(34))}'" in vitarium(*arguments)[2]


def test_a_table_is_named_by_its_path_or_in_the_source(vitarium, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("files", "notes"):
        (tmp_path / folder).mkdir()
    torch.save({"x.weight": torch.ones(2, 2)}, "files/a.pth")
    (tmp_path / "notes" / "t.csv").write_text("file,name,architecture\na.pth,from notes,none\n")
    (tmp_path / "files" / "s.csv").write_text("file,name,architecture\na.pth,inside,none\n")
    for table, name in (("notes/t.csv", "from notes"), ("s.csv", "inside")):
        status, out, err = vitarium("import", "files", "--table", table, "--dry-run", "--json")
        assert status == 0, err
        assert [row["model"] for row in json.loads(out)] == [name]
    (tmp_path / "s.csv").write_text("file,name,architecture\na.pth,here,none\n")
    status, _, err = vitarium("import", "files", "--table", "s.csv", "--dry-run")
    assert status == 2
    assert "s.csv is in this folder and in files; name one: --table" in err
    both = ("--table", "notes/t.csv", "--set", "table=s.csv")
    status, _, err = vitarium("import", "files", *both, "--dry-run")
    assert (status, "name a table each" in err) == (2, True)
