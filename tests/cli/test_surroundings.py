"""Every command on a full disk, with a zoo that may only be read, on any terminal, at any path.

A new command fails here until it has an example in EXAMPLES.
"""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from cli import command_runner as runner
from vitarium import Zoo, export, merge
from vitarium.cli import app
from vitarium.zoo.verify import verify

RUNNER = Path(runner.__file__)


@dataclass(frozen=True)
class Example:
    """What a user types: {zoo}, {model}, {child} (of the model), {blueprint}, {search}, {lessons},
    {weights}, {out}.

    writes: into the "zoo"; "out": into a folder; "beside" the zoo, for a while; "numbers": into the
        zoo, and they are shown all the same where it may only be read.
    before: what is typed before, so that there is something to do.
    measures: it keeps numbers in the zoo besides, where that may be written.
    """

    typed: str
    writes: str = ""
    status: int = 0
    before: str = ""
    measures: bool = False

    @property
    def keeps_numbers(self) -> bool:
        return self.measures or self.writes == "numbers"


EXAMPLES = {
    "demo": [Example("demo --zoo {weights} --workers 0", status=2)],  # it is no empty folder
    "grow": [
        Example("grow {blueprint} --zoo {zoo} --workers 0", "zoo"),
        Example("grow {blueprint} --zoo {out}/grown --workers 0", "out"),
        Example("grow {blueprint} --zoo {zoo} --dry-run --no-calibrate"),
    ],
    "tune": [Example("tune {search} --trials 2 --zoo {zoo} --workers 0", "zoo")],
    "blueprint list": [Example("blueprint list")],
    "blueprint show": [Example("blueprint show demo")],
    "blueprint check": [Example("blueprint check {blueprint}")],
    "import": [
        Example("import {weights} --set table=models.csv --zoo {zoo}", "zoo"),
        Example("import {weights} --set table=models.csv --zoo {out}/imported", "out"),
        Example("import {weights} --table {weights}/models.csv --dry-run"),
    ],
    "export": [
        Example("export {zoo} --exporter safetensors --out {out}/files {model}@1", "out"),
        Example("export {zoo} --to timm --out {out}/timm {model}", "out"),
        Example("export {zoo} --exporter hugging_face --out {out}/hf {model}", "out"),
        Example("export {zoo} --exporter vit_zoo --out {out}/published {model}", "out"),
        Example("export {zoo} --exporter hub --out {out}/hub", "out"),
    ],
    "push": [Example("push {zoo} me/zoo --dry-run", "beside")],
    "study diversity": [
        Example(
            "study diversity {zoo} --out {out}/page.html --set measure_missing=false "
            "--set 'embeddings=[]' --set n_resamples=20",
            "out",
        )
    ],
    "study factors": [
        Example("study factors {zoo} --out {out}/x.html --target test_loss --n-resamples 20", "out")
    ],
    "study soups": [
        Example(
            "study soups {zoo} --out {out}/page.html --set 'methods=[\"uniform_soup\"]' "
            "--set points=3 --set n_resamples=20 --num-images 40",
            "out",
        )
    ],
    "study twins": [
        Example(
            "study twins {zoo} --out {out}/x.html --runs 2 --threads 1 --sheet 2 --num-images 40",
            "out",
            measures=True,
        )
    ],
    "study lineage": [
        Example("study lineage {zoo} --out {out}/x.html --json {out}/f.json --compare none", "out"),
        Example("study lineage {zoo} --compare none", "zoo"),
        Example(
            "study lineage {weights} --out {out}/x.html --graphml {out}/f.graphml --compare none",
            "out",
        ),
    ],
    "rm": [
        Example("rm {zoo} {child} --keep-dependents --yes", "zoo"),
        Example("rm {zoo} {child} --dry-run"),
    ],
    "archive": [Example("archive {zoo} {child} --out {out}/archive", "out")],
    "merge-zoos": [Example("merge-zoos {zoo} --into {out}/both", "out")],
    "tag": [Example("tag {zoo} {model} best", "zoo")],
    "note": [Example("note {zoo} {model} best", "zoo")],
    "rename-stage": [Example("rename-stage {zoo} pretrain before", "zoo")],
    "ls": [Example("ls {zoo}"), Example("ls {zoo} --json")],
    "show": [Example("show {zoo} {model}"), Example("show {zoo} {model} --json")],
    "query": [
        Example("query {zoo}"),
        Example("query {zoo} 'SELECT * FROM epochs' --format csv"),
        Example("query {zoo} 'SELECT * FROM models' --output {out}/models.csv", "out"),
        Example("query {zoo} 'SELECT * FROM models' --output {out}/models.parquet", "out"),
    ],
    "explore": [Example("explore {zoo} --host 192.0.2.1", status=2)],  # not an address of ours
    "verify": [Example("verify {zoo} --deep")],
    "pack": [Example("pack {zoo}", "zoo", before="unpack {zoo}")],
    "unpack": [Example("unpack {zoo}", "zoo")],
    "measure": [
        Example("measure {zoo} weight_norm agreement cka --num-images 40", "numbers"),
        Example("measure {zoo} sparsity --json", "numbers"),
    ],
    "merge": [
        Example("merge {zoo} {model} {child} --method uniform_soup", "zoo"),
        Example("merge {zoo} {model} {child} --method interpolation --grid t=0.2,0.4", "zoo"),
        Example("merge {zoo} --method list"),
    ],
    "compress": [Example("compress {zoo} {model} --share all --epochs 1 --workers 0", "zoo")],
    "lessons write": [
        Example("lessons write {lessons} --out {out}/lessons --zoo {zoo}", "out"),
    ],
    "lessons check": [Example("lessons check {weights} --zoo {zoo}", status=2)],  # there are none
    "plugins": [Example("plugins measures"), Example("plugins --json")],
}
ALL = [example for examples in EXAMPLES.values() for example in examples]
IN_SUBPROCESS = [
    *(examples[0] for examples in EXAMPLES.values()),
    *(EXAMPLES[command][1] for command in ("grow", "import")),
]
"""One of each command, and what is written in another folder, for another process."""


def over(examples):
    return pytest.mark.parametrize("example", examples, ids=lambda example: example.typed)


def test_every_command_has_an_example():
    def names(command, path=()):
        below = getattr(command, "commands", None)
        if below is None:
            return {" ".join(path)}
        return {name for key in below for name in names(below[key], (*path, key))}

    assert names(typer.main.get_command(app)) == set(EXAMPLES)


@over(ALL)
def test_on_a_full_disk_what_would_write_says_so_and_changes_nothing(example, slots, disk):
    folder = disk("3m")
    zoo, out = shutil.copytree(slots["zoo"], folder / "zoo"), folder / "out"
    out.mkdir()
    typed = filled(slots, zoo=zoo, out=out)
    if example.before:
        assert runner.run(typed(example.before)).status == 0
    fill_up(folder)
    before = content(folder)
    outcome = runner.run(typed(example.typed))
    assert_outcome(outcome, example, fails=example.writes, because="no space left for ")
    assert content(folder) == before


@over(ALL)
def test_a_zoo_on_a_read_only_disk_is_read_on_a_latin_1_terminal(
    example, slots, disk, remount_read_only, tmp_path
):
    folder = disk("3m")
    zoo = shutil.copytree(slots["zoo"], folder / "zoo")
    remount_read_only(folder)
    typed = filled(slots, zoo=zoo, out=tmp_path)
    outcome = runner.run(typed(example.typed), encoding="latin-1")
    because = "is on a disk that can only be read; copy the zoo"
    assert_outcome(outcome, example, fails=example.writes == "zoo", because=because)
    assert ("warning: numbers are not kept" in outcome.err) == example.keeps_numbers


@over([example for example in ALL if example.writes == "out"])
def test_nothing_is_computed_for_a_read_only_disk(
    example, slots, disk, remount_read_only, monkeypatch
):
    folder = disk("3m")
    remount_read_only(folder)
    typed = filled(slots, out=folder)
    for work in ("vitarium.studies.report.page.html", "vitarium.zoo._format.packing.against"):
        monkeypatch.setattr(work, forbidden)
    outcome = runner.run(typed(example.typed))
    assert_outcome(outcome, example, fails=True, because="choose another folder")


@over(ALL)
def test_at_a_path_that_is_no_utf8_on_an_ascii_terminal_everything_works(example, slots, tmp_path):
    folder = tmp_path / os.fsdecode(b"\xff \xe9'[*]")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this disk takes UTF-8 alone")
    moved = {
        name: shutil.copytree(slots[name], folder / name) for name in ("zoo", "weights", "out")
    }
    moved["blueprint"] = shutil.copy(slots["blueprint"], folder / "blueprint.yaml")
    outcome = runner.run(filled(slots, **moved)(example.typed), encoding="ascii")
    assert_outcome(outcome, example)
    assert not verify(moved["zoo"], deep=True)


@pytest.fixture(scope="module")
def with_anothers_zoo(material, tmp_path_factory):
    """Outcomes of examples, for a user who may read the zoo alone, and whose home is closed.

    It is root without its privileges: other users may not be able to read this interpreter. Its
    terminal knows ASCII alone, and so does Python when it opens files.
    """
    if os.geteuid() or not shutil.which("setpriv"):
        pytest.skip("only root can give a zoo to another user, and setpriv takes its privileges")
    folder = tmp_path_factory.mktemp("apart")
    zoos, home, commands = folder / "zoos", folder / "home", []
    zoos.mkdir()
    home.mkdir()
    for number, example in enumerate(IN_SUBPROCESS):
        zoo, out = shutil.copytree(material["zoo"], zoos / str(number)), folder / str(number)
        out.mkdir()
        commands.append(filled(material, zoo=zoo, out=out)(example.typed))
    give_away(zoos)
    give_away(home)
    home.chmod(0o700)
    commands_file, outcomes_file = folder / "commands.json", folder / "outcomes.json"
    commands_file.write_text(json.dumps(commands))
    subprocess.run(
        [
            "setpriv",
            "--bounding-set=-all",
            "--inh-caps=-all",
            sys.executable,
            RUNNER,
            commands_file,
            outcomes_file,
        ],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "HOME": str(home),
            "VITARIUM_CACHE": str(home / "cache"),
            "LC_ALL": "C",
            "PYTHONUTF8": "0",
            "PYTHONCOERCECLOCALE": "0",
        },
        stdin=subprocess.DEVNULL,
        cwd=folder,
        check=True,
    )
    outcomes = [runner.Outcome(**outcome) for outcome in json.loads(outcomes_file.read_text())]
    return dict(zip(IN_SUBPROCESS, outcomes, strict=True))


@pytest.mark.slow
@over(IN_SUBPROCESS)
def test_anothers_zoo_is_read_where_all_is_ascii(example, with_anothers_zoo):
    outcome = with_anothers_zoo[example]
    assert_outcome(outcome, example, fails=example.writes == "zoo", because=" belongs to ")
    assert ("warning: numbers are not kept" in outcome.err) == example.keeps_numbers
    assert (outcome.out + outcome.err).isascii()


def test_a_disk_that_fills_up_while_models_are_trained_ends_growing_and_loses_nothing(
    slots, disk, vitarium
):
    folder = disk("2m")
    zoo = shutil.copytree(slots["zoo"], folder / "zoo")
    recipe = json.loads(slots["blueprint"].read_text())
    recipe["stages"]["pretrain"] |= {"epochs": 15, "grid": {"seed": [11, 12, 13]}}
    slots["blueprint"].write_text(json.dumps(recipe))
    grow = (
        "grow",
        slots["blueprint"],
        "--zoo",
        zoo,
        "--workers",
        0,
        "--stacked",
        1,
        "--no-compiled",
    )
    (folder / "ballast").write_bytes(bytes(shutil.disk_usage(folder).free - (60 << 10)))
    status, _, err = vitarium(*grow)
    assert status == 1
    (line,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert line.startswith("error: no space left for ")
    assert "failed" not in err
    (folder / "ballast").unlink()
    assert not verify(zoo, deep=True)
    (unfinished,) = (
        id for id in Zoo.open(zoo).ids() if not (slots["zoo"] / "models" / id).exists()
    )
    epochs = len(Zoo.open(zoo).epochs(unfinished))
    assert 0 < epochs < 16
    recipe["stages"]["pretrain"] |= {"grid": {"seed": [11]}}
    slots["blueprint"].write_text(json.dumps(recipe))
    status, _, err = vitarium(*grow)
    assert status == 0, err
    assert len(Zoo.open(zoo).epochs(unfinished)) == 16


# What the tests above are made of


@pytest.fixture(scope="module")
def material(_grown, tmp_path_factory):
    """What stands in examples: a zoo with a twin, a blueprint of one model more, files of weights."""
    folder = tmp_path_factory.mktemp("material")
    zoo = Zoo.open(shutil.copytree(_grown, folder / "zoo"))
    export(zoo, "safetensors", out=folder / "weights")
    parents = {id: zoo.spec(id).parent for id in zoo.ids()}
    child, *_, original = (id for id, parent in parents.items() if parent)
    merge(zoo, "tome", models=[original], r=1)
    zoo.models()  # the index is up to date
    recipe = zoo.spec(parents[child]).recipe.factors(defaults=False) | {"epochs": 1, "seed": 9}
    blueprint = folder / "blueprint.yaml"
    blueprint.write_text(json.dumps({"name": "more", "stages": {"pretrain": recipe}}))
    sample = {"count": 2, "factors": {"optimizer.lr": {"log_uniform": [1e-4, 1e-2]}}}
    search = folder / "search.yaml"
    stages = {"pretrain": recipe | {"seed": 10, "sample": sample}}
    search.write_text(json.dumps({"name": "search", "stages": stages}))
    taught = {
        "objective": {"name": "stored_lessons", "lessons": "lessons", "teacher": parents[child]}
    }
    lessons = folder / "lessons.yaml"
    lessons.write_text(json.dumps({"name": "taught", "stages": {"student": recipe | taught}}))
    return {
        "lessons": lessons,
        "zoo": zoo.path,
        "weights": folder / "weights",
        "blueprint": blueprint,
        "search": search,
        "model": parents[child],
        "child": child,
    }


@pytest.fixture
def slots(material, tmp_path):
    """The same, with a zoo that can be changed, and a folder for what is written."""
    folder = tmp_path / "slots"
    zoo = shutil.copytree(material["zoo"], folder / "zoo")
    (folder / "out").mkdir()
    return {**material, "zoo": zoo, "out": folder / "out"}


def filled(slots, **changes):
    """A function that makes arguments of what is typed."""

    def arguments(typed):
        words = {**slots, **changes}
        return [word.format(**words) for word in shlex.split(typed)]

    return arguments


def assert_outcome(outcome, example, *, fails=False, because=""):
    assert outcome.status == (1 if fails else example.status), outcome
    assert "Traceback" not in outcome.err
    assert "Error:" not in outcome.out + outcome.err
    assert len(outcome.errors) == (1 if outcome.status else 0), outcome.err
    if fails:
        assert because in outcome.errors[0]
        assert outcome.err.endswith(outcome.errors[0] + "\n")


def forbidden(*arguments, **more):
    raise AssertionError("this was to be refused before any work")


def fill_up(disk):
    """Leave no byte free."""
    with (disk / "ballast").open("wb", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                pass


def give_away(folder):
    """To another user, who lets all others read it."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 65534, 65534)
        path.chmod(0o755 if path.is_dir() else 0o644)


def content(folder):
    """By path; a lock has none."""
    return {
        path.relative_to(folder): path.is_dir() or hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.suffix != ".lock"
    }
