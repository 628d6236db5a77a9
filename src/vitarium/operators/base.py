"""What operators are given, and how they say what they did.

An operator is registered as a function `(config, ingredients) -> Iterator[(name, Tensor)]` that
yields every tensor of `ingredients.shapes`, once each, in any real dtype; they are kept in the
ingredients' own. Tensors of whole numbers are no matter of operators: they are the first's.

What else an operator needs is said where it is registered:

    ordered=True     the order of the ingredients counts; otherwise they come sorted
    count=(1, 1)     fewest and most ingredients; (2, None) unless it is said
    base=True        it needs what the ingredients started from: `ingredients.base`
    split="val"      it looks at images of that split, "train" or "val": `ingredients.examples()`,
                     or those of each model's own data, with the model: `ingredients.subject(0)`.
                     The test split is out of its reach
    epochs=choose    it is given one model, and works on several of its epochs:
                     `choose(config, kept epochs) -> epochs`
    aligns=True      of two models it gives the second, rearranged to match the first
    origin=-1        number of the ingredient whose recipe the result has; 0 unless it is said
    architecture=f   the result's architecture, if it is another: `f(config, section) -> section`.
                     Its tensors are yielded then; names that are new, in the dtype they shall have
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from vitarium.architectures.symmetries.base import Symmetries
from vitarium.core.config import Config
from vitarium.core.errors import IncompatibleWeights, InvalidInput
from vitarium.evaluation.data import EvalData
from vitarium.evaluation.inputs import EvalModel, Weights

Report = Callable[[int, int], None]

_FETCHED_BYTES = 128_000_000
"""What the system is told to fetch at once. Cold, 16 ViT-S took 1.6 s so, 5.4 s in windows of a
quarter, and 3.3 s file by file, page by page."""


@dataclass
class Told:
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
            the device where models run; also where a head is left out.
        examples: gives images of the split that the operator was registered with.
        subject: gives a model by its number as it runs, on images of its own data.
        symmetries: gives those that the architecture declares.
        report: called with how much is done, and of how much.

    Raises IncompatibleWeights that names two models and a tensor that differs between them.
    """

    def __init__(
        self,
        models: Sequence[Weights],
        *,
        base: Callable[[], Weights] | None = None,
        model: Callable[[], nn.Module] | None = None,
        examples: Callable[[], EvalData] | None = None,
        subject: Callable[[int], EvalModel] | None = None,
        symmetries: Callable[[], Symmetries] | None = None,
        report: Report = lambda done, of: None,
    ) -> None:
        self._models = list(models)
        self._base, self._model, self._examples = base, model, examples
        self._symmetries, self._subject = symmetries, subject
        self.report = report
        self.told = Told()
        for model_ in self._models[1:]:
            check_alike(self._models[0], model_)

    def __getitem__(self, number: int) -> Weights:  # type: ignore[override]
        return self._models[number]

    def __len__(self) -> int:
        return len(self._models)

    @property
    def names(self) -> list[str]:
        """Of the models, `ID@EPOCH`."""
        return [model.name for model in self._models]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the tensors that are to be made."""
        return self._models[0].shapes

    def in_turn(self) -> Iterator[str]:
        """The names of `shapes`, one after the other; it reports how many are done.

        The system fetches the tensors of the next ones from disk meanwhile.
        """
        windows, done = self._windows(), 0
        for place, window in enumerate(windows):
            for following in windows[place + (place > 0) : place + 2]:  # at first two, then one
                for model in self._models:
                    model.read_ahead(following)
            for name in window:
                self.report(done, len(self.shapes))
                done += 1
                yield name

    def each(self, name: str) -> Iterator[Tensor]:
        """A tensor of one model after the other. Raises IncompatibleWeights, CorruptFile."""
        for model in self._models:
            yield checked(model, name)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Name by name, the models' tensors stacked: [models, *shape]. Raises as `each`."""
        for name in self.in_turn():
            yield name, torch.stack(list(self.each(name)))

    def deltas(self, names: Sequence[str] | None = None) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Name by name, the base's tensor and what the models added to it: [models, *shape].

        Both in float64. Of all tensors, or of those with these names. Raises as `each`.
        """
        names = list(self.shapes) if names is None else names
        for done, name in enumerate(names):
            self.report(done, len(names))
            base = checked(self.base, name).double()
            deltas = base.new_empty((len(self), *self.shapes[name]))
            for delta, tensor in zip(deltas, self.each(name), strict=True):
                torch.sub(tensor, base, out=delta)  # one at a time: nothing is stacked twice
            yield name, base, deltas

    @cached_property
    def base(self) -> Weights:
        """What the models started from."""
        assert self._base is not None, "an operator that needs a base is registered with base=True"
        base = self._base()
        check_alike(self._models[0], base)
        return base

    def model(self) -> nn.Module:
        """A running model; load the weights of whichever is to be tried."""
        assert self._model is not None
        return self._model()

    def examples(self) -> EvalData:
        """The images of the split that the operator is registered with."""
        assert self._examples is not None, "register the operator with the split that it looks at"
        return self._examples()

    def subject(self, number: int) -> EvalModel:
        """A model with its own head, in eval mode, float32, and images that it was trained for.

        They are of the split that the operator is registered with, of the model's own data, or of
        what the user named in its place. Read anew each time: let go of it before the next.
        """
        assert self._subject is not None, "register the operator with the split that it looks at"
        return self._subject(number)

    @cached_property
    def symmetries(self) -> Symmetries:
        """What the models' architecture declares. Raises IncompatibleWeights where it does not."""
        assert self._symmetries is not None
        return self._symmetries()

    def _windows(self) -> list[list[str]]:
        """Names in order, together so many that their tensors have about `_FETCHED_BYTES`."""
        found: list[list[str]] = [[]]
        size = 0
        for name, shape in self.shapes.items():
            own = 4 * math.prod(shape) * len(self)
            if size and size + own > _FETCHED_BYTES:
                found.append([])
                size = 0
            found[-1].append(name)
            size += own
        return found


def checked(model: Weights, name: str) -> Tensor:
    """A tensor. Raises IncompatibleWeights that names it where an entry is NaN or infinite."""
    tensor = model[name]
    # no sum is finite where an entry is not, and it takes a thirtieth of the time
    if not torch.isfinite(tensor.sum()) and not torch.isfinite(tensor).all():
        raise IncompatibleWeights(
            f"{model.name}: {name} has entries that are not finite; leave that model out "
            "(--skip-diverged)"
        )
    return tensor


def check_alike(one: Weights, other: Weights) -> None:
    """Raises IncompatibleWeights that names the first tensor in which two models differ."""
    for name in [*one.shapes, *other.shapes]:
        shapes = [one.shapes.get(name), other.shapes.get(name)]
        if shapes[0] != shapes[1]:
            told = ["missing" if shape is None else str(list(shape)) for shape in shapes]
            raise IncompatibleWeights(
                f"{one.name} and {other.name} cannot be combined: {name} is {told[0]} in the first "
                f"and {told[1]} in the second"
            )


Made = Iterator[tuple[str, Tensor]]
"""What an operator yields."""


class Weighted(Config):
    """Base of the settings of operators in which models may count differently."""

    weights: dict[str, float] = {}
    """How much models count, by how their ids begin, `{"3f2a": 0.5}`; the others count 1."""

    def of(self, ingredients: Ingredients) -> list[float]:
        """The models' weights. Raises InvalidInput for a name that no model, or two names that one
        model has."""
        return by_model(ingredients, self.weights, 1.0)


def by_model(ingredients: Ingredients, given: dict[str, float], otherwise: float) -> list[float]:
    """What is given for each model by how its id begins, `3f2a` or `3f2a@5`."""
    fitting = [[key for key in given if _is_called(name, key)] for name in ingredients.names]
    for key in given:
        if not any(key in keys for keys in fitting):
            raise InvalidInput(f"'{key}' is none of the models {', '.join(ingredients.names)}")
    for name, keys in zip(ingredients.names, fitting, strict=True):
        if len(keys) > 1:
            raise InvalidInput(f"{name} is given {len(keys)} values: as {' and as '.join(keys)}")
    return [given[keys[0]] if keys else otherwise for keys in fitting]


def _is_called(name: str, key: str) -> bool:
    """Whether `ID@EPOCH` is meant by a beginning of the id, with or without the epoch."""
    id, _, epoch = key.partition("@")
    return name.startswith(id) and (not epoch or name.partition("@")[2] == epoch)
