"""A lineage that a study recovered, beside the true one, as the page is told of it.

The file may come with a zoo from elsewhere: it is checked, and only what is shown is passed on.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vitarium.core import files
from vitarium.core.errors import CorruptFile, InvalidInput
from vitarium.core.printable import printable, shortened
from vitarium.page.answers.studies import RecoveredLineage, RecoveredModel, RecoveredParent
from vitarium.zoo import studies

Parents = Mapping[str, Sequence[str]]
Status = Literal["right", "tied", "wrong", "unknown"]
MAX_BYTES = 256 << 20
"""Of a file, which is read whole; ten thousand models take 20 MB."""
_VERSION = 1
_MAX_CANDIDATES = 3
_MAX_FAULT = 300
Probability = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(max_length=300)]


class _Values(BaseModel):
    """What the page shows of an object; members of which it knows nothing are left out."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class _Model(_Values):
    name: Name
    root: Probability | None
    candidates: dict[Name, Probability] = {}


class _Edge(_Values):
    parent: Name
    child: Name
    confidence: Probability | None


class _Lineage(_Values):
    """See `vitarium.lineage.files.forests`, which writes it."""

    format: Literal["vitarium lineage"]
    version: Literal[1]
    method: Annotated[str, Field(max_length=100)]
    models: list[_Model]
    edges: list[_Edge]
    tied: list[list[Name]]
    truth: dict[Name, list[Name]] | None


def recovered_lineage(zoo: Path, name: str) -> RecoveredLineage:
    """A lineage that was recovered and stored in the zoo.

    Raises UnknownName, CorruptFile, and InvalidInput for a version that is newer than this one.
    """
    file = studies.find_lineage(zoo, name)
    lineage = _read(file)
    edges: dict[str, list[_Edge]] = {model.name: [] for model in lineage.models}
    for edge in lineage.edges:
        edges[edge.child].append(edge)
    parents = {model: [edge.parent for edge in edges[model]] for model in edges}
    truth = lineage.truth or {}
    statuses = _statuses(parents, truth, lineage.tied)
    models = [
        RecoveredModel(
            model=printable(model.name),
            parents=[
                RecoveredParent(model=printable(edge.parent), probability=edge.confidence)
                for edge in edges[model.name]
            ],
            root=model.root,
            others=_others(model, parents[model.name]),
            true_parents=_printable(truth.get(model.name)),
            status=statuses[model.name],
        )
        for model in lineage.models
    ]
    return {"method": printable(lineage.method), "date": studies.date(file), "models": models}


def _read(file: Path) -> _Lineage:
    if (size := file.stat().st_size) > MAX_BYTES:
        raise CorruptFile(file, f"it has {size:,} bytes, more than any recovered lineage")
    value = files.read_json(file)
    version = value.get("version") if isinstance(value, dict) else None
    if type(version) is int and version > _VERSION:
        what = f"is of version {version}, and this vitarium reads {_VERSION}"
        raise InvalidInput(f"{file} {what}; install a newer one")
    try:
        lineage = _Lineage.model_validate(value)
    except ValidationError as error:
        raise CorruptFile(file, f"it is no recovered lineage ({_first_fault(error)})") from None
    names = {model.name for model in lineage.models}
    if len(names) < len(lineage.models):
        raise CorruptFile(file, "it is no recovered lineage (a model is in it twice)")
    for edge in lineage.edges:
        if not {edge.parent, edge.child} <= names:
            raise CorruptFile(file, "it is no recovered lineage (an edge is of unknown models)")
    return lineage


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_input=False)[0]
    location = ".".join(map(str, fault["loc"]))
    return shortened(printable(f"{location}: {fault['msg']}".removeprefix(": ")), _MAX_FAULT)


def _statuses(
    recovered: Parents, truth: Parents, tied: Sequence[Sequence[str]]
) -> dict[str, Status]:
    """Of every model, whether its parents are the true ones; as the study's page has it."""
    groups = {model: frozenset([model]) for model in recovered}
    for names in tied:
        groups |= dict.fromkeys(names, frozenset(names))

    def grouped(names: Sequence[str]) -> set[frozenset[str]]:
        return {groups.get(name, frozenset([name])) for name in names}

    def status(model: str) -> Status:
        if model not in truth:
            return "unknown"
        if set(recovered[model]) == set(truth[model]):
            return "right"
        possible = [grouped(truth[twin]) for twin in groups[model] if twin in truth]
        return "tied" if grouped(recovered[model]) in possible else "wrong"

    return {model: status(model) for model in recovered}


def _printable(names: Sequence[str] | None) -> list[str] | None:
    return None if names is None else [printable(name) for name in names]


def _others(model: _Model, parents: Sequence[str]) -> list[RecoveredParent]:
    recovered = set(parents) or {""}
    others = [item for item in model.candidates.items() if item[0] not in recovered]
    others.sort(key=lambda item: -item[1])
    return [{"model": printable(name), "probability": p} for name, p in others[:_MAX_CANDIDATES]]
