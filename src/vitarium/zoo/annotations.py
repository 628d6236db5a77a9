"""Words of people beside the models of a zoo: tags and notes, and how stages are called.

`models/<id>/annotations.json` has a model's tags and note, `stages.json` in the zoo's folder the
names under which stages are shown. No id depends on them, and nothing that is trained.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vitarium.blueprint.stage_name import check_stage_name
from vitarium.core import files
from vitarium.core.errors import CorruptFile, InvalidInput, UnknownName
from vitarium.core.printable import is_hidden
from vitarium.zoo.lock import held
from vitarium.zoo.model import ModelNames
from vitarium.zoo.zoo import Zoo

FILE, STAGES = "annotations.json", "stages.json"
SEPARATOR = ", "
"""Between the tags in tables."""
_LONGEST = {"tag": 50, "note": 10_000}


@dataclass(frozen=True)
class Annotations:
    """Words beside a model: tags in the order in which they were added, and a note."""

    tags: tuple[str, ...] = ()
    note: str = ""


def read(folder: Path) -> Annotations:
    """Of a model's folder. Raises CorruptFile."""
    file = folder / FILE
    if not files.exists(file):
        return Annotations()
    values = files.read_sealed(file)
    tags, note = values.get("tags"), values.get("note")
    if isinstance(tags, list) and isinstance(note, str) and len(values) == 2:
        return Annotations(tuple(map(str, tags)), note)
    raise CorruptFile(file, "it has other things than tags and a note")


def write(folder: Path, annotations: Annotations) -> None:
    """Raises LeadsOutside, NotWritable and DiskFull."""
    root = folder.parent.parent
    if annotations == Annotations():
        files.remove(folder / FILE, root=root)
    else:
        values: dict[str, Any] = asdict(annotations)
        files.write_sealed(folder / FILE, {**values, "tags": list(annotations.tags)}, root=root)


def tag(
    zoo: Zoo | str | Path, models: ModelNames | None, tag: str, *, where: str = ""
) -> list[str]:
    """Add a tag to models; the ids of those that did not have it.

    Tags are in the column `tags` of `Zoo.models`, of SQL and of `vitarium ls`, with `, ` between
    them: `where="tags LIKE '%best%'"`.

    Args:
        models: ids or beginnings of them; None: all that fulfill the condition.
        tag: a text without commas.
        where: an SQL condition, see `vitarium.zoo.listing.listing`.

    Raises InvalidInput, UnknownName, CorruptFile, ZooInUse, NotWritable and DiskFull.
    """
    word = _checked("tag", tag)
    return _change(zoo, models, where, f"give the tag '{word}'", lambda a: _with_tag(a, word))


def untag(
    zoo: Zoo | str | Path, models: ModelNames | None, tag: str, *, where: str = ""
) -> list[str]:
    """Remove a tag from models, or from all (None); the ids of those that had it. See `tag`."""
    zoo = Zoo.open(zoo)
    chosen = zoo.ids() if models is None else models
    word = _checked("tag", tag)
    return _change(
        zoo, chosen, where, f"take the tag '{word}' from", lambda a: _without_tag(a, word)
    )


def note(
    zoo: Zoo | str | Path, models: ModelNames | None, note: str, *, where: str = ""
) -> list[str]:
    """Write a note beside models, in the place of the one before; "" removes it. See `tag`."""
    text = _checked("note", note) if note else ""
    return _change(zoo, models, where, f"give the note '{text}'", lambda a: replace(a, note=text))


def _with_tag(annotations: Annotations, tag: str) -> Annotations:
    tags = annotations.tags
    return annotations if tag in tags else replace(annotations, tags=(*tags, tag))


def _without_tag(annotations: Annotations, tag: str) -> Annotations:
    return replace(annotations, tags=tuple(each for each in annotations.tags if each != tag))


def rename_stage(zoo: Zoo | str | Path, old: str, new: str) -> None:
    """Show a stage under another name, also models of it that are grown later.

    The models' own files, their ids and blueprints keep the old name: growing the same blueprint
    again grows nothing twice. The first name, given again, ends it.

    Raises UnknownName for a stage that no model has, InvalidInput for a name that another stage
    has, CorruptFile, ZooInUse, NotWritable and DiskFull.
    """
    zoo, name = Zoo.open(zoo), check_stage_name(new)
    with held(zoo.path):
        labels = stage_labels(zoo.path)
        recorded = {zoo.folder(id).factors()["stage"] for id in zoo.ids()}
        shown = {stage: labels.get(stage, stage) for stage in recorded}
        if old not in shown.values():
            raise UnknownName("stage", old, shown.values())
        if name in shown.values() and name != old:
            raise InvalidInput(f"there is a stage '{name}' already; choose another name")
        labels |= {stage: name for stage, label in shown.items() if label == old}
        labels = {stage: label for stage, label in labels.items() if stage != label}
        files.write_sealed(zoo.path / STAGES, {"stages": labels}, root=zoo.path)


def stage_labels(zoo: Path) -> dict[str, str]:
    """Recorded name -> the one that is shown, of stages that were renamed. Raises CorruptFile."""
    file = zoo / STAGES
    if not files.exists(file):
        return {}
    labels = files.read_sealed(file).get("stages")
    if isinstance(labels, dict) and all(isinstance(label, str) for label in labels.values()):
        return labels
    raise CorruptFile(file, "it has other things than names of stages")


def _change(
    zoo: Zoo | str | Path,
    models: ModelNames | None,
    where: str,
    verb: str,
    change: Callable[[Annotations], Annotations],
) -> list[str]:
    from vitarium.zoo.listing import select

    zoo, changed = Zoo.open(zoo), []
    with held(zoo.path):
        folders = [zoo.folder(zoo.find(name)) for name in select(zoo, models, where, verb)]
        for folder in dict.fromkeys(folder.path for folder in folders):
            before = read(folder)
            if (after := change(before)) != before:
                write(folder, after)
                changed.append(folder.name)
    return changed


def _checked(kind: str, text: str) -> str:
    """Raises InvalidInput for a text that no table could show."""
    text, longest = text.strip(), _LONGEST[kind]
    if not text:
        raise InvalidInput(f"a {kind} of no letters")
    if len(text) > longest:
        raise InvalidInput(f"a {kind} has at most {longest:,} characters, this one {len(text):,}")
    hidden = [char for char in text if is_hidden(char) and not (kind == "note" and char == "\n")]
    if hidden:
        raise InvalidInput(f"the {kind} contains the invisible character U+{ord(hidden[0]):04X}")
    if kind == "tag" and "," in text:
        raise InvalidInput(f"'{text}': a tag has no comma; add one tag after the other")
    return text
