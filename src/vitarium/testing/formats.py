"""The contracts of importers and exporters."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from vitarium.formats.export import export
from vitarium.testing._rules import Contract
from vitarium.testing._tiny_zoo import tiny_zoo


def check_importer(name: str) -> None:
    """An importer is described, has defaults, and detects nothing where there is nothing."""
    rule = Contract("importer", name)
    with TemporaryDirectory(prefix="vitarium-") as folder:
        empty, file = Path(folder) / "empty", Path(folder) / "notes.txt"
        empty.mkdir()
        file.write_text("no model\n", encoding="utf-8")
        for source in (empty, file, Path(folder) / "missing"):
            try:
                detected = rule.facts["detects"](source)
            except Exception as error:
                raise AssertionError(
                    f"importer '{name}': detects raises {error!r} for {source.name}"
                ) from error
            rule(detected is False, f"it detects its format in {source.name}")


def check_exporter(name: str) -> None:
    """An exporter writes just what it yields, the same files again, and leaves the zoo as it is.

    It is called with its `tiny` settings for a ViT of one block; if it refuses, it has to say why.
    """
    rule = Contract("exporter", name)
    settings = dict(rule.facts["tiny"])
    with TemporaryDirectory(prefix="vitarium-") as parent, tiny_zoo() as zoo:
        folder, model = Path(parent), zoo.ids()[0]
        reason = rule.facts["refuses"](rule.section.config, zoo, zoo.at(model))
        if reason is not None:
            rule(isinstance(reason, str), f"refuses gives {reason!r}, no text")
            rule(reason.strip(), "it does not say why it refuses a model")
            return
        zoo.models()  # so that the index is there before and after
        before = _contents(zoo.path)
        steps = _Steps()
        first, second = folder / "first", folder / "second"
        paths = export(zoo, name, out=first, models=[model], progress=steps, **settings)
        export(zoo, name, out=second, models=[model], **settings)
        rule(paths, "it writes nothing")
        rule(len(set(paths)) == len(paths), "it yields a path twice")
        rule(steps.count == len(paths), "progress has another number of steps than files")
        for path in paths:
            rule(path.exists(), f"it yields {path.name}, which it has not written")
            rule(first in path.parents, f"it yields {path}")
        tops = {path.relative_to(first).parts[0] for path in paths}
        extra = {path.name for path in first.iterdir()} - tops
        rule(not extra, f"it writes {', '.join(sorted(extra))} without yielding it")
        same = _contents(first).keys() == _contents(second).keys()
        rule(same, "it writes other files at the second time")
        rule(_contents(zoo.path) == before, "it changes the zoo")
        hidden = [path.name for path in folder.iterdir() if path.name.startswith(".")]
        rule(not hidden, f"it leaves {', '.join(hidden)} beside its folder")


class _Steps:
    count = 0

    def step(self, task: str, done: int, total: int) -> None:
        self.count += 1
        assert done == self.count <= total, f"step {self.count} says {done} of {total}"


def _contents(folder: Path) -> Mapping[str, bytes]:
    """Every file's bytes by its path in the folder."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}
