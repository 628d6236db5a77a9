"""The contracts of importers and exporters, which `import_zoo.py` and `export.py` run."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from torch import Size, Tensor

from vitarium.blueprint import Recipe
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.parameters import parameter
from vitarium.core.registry import Section, contract, register
from vitarium.zoo import Zoo


@dataclass(frozen=True)
class ForeignEpoch:
    """A state of a foreign model."""

    number: int
    metrics: Mapping[str, float]
    load: Callable[[], dict[str, Tensor]] | None
    """Gives weights under the names of `ForeignModel.architecture` (timm's), or the file's own
    without one, and raises UntrustedFile, CorruptFile or InvalidInput; None: they were not kept."""
    shapes: Callable[[], Mapping[str, Size]] | None = None
    """Gives the shapes of what `load` gives, where that takes less; all of an import's are compared
    with the architecture before anything is written."""


@dataclass(frozen=True)
class ForeignModel:
    """A model of someone else's folder. An importer yields parents before their children."""

    name: str  # what it is called there; unique inside of what is imported
    stage: str
    epochs: Sequence[ForeignEpoch]  # in order; a model without any weights is not imported
    num_outputs: int
    parent: str | None = None  # the `name` of the model it started from
    parent_epoch: int | None = None  # None: after the parent's last kept epoch
    base: CheckpointRef | None = None
    """The model of the zoo that it started from, where that is no foreign one: it has no `parent`
    then, and the importer `needs_zoo`."""
    initial_epoch: int | None = None
    """The epoch whose weights are those before training; None: none that is known of. A number 0
    alone says nothing: many programs count epochs from 0."""
    architecture: Section | None = None
    """None: nothing here builds it; its tensors are kept all the same."""
    head: Section | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Generating factors by dotted name: ours (`optimizer.lr`) where they mean the same."""
    classes: tuple[str, ...] = ()
    finished: bool = True
    where: str = ""  # where it is described, for messages: "models.csv, row 3"
    notes: tuple[str, ...] = ()
    """What the importer wants to be known: what was missing or broken, and what became of it."""

    @property
    def named(self) -> str:
        return f"{self.name} ({self.where})" if self.where else self.name


def checkpoint_name(checkpoint: CheckpointRef) -> str:
    """What its file or folder is called in an export: `3f2a0c41d9e7-epoch-0005`."""
    return f"{checkpoint.model}-epoch-{checkpoint.epoch:04d}"


@dataclass(frozen=True)
class Skipped:
    """A model for which a format has no place."""

    checkpoint: CheckpointRef
    reason: str


Checkpoints = Sequence[CheckpointRef]
ImportFunction = TypeVar(
    "ImportFunction",
    bound=Callable[[Any, Path], Iterable[ForeignModel]]
    | Callable[[Any, Path, Zoo], Iterable[ForeignModel]],
)
ExportFunction = TypeVar(
    "ExportFunction", bound=Callable[[Any, Zoo, Checkpoints, Path], Iterable[Path | Skipped]]
)
Refuses = Callable[[Any, Zoo, CheckpointRef], str | None]


@contract
def importer(
    name: str,
    *,
    detects: Callable[[Path], bool],
    fallback: bool = False,
    needs_zoo: bool = False,
    paper: str = "",
    tiny: Mapping[str, Any] = {},
) -> Callable[[ImportFunction], ImportFunction]:
    """Register a function `(config, source) -> ForeignModel, ...` that reads a foreign format.

    It yields the models of a folder or file and reads no more of their weights than it needs to
    describe them. `import_zoo` does the rest: ids, order, lineage, resuming, and checking that
    weights fit the architecture. Files are untrusted input: read them with `formats.weights`. Raise
    InvalidInput that names the file for what cannot be imported. Settings have defaults where
    `detects` is to be enough.

    Args:
        detects: `source -> bool`, whether a folder or file has this format. Called on whatever the
            user names, also on what is not there, so it is cheap and raises nothing.
        fallback: whether the format is taken only where no other importer detects its own.
        needs_zoo: the function is `(config, source, zoo) -> ForeignModel, ...`: what is imported
            changes models that the zoo has.
        paper: of the zoo that has the format.
        tiny: settings for the contract test, `vitarium.testing.check_importer(name)`.
    """
    facts: dict[str, Any] = {"detects": detects, "fallback": fallback, "needs_zoo": needs_zoo}
    return register("importer", name, **facts, paper=paper, tiny=tiny)


def taken_elsewhere(*others: str) -> str:
    """The hint that exporters which need less take a model, and before them these."""
    names = (*others, "safetensors", "onnx")
    return f"{' and '.join(parameter('exporter', name) for name in names)} take it"


def refuses_unbuilt(config: Any, zoo: Zoo, checkpoint: CheckpointRef) -> str | None:
    if zoo.spec(checkpoint.model).origin.architecture is None:
        any_model = f"{parameter('exporter', 'safetensors')} takes any model"
        return f"it was imported as tensors without an architecture; {any_model}"
    return None


def refuses_additions(config: Any, zoo: Zoo, checkpoint: CheckpointRef) -> str | None:
    """As `refuses_unbuilt`, and models with prompts or adapters, which others cannot build."""
    origin = zoo.spec(checkpoint.model).origin
    if isinstance(origin, Recipe) and origin.adds_modules:
        parts = f"its adaptation '{origin.adaptation.name}' added parts to the architecture"
        any_model = f"{parameter('exporter', 'safetensors')} takes any model"
        return f"{parts}, for which the format has no place; {any_model}"
    return refuses_unbuilt(config, zoo, checkpoint)


@contract
def exporter(
    name: str,
    *,
    refuses: Refuses = lambda config, zoo, checkpoint: None,
    needs: Sequence[str] = (),
    extra: str = "",
    opened_by: str = "",
    paper: str = "",
    tiny: Mapping[str, Any] = {},
) -> Callable[[ExportFunction], ExportFunction]:
    """Register a function `(config, zoo, models, out) -> path, ...` that writes a foreign format.

    It writes into the empty folder `out` and yields each file or folder there once that is
    complete, or Skipped for a model that turns out not to survive the format, of which it leaves
    nothing there. `export` does the rest: selecting models, renaming the folder at the end,
    removing it after an error, and making one of what is skipped where that is not wanted.

    Args:
        refuses: `(config, zoo, model) -> reason`, why the format has no place for a model; None
            where it has. Asked of every model before anything is written.
        needs: libraries that are imported when it runs, and are checked before.
        extra: what to install where they are missing, e.g. "vitarium[onnx]".
        opened_by: the call or command that opens what was written: `{path}` is the first path that
            was yielded, `{out}` the folder.
        paper: of the zoo that has the format.
        tiny: settings for the contract test, `vitarium.testing.check_exporter(name)`.

    Raises ValueError where `needs` is given without `extra`.
    """
    if needs and not extra:
        what = f"exporter '{name}' needs {', '.join(needs)}"
        raise ValueError(f"{what}: say with extra= what has them")
    facts: dict[str, Any] = {"refuses": refuses, "needs": tuple(needs), "extra": extra}
    facts["opened_by"] = opened_by
    reserved = ("zoo", "exporter", "out", "models", "where", "skip", "progress", "listener")
    return register("exporter", name, reserved=reserved, **facts, paper=paper, tiny=tiny)
