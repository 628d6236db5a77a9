"""The contracts of importers and exporters."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from vitarium.blueprint import Blueprint, plan
from vitarium.core.registry import Plugin, get
from vitarium.formats.export import export
from vitarium.zoo import About, Zoo

_BLUEPRINT = {
    "name": "tiny",
    "stages": {
        "pretrain": {
            "architecture": {"name": "vit", "img_size": 16, "embed_dim": 24, "depth": 1},
            "data": {"name": "digits"},
            "epochs": 1,
            "batch_size": 4,
        }
    },
}


def check_importer(name: str) -> None:
    """An importer is described, has defaults, and detects nothing where there is nothing."""
    plugin = get("importer", name)
    _check_described(plugin)
    plugin.config.read(dict(plugin.facts["tiny"]))
    with TemporaryDirectory(prefix="vitarium-") as folder:
        empty, file = Path(folder) / "empty", Path(folder) / "notes.txt"
        empty.mkdir()
        file.write_text("no model\n", encoding="utf-8")
        for source in (empty, file, Path(folder) / "missing"):
            try:
                detected = plugin.facts["detects"](source)
            except Exception as error:
                raise AssertionError(
                    f"importer '{name}': detects raises {error!r} for {source.name}"
                ) from error
            assert detected is False, f"importer '{name}' detects its format in {source.name}"


def check_exporter(name: str) -> None:
    """An exporter writes just what it yields, the same files again, and leaves the zoo as it is.

    It is called with the settings `tiny=` of its decorator for a ViT of one block; one that refuses
    that model has to say why.
    """
    plugin = get("exporter", name)
    _check_described(plugin)
    settings = dict(plugin.facts["tiny"])
    with TemporaryDirectory(prefix="vitarium-") as folder:
        zoo = _tiny_zoo(Path(folder) / "zoo")
        checkpoint = zoo.at(zoo.ids()[0])
        reason = plugin.facts["refuses"](plugin.config.read(settings), zoo, checkpoint)
        if reason is not None:
            assert isinstance(reason, str), f"exporter '{name}': refuses gives {reason!r}, no text"
            assert reason.strip(), f"exporter '{name}' does not say why it refuses a model"
            return
        before = _contents(zoo.path)
        steps = _Steps()
        first, second = Path(folder) / "first", Path(folder) / "second"
        paths = export(zoo, name, out=first, progress=steps, **settings)
        export(zoo, name, out=second, **settings)
        rule = f"exporter '{name}'"
        assert paths, f"{rule} writes nothing"
        assert len(set(paths)) == len(paths), f"{rule} yields a path twice"
        assert steps.count == len(paths), f"{rule}: progress has another number of steps than files"
        for path in paths:
            assert path.exists(), f"{rule} yields {path.name}, which it has not written"
            assert first in path.parents, f"{rule} yields {path}"
        tops = {path.relative_to(first).parts[0] for path in paths}
        extra = {path.name for path in first.iterdir()} - tops
        assert not extra, f"{rule} writes {', '.join(sorted(extra))} without yielding it"
        names = [set(_contents(out)) for out in (first, second)]
        assert names[0] == names[1], f"{rule} writes other files at the second time"
        assert _contents(zoo.path) == before, f"{rule} changes the zoo"
        hidden = [path.name for path in Path(folder).iterdir() if path.name.startswith(".")]
        assert not hidden, f"{rule} leaves {', '.join(hidden)} beside its folder"


class _Steps:
    def __init__(self) -> None:
        self.count = 0

    def step(self, task: str, done: int, total: int) -> None:
        self.count += 1
        assert done == self.count <= total, f"step {self.count} says {done} of {total}"


def _check_described(plugin: Plugin) -> None:
    assert plugin.summary, f"{plugin.kind} '{plugin.name}' has no docstring"


def _tiny_zoo(path: Path) -> Zoo:
    """A zoo of one model with random weights, as if it had been trained for an epoch."""
    zoo = Zoo.create(path)
    for spec in plan(Blueprint.read(_BLUEPRINT)).models:
        folder, model = zoo.folder(spec.id), spec.recipe.build(10)
        folder.begin(spec, About(10, tuple("0123456789"), {}))
        for epoch in (0, 1):
            weights = {name: 1.5**epoch * tensor for name, tensor in model.state_dict().items()}
            folder.commit(epoch, {"test_accuracy": 0.1 + 0.5 * epoch}, weights, None)
        folder.finish("finished")
    zoo.models()  # so that the index is there before and after
    return zoo


def _contents(folder: Path) -> Mapping[str, bytes]:
    """Every file's bytes by its path in the folder."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}
