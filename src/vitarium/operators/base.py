"""The contract of operators, which make a model's weights of other models' weights."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NoReturn, TypeVar

import torch
from torch import Tensor, nn

from vitarium.architectures.symmetries.base import Symmetries
from vitarium.core.config import Config
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.parameters import parameter
from vitarium.core.progress import SILENT, Progress
from vitarium.core.registry import Section, contract, register
from vitarium.evaluation.data import EvalData
from vitarium.evaluation.inputs import EvalModel, Weights
from vitarium.zoo import Model

_FETCHED_BYTES = 128_000_000
"""What the system is told to fetch at once. Cold, 16 ViT-S took 1.6 s so, 5.4 s in windows of a
quarter, and 3.3 s file by file, page by page."""

_SPLIT = "register the operator with the split that it looks at"

NamedTensors = Iterator[tuple[str, Tensor]]
"""What an operator yields: the names and the tensors [*shape] of a model."""

RUNNER_OPTIONS: tuple[str, ...] = ("zoo", "method", "models", "where", "base", "heads", "align")
RUNNER_OPTIONS += ("stage", "data", "normalization", "device", "data_dir", "skip_diverged")
RUNNER_OPTIONS += ("force", "progress", "grid")
"""Of `vitarium.merge` and `merge_grid`: no setting of an operator is called like one of them."""

F = TypeVar("F", bound=Callable[..., NamedTensors])
ChooseEpochs = Callable[[Any, Sequence[int]], Sequence[int]]
"""`(config, trained epochs of the model that have checkpoints, in order) -> epochs`"""
Settle = Callable[[Any, EvalModel], Config]
"""`(config, the model and its images) -> the settings, with those that images decide`"""
ChangeArchitecture = Callable[..., Section]
"""`(config, the architecture of each model) -> the result's`; an architecture that nothing builds
is None."""
ChangeHead = Callable[[Any, Section | None], Section]
"""`(config, the model's head; None: as its architecture comes) -> the result's`"""
Members = Callable[[Model, Mapping[str, Any]], Sequence[Mapping[str, Any]]]
"""`(model, settings that all have) -> the settings of each model inside of it`"""
Training = Callable[[Any, Model, int], Mapping[str, Any]]
"""`(config, the original, number of its outputs) -> factors of a recipe by dotted path`"""


@contract
def operator(
    name: str,
    *,
    title: str,
    config: type[Config] | None = None,
    paper: str = "",
    models: tuple[int, int | None] = (2, None),
    ordered: bool = False,
    needs_base: bool = False,
    split: Literal["train", "val"] | None = None,
    epochs: ChooseEpochs | None = None,
    aligns: bool = False,
    origin: int = 0,
    settled: Settle | None = None,
    architecture: ChangeArchitecture | None = None,
    head: ChangeHead | None = None,
    compression: Literal["trained", "post_training"] | None = None,
    members: Members | None = None,
    fused_by: str = "",
    training: Training | None = None,
    tiny: Mapping[str, Any] = {},
    tiny_architecture: Mapping[str, Any] | None = None,
    identity_on_copies: Mapping[str, Any] | Literal[False] = {},
) -> Callable[[F], F]:
    """Register a function `(config, ingredients) -> Iterator[(name, Tensor)]` as an operator.

    It yields every tensor of `ingredients.shapes` once, in any real dtype; the zoo stores them in
    the widest dtype of the ingredients, and refuses entries that are not finite. Buffers are no
    weights and not given to operators: statistics of batch normalizations are counted anew on the
    images that the operator looks at, or else averaged as statistics (`ingredients.shares`); others
    are copied. `vitarium.testing.check_operator` checks the contract.

    Args:
        title: what the method is called in tables and figures, e.g. "TIES".
        config: its settings; None: the class that its first parameter is annotated with.
        paper: authors, year, and where to find it.
        models: the fewest and the most models that it takes; (2, None): two or more.
        ordered: the order of the models counts; otherwise they come sorted.
        needs_base: it reads what the models started from, `ingredients.base`.
        split: it looks at images of that split: `ingredients.examples()`, or with a model those of
            the model's own data, `ingredients.subject(number)`. The test split is out of reach.
        epochs: it takes one model, and combines the epochs that this chooses of those with
            checkpoints, the state before training left out.
        aligns: of two models, in their order, it gives the second, with its units transformed to
            match the first, and the second's recipe.
        origin: number of the model whose recipe the result has.
        settled: of one model, gives the settings that run and are stored, where its images decide
            some, e.g. sizes of the result; `architecture` is asked about others, too.
        architecture: gives the architecture of the result where that is another. Then it yields
            the tensors of that one; those with new names in the dtype that they shall have.
        head: gives the head of the result where that is another, beside `architecture`.
        compression: `vitarium compress` offers it, and by default trains what it makes (trained),
            or takes that as it is (post_training).
        members: of one model, gives the settings with which it makes each of the models that are
            inside of that, for `vitarium.merge_grid`. Raises IncompatibleWeights for a model that
            has none.
        fused_by: operator that makes one model of all of these members: `vitarium compress` makes
            and trains them, and then that one.
        training: gives factors of the recipe by which `vitarium compress` trains it, not defaults.
        tiny: settings for the contract tests with which it takes about a second on tiny models.
        tiny_architecture: of the models in the contract tests, e.g. `{"name": "ewa_vit"}`; None: a
            plain ViT of one block.
        identity_on_copies: settings with which copies of a model give that model; False: none do.

    Raises ValueError where `models` is no range, `members` or `settled` are of several models, or
    there are no members to be fused, or no images to settle by.
    """
    facts = dict(locals())  # its arguments
    if models[0] < 0 or (models[1] is not None and models[1] < models[0]):
        raise ValueError(f"operator '{name}': models={models} is no range of numbers of models")
    if members and models != (1, 1):
        raise ValueError(f"operator '{name}': members are inside of one model; give models=(1, 1)")
    if fused_by and not members:
        raise ValueError(f"operator '{name}': fused_by needs members")
    if settled and (models != (1, 1) or split is None):
        raise ValueError(f"operator '{name}': settled needs models=(1, 1) and a split of images")
    if aligns:
        facts |= {"models": (2, 2), "ordered": True, "origin": -1}
    return register("operator", reserved=RUNNER_OPTIONS, **facts)


@dataclass
class OperatorLog:
    """What an operator says of its work; it is kept with the model."""

    metrics: dict[str, float] = field(default_factory=dict)
    """As of an epoch, e.g. `val_accuracy`."""
    lines: list[str] = field(default_factory=list)


class Ingredients(Sequence[Weights]):
    """Models' weights with equal names and shapes, read from disk when they are asked for.

    Args:
        models: their weights; the head's may be left out.
        base: gives what they started from, with the same names.
        model: gives a new running model of the ingredients' architecture, in eval mode, float32, on
            the device where models run; also where a head is left out. Load the weights of
            whichever is to be tried.
        examples: gives images of the split that the operator was registered with, as the merged
            model sees them, or an ingredient by its number: `examples(1)`.
        subject: gives a model by its number as it runs, with its own head, in eval mode, float32,
            and images of that split, of its own data or what the user named in its place. Read
            anew each time: let go of it before the next.
        symmetries: gives those that the architecture declares.
        buffers: names of tensors that are no weights, and no matter of the operator.
        progress: is told how many parts of `task` are done.

    Raises IncompatibleWeights that names two models and a tensor that differs between them.
    """

    def __init__(
        self,
        models: Sequence[Weights],
        *,
        base: Callable[[], Weights] | None = None,
        model: Callable[[], nn.Module] | None = None,
        examples: Callable[..., EvalData] | None = None,
        subject: Callable[[int], EvalModel] | None = None,
        symmetries: Callable[[], Symmetries] | None = None,
        buffers: Collection[str] = (),
        progress: Progress = SILENT,
        task: str = "",
    ) -> None:
        self._models = list(models)
        self.names = [model.name for model in self._models]
        """Of the models, `ID@EPOCH`."""
        shapes = self._models[0].shapes.items()
        self.shapes = {name: shape for name, shape in shapes if name not in buffers}
        """Of the tensors that are to be made."""
        self.shares: Sequence[tuple[Weights, float]] = [(m, 1 / len(models)) for m in self._models]
        """What the result is a mean of, for statistics of batch normalizations: not negative, with
        a sum of 1. An operator for which models do not count alike sets it."""
        self._base, self._symmetries = base, symmetries
        self.model: Callable[[], nn.Module] = model or _missing("nothing runs such a model")
        self.examples: Callable[..., EvalData] = examples or _missing(_SPLIT)
        self.subject: Callable[[int], EvalModel] = subject or _missing(_SPLIT)
        self.progress, self.task = progress, task
        self.log = OperatorLog()
        for model_ in self._models[1:]:
            check_alike(self._models[0], model_)

    def __getitem__(self, number: int) -> Weights:  # type: ignore[override]
        return self._models[number]

    def __len__(self) -> int:
        return len(self._models)

    def report(self, done: int, total: int) -> None:
        self.progress.step(self.task, done, total)

    def share(self, weights: Sequence[float], models: Sequence[Weights] | None = None) -> None:
        """Set `shares` in proportion to weights [models]; negative ones count as 0."""
        counted = [max(weight, 0.0) for weight in weights]
        if total := sum(counted):
            shares = [weight / total for weight in counted]
            self.shares = list(zip(models or self._models, shares, strict=True))

    def in_turn(self) -> Iterator[str]:
        """The names of `shapes`; says how many are done, while the system fetches the next ones."""
        windows: list[list[str]] = [[]]
        size = done = 0
        for name, shape in self.shapes.items():
            nbytes = 4 * math.prod(shape) * len(self)
            if size and size + nbytes > _FETCHED_BYTES:
                windows.append([])
                size = 0
            windows[-1].append(name)
            size += nbytes
        for position, window in enumerate(windows):
            first = position + (position > 0)  # at first two are fetched, then one
            for following in windows[first : position + 2]:
                for model in self._models:
                    model.read_ahead(following)
            for name in window:
                self.report(done, len(self.shapes))
                done += 1
                yield name

    def model_tensors(self, name: str) -> Iterator[Tensor]:
        """A tensor [*shape], model by model. Raises IncompatibleWeights, CorruptFile."""
        for model in self._models:
            yield checked(model, name)

    def tensors(self) -> NamedTensors:
        """Name by name, the models' tensors stacked: [models, *shape]. Raises as `checked`."""
        for name in self.in_turn():
            yield name, torch.stack(list(self.model_tensors(name)))

    def deltas(self, names: Sequence[str] | None = None) -> Iterator[tuple[str, Tensor, Tensor]]:
        """By name, the base's tensor and what the models added to it, float64 [models, *shape]."""
        names = list(self.shapes) if names is None else names
        for done, name in enumerate(names):
            self.report(done, len(names))
            base = checked(self.base, name).double()
            deltas = base.new_empty((len(self), *self.shapes[name]))
            for delta, tensor in zip(deltas, self.model_tensors(name), strict=True):
                torch.sub(tensor, base, out=delta)  # one at a time: nothing is stacked twice
            yield name, base, deltas

    @cached_property
    def base(self) -> Weights:
        assert self._base is not None, "register the operator with needs_base=True"
        base = self._base()
        check_alike(self._models[0], base)
        return base

    @cached_property
    def symmetries(self) -> Symmetries:
        """What the models' architecture declares. Raises IncompatibleWeights where it does not."""
        assert self._symmetries is not None
        return self._symmetries()


def _missing(advice: str) -> Callable[..., Any]:
    def fail(*arguments: object) -> NoReturn:
        raise AssertionError(advice)

    return fail


def checked(model: Weights, name: str) -> Tensor:
    """A tensor [*shape]. Raises IncompatibleWeights that names it for NaN or infinite entries."""
    tensor = model[name]
    # no sum is finite where an entry is not, and it takes a thirtieth of the time
    if not torch.isfinite(tensor.sum()) and not torch.isfinite(tensor).all():
        raise IncompatibleWeights(
            f"{model.name}: {name} has entries that are not finite; leave that model out, e.g. by "
            f"{parameter('skip_diverged', True)}"
        )
    return tensor


def in_float64(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors [*shape], by name, in float64."""
    return {name: tensor.double() for name, tensor in weights.items()}


def check_alike(first: Weights, second: Weights) -> None:
    """Raises IncompatibleWeights that names the first tensor in which two models differ."""
    for name in [*first.shapes, *second.shapes]:
        shapes = [first.shapes.get(name), second.shapes.get(name)]
        if shapes[0] != shapes[1]:
            described = ["missing" if shape is None else str(list(shape)) for shape in shapes]
            raise IncompatibleWeights(
                f"{first.name} and {second.name} cannot be combined: {name} is {described[0]} "
                f"in the first and {described[1]} in the second"
            )
