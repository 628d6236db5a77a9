"""What a model comes of: the checkpoints that it started from, was made of or learned from."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from vitarium.core import files
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import CorruptFile
from vitarium.zoo import _model_files as model_files
from vitarium.zoo._model_files import Epoch

if TYPE_CHECKING:
    from vitarium.zoo.zoo import Zoo

_TEACHER = re.compile(r"([0-9a-f]{1,12})(?:@(\d{1,18}))?")
Role = Literal["parent", "ingredient", "teacher"]


class Source(NamedTuple):
    """A checkpoint that a model comes of; `epoch` is None where none is named: the last."""

    role: Role
    model: str
    epoch: int | None

    def is_of(self, models: Collection[str], checkpoints: Collection[CheckpointRef]) -> bool:
        """Whether it is of one of the models, or is one of the checkpoints."""
        is_checkpoint = self.epoch is not None and (self.model, self.epoch) in checkpoints
        return self.model in models or is_checkpoint

    def __str__(self) -> str:
        return self.model if self.epoch is None else f"{self.model}@{self.epoch}"


def sources(factors: Mapping[str, Any], ids: Iterable[str] = ()) -> list[Source]:
    """Of a model's `ModelFolder.factors`, the parent first.

    A teacher may be named by the beginning of its id, which is completed by one of `ids`.
    """
    listed: list[Source] = []
    if factors["parent"]:
        listed.append(Source("parent", factors["parent"], factors["parent_epoch"] or 0))
    listed += [Source("ingredient", ref["model"], ref["epoch"]) for ref in factors["ingredients"]]
    objective = factors.get("recipe", {}).get("objective") or {}
    teacher = objective.get("teacher")
    match = _TEACHER.fullmatch(teacher) if isinstance(teacher, str) else None
    if match and match[1]:
        model = next((id for id in ids if id.startswith(match[1])), match[1])
        listed.append(Source("teacher", model, int(match[2]) if match[2] else None))
    return listed


def contents_now(models: Path, factors: Mapping[str, Any]) -> dict[str, str]:
    """What the sources of a model hold, by `ID@EPOCH`; `models` is the folder of the zoo's models.

    Sources that are not there, or cannot be read, are left out.
    """
    contents = {}
    for source in sources(factors, _names(models)):
        with suppress(CorruptFile, OSError):
            if model_files.read_description(models / source.model)["format"] == 1:
                continue  # which names the bytes of a file, and another thing once it is packed
            epochs = model_files.read_lines(models / source.model, "epochs.jsonl", Epoch)
            stored = {epoch.number: epoch.checkpoint for epoch in epochs if epoch.checkpoint}
            number = max(stored, default=0) if source.epoch is None else source.epoch
            if number in stored:
                contents[f"{source.model}@{number}"] = stored[number]
    return contents


def contents_then(folder: Path) -> dict[str, str]:
    """What a model's sources held when it was begun, by `ID@EPOCH`, as far as that is known."""
    contents = model_files.read_description(folder).get("sources", {})
    return {str(name): str(content) for name, content in contents.items()}


def _names(models: Path) -> Iterator[str]:
    """Read when the first is asked for."""
    for folder in files.listed(models):
        yield folder.name


def sources_by_model(zoo: "Zoo") -> dict[str, list[Source]]:
    """Of every model whose description can be read."""
    ids, by_model = zoo.ids(), dict[str, list[Source]]()
    for id in ids:
        with suppress(CorruptFile):
            by_model[id] = sources(zoo.folder(id).factors(), ids)
    return by_model


def with_ancestors(zoo: "Zoo", ids: Iterable[str]) -> list[str]:
    """The models and, before each, those of the zoo that it comes of. Raises CorruptFile."""
    present = zoo.ids()
    return list(dict.fromkeys(_parents_first(zoo, ids, set(present), present)))


def parents_first(zoo: "Zoo", ids: Collection[str]) -> list[str]:
    """The models alone, none before one that it comes of. Raises CorruptFile."""
    return [id for id in with_ancestors(zoo, ids) if id in set(ids)]


def _parents_first(
    zoo: "Zoo", ids: Iterable[str], present: set[str], ordered: list[str]
) -> Iterator[str]:
    """Every model after those that it comes of; an id is a hash of theirs: there is no circle."""
    visited: set[str] = set()
    waiting = [(id, False) for id in reversed(list(ids))]
    while waiting:
        id, are_sources_listed = waiting.pop()
        if are_sources_listed:
            yield id
        elif id not in visited:
            visited.add(id)
            waiting.append((id, True))
            of_model = sources(zoo.folder(id).factors(), ordered)
            waiting += [(source.model, False) for source in of_model if source.model in present]
