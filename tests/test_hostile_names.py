"""Names of anyone over everything that writes and prints: they are texts, and nothing more.

A zoo of someone else, a table or a folder may hold any name. One zoo here has them all: a stage for
each, and a stage whose models have names of classes, factors and metrics of the kind, too.
"""

import io
import json
import os
import shutil
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from markdown_it import MarkdownIt
from ruamel.yaml import YAML
from safetensors.torch import save_file

from vitarium import Blueprint, Zoo, cli, plan
from vitarium.blueprint import Imported, ImportedSpec
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.printable import encodable, is_hidden, printable
from vitarium.core.terminal import Terminal
from vitarium.engine.events import Ended, EpochEnded, Notice, Retried, Started, Stepped
from vitarium.engine.progress.display import display
from vitarium.formats.exporters.onnx import metadata
from vitarium.zoo import About
from vitarium.zoo.checkpoint_folder import CheckpointFolder

NAMES = [
    "..",
    "../../x",
    "/absolute/x",
    "nul\0byte",
    "two\nlines",
    "carriage\rreturn",
    "x" * 10_000,
    "CON",
    "",
    "   ",
    "-rf",
    "half \ud83d",
    os.fsdecode(b"no UTF-8 \xff"),
    "\x1b[31mred",
    "\x1b]0;title\x07",
    "\x9b31m",
    "right\u202eleft",
    "zero\u200bwidth",
    "[bold]b[/bold]",
    "[/]",
    "[link=https://x]y[/link]",
    ":bomb:",
    "<script>alert(1)</script>",
    "</script><b>",
    "\"quoted' `ticks`",
    "{{ 7*7 }}{% x %}",
    "a&b\x01\ufffe",
    "=cmd()",
    "key: {yaml} # -",
    "---\n# heading | cell **b**",
    "a.b[0]['c']",
    "$\\frac{x$",
    "füße",
    "事前学習",
    "stage 1/2",
]
WORST = "../\x1b[31m</script><b>&{{7*7}}\0\"'`**|\n\u202e[/]$\\frac{"
"""Most of it in one name."""
PARTS = "\x1b[31mpart"
NO_UTF8 = "" if sys.platform == "darwin" else os.fsdecode(b"\xff")
"""A byte in the name of a file, where the system takes any."""
TINY = {"name": "vit", "img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "depth": 1}
TINY |= {"num_heads": 2}
STAGE = {"data": {"name": "digits", "train_limit": 64}, "epochs": 1, "batch_size": 32}
STAGES = {
    "each": {**STAGE, "architecture": TINY, "grid": {"seed": list(range(len(NAMES)))}},
    "parents": {**STAGE, "architecture": TINY, "grid": {"seed": [901, 902]}},
    "children": {**STAGE, "start": "parents", "grid": {"optimizer.lr": [0.1, 0.01]}},
}


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    """A folder with a zoo, and all that a test writes."""
    folder = tmp_path_factory.mktemp("sandbox")
    planned = plan(Blueprint.read({"name": "hostile", "stages": STAGES}))
    zoo = Zoo.create(folder / "zoo")
    for name, spec in zip(NAMES, planned.of_stage("each"), strict=True):
        _write(zoo, spec.model_copy(update={"stage": name}))
    for spec in planned.of_stage("parents"):
        _write(zoo, spec.model_copy(update={"stage": WORST}))
    for spec in planned.of_stage("children"):
        stage = {"stage": f"{WORST} of {WORST}"}
        _write(zoo, spec.model_copy(update=stage), zoo.state_dict(spec.parent))
    for number in range(2):
        settings = {name: [name, f"{name} {number}"][bool(number)] for name in NAMES}
        settings |= {"data.mean": [0.5], "data.std": [0.5]}
        imported = {"source": "vit_zoo", "name": f"pretraining/{NAMES[number]}", "weights": "0"}
        imported |= {"architecture": TINY, "settings": settings}
        _write(zoo, ImportedSpec(stage=PARTS, imported=Imported.read(imported)))
    return folder


def _write(zoo, spec, weights=None):
    folder = zoo.folder(spec.id)
    folder.begin(spec, About(10, tuple(NAMES[3:13]), {"torch": WORST, WORST: "1"}))
    torch.manual_seed(int(spec.id[:6], 16))
    weights = weights or spec.origin.build(10).state_dict()
    for epoch in range(2):
        folder.commit(epoch, {"test_accuracy": 0.1, WORST: 1.0, "": 2.0}, weights, None)
        weights = {name: t + 0.02 * torch.randn(t.shape) for name, t in weights.items()}
    folder.finish("finished", WORST)


@pytest.fixture
def zoo(sandbox):
    return Zoo.open(sandbox / "zoo")


@pytest.fixture
def out(sandbox, monkeypatch):
    """A folder to write into, which is also where we are; nothing is written beside it."""
    folder = sandbox / "out"
    folder.mkdir()
    monkeypatch.chdir(folder)
    before = _outside(sandbox, folder)
    yield folder
    assert _outside(sandbox, folder) == before
    shutil.rmtree(folder)


def _outside(sandbox, folder):
    """What lies in the sandbox and in the folder above it, but for what may change."""
    free = [folder, *(sandbox / "zoo" / name for name in ("index", "records", "cache"))]
    files = {file: file.stat() for file in [*sandbox.rglob("*"), *sandbox.parent.iterdir()]}
    return {
        file: (about.st_ino, *((about.st_size, about.st_mtime_ns) if file.is_file() else ()))
        for file, about in files.items()
        if not any(file.is_relative_to(each) for each in free)
    }


@pytest.fixture
def vitarium(monkeypatch, capsys):
    """Run a command; gives its output and errors, which no terminal would stumble over."""

    def run(*arguments, status=0):
        monkeypatch.setattr("sys.argv", ["vitarium", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        assert (ended.value.code or 0) == status, printed.err
        assert is_visible(printed.out)
        assert is_visible(printed.err)
        if status:
            first, *others = printed.err.splitlines()
            assert first.startswith("error: ")
            assert all(line.startswith("  ") for line in others)
        return printed.out + printed.err if status else printed.out

    return run


def is_visible(text):
    """Whether nothing in a text but line ends is hidden."""
    text.encode()
    return not any(is_hidden(letter) for letter in text if letter != "\n")


class Page(HTMLParser):
    """Counts a page's elements, and has the text of all."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.handlers = {}, "", []
        self.feed(page if isinstance(page, str) else page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.handlers += [name for name, _ in attributes if name.startswith("on")]

    def handle_data(self, data):
        self.text += data


def check_page(path, figures):
    """Whether the page's elements are ours alone."""
    page = Page(path)
    assert page.tags["script"] == 3
    assert page.tags["figure"] == figures
    assert not page.handlers
    assert not {"img", "iframe", "link"} & page.tags.keys()
    assert not any(is_hidden(c) for c in page.text if c not in "\n\t")


def check_figures(folder, count):
    files = sorted(folder.iterdir())
    assert len(files) == 2 * count
    assert {file.suffix for file in files} == {".png", ".svg"}
    for file in files:
        assert len(file.name.encode()) < 120
        assert is_visible(file.name)
        if file.suffix == ".svg":
            ET.parse(file)


# What prints


@pytest.mark.parametrize(
    "command",
    [
        ["ls"],
        ["ls", "--sort", "-after", "--where", "stage = '../../x' OR stage LIKE '%\x1b%'"],
        ["query", "SELECT * FROM models"],
        ["query", "SELECT * FROM epochs", "--format", "csv"],
        ["query"],
        ["verify", "--deep"],
        ["measure", "weight_norm"],
    ],
    ids=lambda command: " ".join(command)[:30],
)
def test_what_is_printed_can_be_seen(vitarium, sandbox, command):
    command, *options = command
    assert vitarium(command, sandbox / "zoo", *options)


@pytest.mark.parametrize("command", [["ls"], ["query"], ["query", "SELECT * FROM models"]])
def test_as_json_every_name_is_what_it_is(vitarium, sandbox, zoo, command):
    command, *options = command
    printed = json.loads(vitarium(command, sandbox / "zoo", *options, "--json"))
    if options or command == "ls":
        assert {row["stage"] for row in printed} >= set(map(encodable, NAMES))


def test_every_model_is_shown(vitarium, sandbox, zoo):
    stages = set()
    for number, id in enumerate(zoo.ids()[::4]):
        if number % 2:
            vitarium("show", sandbox / "zoo", id)
        else:
            stages.add(json.loads(vitarium("show", sandbox / "zoo", id, "--json"))["stage"])
    assert stages <= {*map(encodable, NAMES), WORST, f"{WORST} of {WORST}", PARTS}


@pytest.mark.parametrize("name", [*NAMES[4:7], *NAMES[11:19:2], WORST.replace("\0", "")])
def test_what_names_nothing_is_told_in_a_line(vitarium, sandbox, name):
    for arguments in (
        ["show", sandbox / "zoo", name.lstrip("-")],
        ["ls", sandbox / "zoo", "--sort", f"x{name}"],
        ["blueprint", "check", f"x{name}"],
        ["measure", sandbox / "zoo", f"x{name}"],
    ):
        printed = vitarium(*arguments, status=2)
        assert printed.count("\n") <= 1 + name.count("\n")
        assert len(printed) < 2_000


def test_bars_and_lines_of_progress_show_names_as_they_are(tiny, capsys, monkeypatch):
    tiny["name"], tiny["stages"] = "p", {"[bold]:bomb:[/]": tiny["stages"]["pretrain"]}
    planned = plan(Blueprint.read(tiny))
    model = planned.models[0].id
    events = [
        Started(model),
        Stepped(model, 1, 1, 2),
        EpochEnded(model, 1, {"val_accuracy": 0.5}),
        Notice(WORST),
        Retried(model, WORST),
        Ended(model, "failed", WORST),
    ]
    with display(planned, []) as listen:
        for event in events:
            listen(event)
    assert is_visible(printed := capsys.readouterr().err)
    assert "[bold]:bomb:[/]" in printed
    terminal = Terminal(file=io.StringIO(), force_terminal=True, color_system=None, width=300)
    monkeypatch.setattr("vitarium.engine.progress.display.Terminal", lambda **settings: terminal)
    with display(planned, []) as listen:
        for event in events:
            listen(event)
    drawn = terminal.file.getvalue()
    assert "[bold]:bomb:[/]" in drawn
    assert printable(WORST, newline="\n").splitlines()[0] in drawn
    assert "\x1b[31m" not in drawn
    assert "\u202e" not in drawn


# What writes


@pytest.mark.parametrize("format", ["csv", "json", "parquet"])
def test_answers_are_written_as_they_are(vitarium, sandbox, out, format):
    file = out / f"answer.{format}"
    vitarium("query", sandbox / "zoo", "SELECT stage FROM models", "--output", file)
    if format == "parquet":
        assert set(pq.read_table(file)["stage"].to_pylist()) >= set(map(encodable, NAMES))
    elif format == "csv":
        assert "\n'=cmd()\n" in file.read_text()


@pytest.mark.parametrize("exporter", ["timm", "hugging_face"])
def test_names_of_classes_are_exported_as_they_are(vitarium, sandbox, zoo, out, exporter):
    id = next(id for id in zoo.ids() if zoo.spec(id).stage == PARTS)
    vitarium("export", sandbox / "zoo", "--exporter", exporter, "--out", out / "all", id)
    (folder,) = (out / "all").iterdir()
    config = json.loads((folder / "config.json").read_bytes())
    names = config.get("label_names") or list(config["id2label"].values())
    assert names == list(map(encodable, NAMES[3:13]))


@pytest.mark.parametrize("exporter", ["safetensors", "vit_zoo"])
def test_what_was_exported_comes_back_with_its_names(vitarium, sandbox, zoo, out, exporter):
    stages = {id: encodable(zoo.spec(id).stage) for id in zoo.ids()}
    ids = [id for id, stage in stages.items() if exporter == "safetensors" or len(stage) < 9]
    vitarium("export", sandbox / "zoo", "--exporter", exporter, "--out", out / "all", *ids)
    written = [file.name for file in (out / "all").rglob("*")]
    assert len(written) > len(ids)
    assert all(name.isascii() and name.isprintable() for name in written)
    vitarium("import", out / "all", "--zoo", out / "new")
    expected = {stages[id] for id in ids}
    if exporter == "safetensors":  # what a cell of a table begins or ends with is no space
        expected = {stage.strip() or "imported" for stage in expected}
    assert set(Zoo.open(out / "new").models()["stage"]) == expected


def test_onnx_takes_the_names_as_metadata(zoo):
    import onnx

    id = next(id for id in zoo.ids() if zoo.spec(id).stage == WORST)
    model = onnx.ModelProto()
    onnx.helper.set_model_props(model, metadata(zoo, CheckpointRef(id, 1)))
    read = onnx.load_model_from_string(model.SerializeToString())
    about = {prop.key: prop.value for prop in read.metadata_props}
    assert about["stage"] == WORST
    assert json.loads(about["classes"]) == list(map(encodable, NAMES[3:13]))


def test_the_card_of_a_data_set_says_names_and_nothing_else(vitarium, sandbox, out):
    options = ["--set", "weights=safetensors", "--set", f"name={WORST}".replace("\0", "")]
    where = ["--where", f"stage LIKE '%part' OR stage LIKE '{WORST[:4]}%' OR length(stage) > 9999"]
    vitarium("export", sandbox / "zoo", "--exporter", "hub", "--out", out / "hub", *options, *where)
    card = (out / "hub" / "README.md").read_text(encoding="utf-8")
    assert is_visible(card)
    _, settings, text = card.split("---\n", 2)
    assert YAML(typ="safe").load(settings)["pretty_name"] == printable(WORST.replace("\0", ""))
    html = MarkdownIt("commonmark").enable("table").render(text)
    assert not {"script", "b"} & Page(html).tags.keys()
    assert text.splitlines()[1].startswith(r"# ../\\x1b\[31m&lt;/script&gt;&lt;b&gt;&amp;")
    assert {file.name for file in (out / "hub" / "figures").iterdir()} == {
        "accuracies.png",
        "training.png",
    }


def test_the_study_of_diversity_writes_into_its_folder(vitarium, sandbox, out):
    where = f"stage LIKE '{WORST[:4]}% of %'"
    options = ["--figures", out / "figures", "--set", "n_resamples=20", "--num-images", "20"]
    options += ["--set", "measure_missing=false", "--set", 'embeddings=["pca"]', "--where", where]
    vitarium("study", "diversity", sandbox / "zoo", "--out", out / "page.html", *options)
    count = len(list((out / "figures").iterdir())) // 2
    assert count >= 3
    check_page(out / "page.html", count)
    assert "&{{7*7}}" in Page(out / "page.html").text
    check_figures(out / "figures", count)


def test_the_study_of_soups_writes_into_its_folder(vitarium, sandbox, out):
    options = ["--num-images", "40", "--set", "aligned_pairs=0"]
    options += ["--set", "n_resamples=20", "--set", "pairs=2", "--set", "barrier_images=20"]
    options += ["--set", "points=3", "--set", 'methods=["uniform_soup"]', "--set", "last=[2]"]
    vitarium("study", "soups", sandbox / "zoo", "--out", out / "page.html", *options)
    check_page(out / "page.html", 4)


def test_the_study_of_lineage_writes_files_that_can_be_read(vitarium, sandbox, zoo, out):
    files = ["--out", out / "page.html", "--json", out / "f.json", "--graphml", out / "f.graphml"]
    vitarium("study", "lineage", sandbox / "zoo", *files, "--compare", "none")
    check_page(out / "page.html", 2)
    graph = ET.parse(out / "f.graphml").getroot()
    assert sum(each.tag.endswith("node") for each in graph.iter()) == len(zoo)
    stages = {
        model["about"]["stage"] for model in json.loads((out / "f.json").read_bytes())["models"]
    }
    assert stages >= set(map(encodable, NAMES))


def test_files_of_any_name_are_read_and_their_lineage_written(vitarium, out):
    folder = out / f"fol{NO_UTF8}der\x1b[31m"
    folder.mkdir()
    names = [
        "a\nb",
        r"a\nb",
        "\x1b[31m",
        "[bold]",
        "<b>",
        "=x",
        "-rf",
        f"-{NO_UTF8}",
        "事前",
    ]
    torch.manual_seed(0)
    for name in names:
        save_file({"w": torch.randn(6, 6), "v": torch.randn(6)}, out / "plain.safetensors")
        (out / "plain.safetensors").rename(folder / f"{name}.safetensors")
    files = ["--out", out / "page.html", "--json", out / "f.json", "--graphml", out / "f.graphml"]
    vitarium("study", "lineage", folder, *files, "--compare", "none")
    assert Page(out / "page.html").tags["script"] == 3
    ET.parse(out / "f.graphml")
    read = [model["name"] for model in json.loads((out / "f.json").read_bytes())["models"]]
    assert len(set(read)) == len(names)
    assert all(map(is_visible, read))


# What is read


@pytest.mark.parametrize(
    "file",
    ["../../x.pth", "/x.pth", "nul\0.pth", "x" * 10_000 + ".pth", "a\nb.pth", "\x1b[31m.pth"],
)
def test_a_table_names_no_file_outside_of_its_folder(vitarium, out, file):
    (out / "source").mkdir()
    (out / "source" / "models.csv").write_text(f'file,name\n"{file}",a\n', newline="")
    printed = vitarium("import", out / "source", "--zoo", out / "new", status=2)
    assert "row 2, column 'file': " in printed
    assert len(printed) < 1_000
    assert not (out / "new").exists()


def test_names_of_folders_and_links_of_foreign_models(vitarium, out, theirs, monkeypatch):
    from vitarium.formats.importers import vit_zoo

    monkeypatch.setitem(vit_zoo.MODELS, "vit_test_16", "test_vit")
    source = theirs.write_zoo(out / "published")
    model = next((source / "pretraining").iterdir())
    vitarium("import", source, "--dry-run")
    model = model.rename(model.with_name(f"\x1b[31m{NO_UTF8}"))
    vitarium("import", model.parent.parent, "--zoo", out / "new", "--orphans")
    names = set(Zoo.open(out / "new").models()["name"])
    assert encodable(f"pretraining/\x1b[31m{NO_UTF8}") in names
    secret = out / "secret.json"
    config = next(file for file in model.iterdir() if file.name in ("config.json", "params.json"))
    config.rename(secret)
    config.symlink_to(secret)
    printed = vitarium("import", source, "--zoo", out / "newer", "--orphans", status=1)
    assert "leads out of" in printed


def test_no_link_of_a_zoo_is_published(vitarium, sandbox, zoo, out):
    secret = out / "secret"
    secret.write_text("secret")
    link = zoo.path / "models" / zoo.ids()[0] / "notes"
    link.symlink_to(secret)
    try:
        options = ["--exporter", "hub", "--out", out / "hub", zoo.ids()[0]]
        assert "leads out of" in vitarium("export", sandbox / "zoo", *options, status=1)
    finally:
        link.unlink()
    assert not (out / "hub").exists()


def test_no_checkpoint_builds_on_a_path():
    from vitarium.core.errors import CorruptFile
    from vitarium.zoo._format.description import Base

    with pytest.raises(CorruptFile, match="no id"):
        CheckpointFolder(Path("zoo"), "0" * 12).find(Base("../../x", 0, ""))
