"""A zoo for the hub: a download is the zoo, its tables and card are read by the hub's libraries."""

import json

import datasets
import huggingface_hub
import pandas as pd
import pytest
import torch
from huggingface_hub import DatasetCard
from huggingface_hub.errors import OfflineModeIsEnabled
from PIL import Image

from vitarium import Zoo, import_zoo, merge
from vitarium.core.errors import HubError, InvalidInput, NotAZoo
from vitarium.formats.export import export
from vitarium.formats.hub._card import CardSettings, card
from vitarium.formats.hub.push import push
from vitarium.formats.summary import population
from vitarium.zoo.verify import verify


@pytest.fixture
def folder(zoo, tmp_path):
    export(zoo, "hub", out=tmp_path / "out", license="cc-by-4.0", name="Tiny zoo")
    return tmp_path / "out"


def same_models(zoo, other, ids):
    for id in ids:
        for epoch in zoo.epochs(id).query("kept")["epoch"]:
            ours, reference = zoo.state_dict(id, epoch), other.state_dict(id, epoch)
            assert all(torch.equal(reference[name], ours[name]) for name in ours)


def test_a_download_is_the_zoo(zoo, folder):
    again = Zoo.open(folder)
    assert again.ids() == zoo.ids()
    same_models(zoo, again, zoo.ids())
    assert again.models().equals(zoo.models())
    assert not list(verify(folder, deep=True))


def test_chosen_models_come_with_what_they_descend_from(zoo, tmp_path):
    child = zoo.models().query("stage == 'finetune'")["id"].iloc[0]
    soup = merge(zoo, "uniform_soup", models=[child, f"{child}@0"]).id
    export(zoo, "hub", out=tmp_path / "out", models=[soup])
    again = Zoo.open(tmp_path / "out")
    assert set(again.ids()) == {soup, child, zoo.spec(child).parent}
    same_models(zoo, again, again.ids())
    assert not list(verify(tmp_path / "out", deep=True))


def test_links_take_no_space_and_never_change_the_zoo(zoo, tmp_path):
    export(zoo, "hub", out=tmp_path / "out", link=True)
    id = zoo.ids()[0]
    before = zoo.spec(id)
    file = tmp_path / "out" / "models" / id / "model.json"
    assert file.samefile(zoo.folder(id).path / "model.json")
    other = Zoo.open(tmp_path / "out")
    other.folder(id).finish("diverged", "in the copy alone")
    assert zoo.folder(id).status == "finished"
    assert zoo.spec(id) == before


def test_what_is_no_part_of_the_zoo_is_left_out(zoo, tmp_path):
    (zoo.path / "failures").mkdir()
    (zoo.path / "logs" / "csv").mkdir(parents=True)
    (zoo.path / "timeline.json").write_text("{}")
    (zoo.path / "growth.json").write_text("{}")
    (zoo.path / ".lock").write_text("")
    id = zoo.ids()[0]
    (zoo.folder(id).path / "progress-0007.safetensors").write_text("")
    export(zoo, "hub", out=tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").rglob("*")}
    unwanted = {
        "failures",
        "logs",
        "timeline.json",
        "growth.json",
        ".lock",
        "index",
        "index.json",
        "progress-0007.safetensors",
    }
    assert not names & unwanted


@pytest.mark.parametrize("table", ["models", "epochs"])
def test_the_hubs_library_finds_the_tables_by_the_card(zoo, folder, tmp_path, table):
    found = datasets.load_dataset(str(folder), table, cache_dir=str(tmp_path / "cache"))["train"]
    if table == "models":
        assert sorted(found["id"]) == zoo.ids()
        assert sorted(set(found["optimizer.lr"])) == [0.001, 0.003, 0.01]
    else:
        assert len(found) == sum(len(zoo.epochs(id)) for id in zoo.ids())
        assert set(found["kept"]) == {True}


def test_columns_of_mixed_values_become_texts(zoo, tmp_path, written, tiny):
    finetune = tiny["stages"]["finetune"]
    finetune["grid"] = {"checkpoints": ["all", "last", [0]], "clip_grad_norm": [None, 1.0]}
    mixed = written(tiny, "mixed")
    export(mixed, "hub", out=tmp_path / "out")
    frame = pd.read_parquet(tmp_path / "out" / "tables" / "models.parquet").set_index("id")
    assert set(frame["checkpoints"]) == {"all", "last", "[0]"}
    assert frame["clip_grad_norm"].isna().sum() == 8
    assert json.loads(frame["augmentation.scale"].iloc[0]) == [0.08, 1.0]


def test_the_card_says_what_is_in_the_zoo(zoo, folder):
    card = DatasetCard.load(folder / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert card.data.pretty_name == "Tiny zoo"
    assert card.data.size_categories == "n<1K"
    assert "vision-transformer" in card.data.tags
    assert [config["config_name"] for config in card.data.configs] == ["models", "epochs"]
    text = card.text
    assert "**6 vision transformers** with 14 checkpoints" in text
    assert "| finetune | 4 | 2 models | 8 | test_accuracy of 4 | 35.0 % | 35.0 % | 35.0 % |" in text
    assert "| `optimizer.lr` | 0.001 (2), 0.01 (2) |" in text
    assert "embed_dim" not in text
    assert "arXiv:2504.10231" in text
    assert f"| torch | {torch.__version__} |" in text
    assert "No license" not in text
    for name in ("accuracies", "training"):
        assert f"(figures/{name}.png)" in text
        assert Image.open(folder / "figures" / f"{name}.png").width > 500


def test_of_imported_models_the_card_does_not_say_what_they_started_from(zoo, tmp_path):
    root = next(id for id in zoo.ids() if not zoo.spec(id).parent)
    export(zoo, "safetensors", out=tmp_path / "files", models=[root])
    ids = import_zoo(tmp_path / "files", tmp_path / "copy")
    imported = population(Zoo.open(tmp_path / "copy"), ids)
    text = card(imported, CardSettings(), name="copy", is_zoo=True, software={})
    assert "A zoo of **1 vision transformer** with 1 checkpoint (" in text
    assert f"| {zoo[root].stage} | 1 | not known | 1 |" in text


def test_a_card_without_a_license_says_so(zoo, tmp_path):
    export(zoo, "hub", out=tmp_path / "out")
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "unknown"
    assert "No license has been stated" in card.text


def test_a_zoo_without_scores_has_no_figures(zoo, tmp_path, monkeypatch):
    from vitarium.formats import summary as population

    monkeypatch.setattr(population, "SCORES", ())
    export(zoo, "hub", out=tmp_path / "out")
    assert not (tmp_path / "out" / "figures").exists()
    assert "figures/" not in (tmp_path / "out" / "README.md").read_text()


def test_files_of_safetensors_can_stand_in_the_zoos_place(zoo, tmp_path):
    export(zoo, "hub", out=tmp_path / "out", weights="safetensors")
    out = tmp_path / "out"
    assert len(list((out / "weights").glob("*.safetensors"))) == 6
    assert (out / "weights" / "models.csv").exists()
    assert not (out / "zoo.json").exists()
    assert "weights/models.csv" in (out / "README.md").read_text()


class Hub:
    """Stands for the hub's client: notes what it is asked for."""

    refusal = None

    def __init__(self, **settings):
        self.request = Hub.request = []

    def create_repo(self, repository, **how):
        if Hub.refusal:
            raise Hub.refusal
        self.request.append(("create", repository, how))

    def upload_folder(self, *, folder_path, **how):
        files = sorted(p.relative_to(folder_path).as_posix() for p in folder_path.rglob("*"))
        self.request.append(("upload", files, how))


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_stub")
    monkeypatch.setattr(Hub, "refusal", None)
    return Hub


def test_a_zoo_is_pushed_with_a_card(zoo, tmp_path, hub):
    before = set(tmp_path.iterdir())
    uploads = push(zoo.path, "me/my-zoo", private=True, license="mit")
    (made, repository, how), (sent, files, where) = hub.request
    assert (made, repository, sent) == ("create", "me/my-zoo", "upload")
    assert how == {"repo_type": "dataset", "private": True, "exist_ok": True}
    assert (where["repo_id"], where["repo_type"]) == ("me/my-zoo", "dataset")
    assert {upload.name for upload in uploads} <= set(files)
    assert {"README.md", "zoo.json", "tables/models.parquet"} <= set(files)
    assert set(tmp_path.iterdir()) == before


def test_a_folder_with_a_card_is_pushed_as_it_is(folder, hub):
    Zoo.open(folder).models()  # leaves a cache behind
    names = [upload.name for upload in push(folder, "me/my-zoo")]
    assert "README.md" in names
    assert not any(name.startswith("index") for name in names)
    with pytest.raises(InvalidInput, match="has a card already"):
        push(folder, "me/my-zoo", license="mit")


def test_a_dry_run_asks_the_hub_for_nothing(zoo, hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", None)
    uploads = {upload.name: upload.bytes for upload in push(zoo.path, "me/x", dry_run=True)}
    assert uploads["zoo.json"] == (zoo.path / "zoo.json").stat().st_size
    assert not any(name.startswith(".") for name in uploads)


def test_what_cannot_be_pushed_is_refused(zoo, tmp_path, hub, monkeypatch):
    with pytest.raises(InvalidInput, match="is no name of a repository"):
        push(zoo.path, "me/my zoo")
    with pytest.raises(NotAZoo):
        push(tmp_path, "me/x")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(InvalidInput, match=r"no token .* `hf auth login`, or set .* HF_TOKEN"):
        push(zoo.path, "me/x")


def test_what_the_hub_refuses_is_told(zoo, hub, monkeypatch):
    monkeypatch.setattr(Hub, "refusal", OfflineModeIsEnabled("the hub is not reached"))
    with pytest.raises(
        HubError, match=r"uploading to me/x failed: the hub cannot be reached: .*; run"
    ):
        push(zoo.path, "me/x")


def test_a_copy_of_a_read_only_zoo_can_be_changed(zoo, tmp_path):
    for path in zoo.path.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    export(zoo, "hub", out=tmp_path / "out")
    assert all(path.stat().st_mode & 0o200 for path in (tmp_path / "out").rglob("*"))
