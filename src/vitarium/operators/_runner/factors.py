"""Models whose layers have factors, as operators see them: with the matrices that these make.

A mean of factors makes no mean of matrices, and models of one function have many factors. So what
operators combine are matrices, and the result has the nearest factors to what comes of them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from vitarium.architectures.base import Factorized
from vitarium.core.errors import IncompatibleWeights, InvalidInput, NotApplicable
from vitarium.core.registry import Section
from vitarium.evaluation.inputs import Weights
from vitarium.operators.base import OperatorLog

Keep = Callable[[str, Tensor], Tensor]
"""`(name, tensor [*shape]) -> tensor [*shape]` in the dtype that it is kept in."""


class MatrixWeights(Weights):
    """A model with a matrix, `fc1.weight`, in the place of the factors of each layer."""

    def __init__(self, model: Weights, layers: Mapping[str, Factorized]) -> None:
        super().__init__(model.name, model, skeleton=lambda: model.skeleton, origin=model.origin)
        self._model = model
        self._layers = {f"{path}.weight": (path, layer) for path, layer in layers.items()}
        factors = {
            f"{path}.{factor}": f"{path}.weight"
            for path, layer in layers.items()
            for factor in layer.factor_names
        }
        self._names = list(dict.fromkeys(factors.get(name, name) for name in model))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """See the base."""
        matrices = {n: (la.out_features, la.in_features) for n, (_, la) in self._layers.items()}
        shapes = {name: matrices.get(name) or self._model.shapes.get(name) for name in self._names}
        return {name: shape for name, shape in shapes.items() if shape is not None}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._layers:
            return self._model[name]
        path, layer = self._layers[name]
        return layer.matrix({f: self._model[f"{path}.{f}"] for f in layer.factor_names})

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def dtype(self, name: str) -> torch.dtype:
        """That of the factors, as which a matrix is kept."""
        return self._model.dtype(self._stored(name)[0])

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """`tensor[start:stop]`, [stop - start, ...]"""
        if name in self._layers:
            return self[name][start:stop]
        return self._model.rows(name, start, stop)

    def read_ahead(self, names: Sequence[str]) -> None:
        """See the base."""
        self._model.read_ahead([stored for name in names for stored in self._stored(name)])

    def _stored(self, name: str) -> list[str]:
        """Names of the tensors that it is made of."""
        if name not in self._layers:
            return [name]
        path, layer = self._layers[name]
        return [f"{path}.{factor}" for factor in layer.factor_names]


def factorized_layers(model: Weights) -> dict[str, Factorized]:
    """A model's layers that have factors, by their names; none where nothing builds it."""
    try:
        modules = model.skeleton.named_modules()
    except (NotApplicable, InvalidInput):
        return {}
    return {path: module for path, module in modules if isinstance(module, Factorized)}


def with_matrices(model: Weights, layers: Mapping[str, Factorized]) -> Weights:
    """The model with matrices in the place of the factors of these layers."""
    return MatrixWeights(model, layers) if layers else model


def combined_layers(operator: Section, model: Weights) -> dict[str, Factorized]:
    """The layers whose matrices an operator combines; none where it rearranges the model.

    Raises IncompatibleWeights where a model that runs would have to be given matrices.
    """
    layers = {} if operator.plugin.facts["aligns"] else factorized_layers(model)
    if layers and operator.plugin.facts["split"]:
        raise IncompatibleWeights(
            f"{model.name}: {operator.name} runs models with combined weights, and layers of this "
            "architecture have factors, of which matrices alone can be combined; take a method "
            "that looks at no images, or combine plain models (`dense_form`)"
        )
    return layers


def nearest_factors(
    tensors: Iterator[tuple[str, Tensor]],
    layers: Mapping[str, Factorized],
    keep: Keep,
    log: OperatorLog,
) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors [*shape] of a model with factors, of those of one with matrices.

    What the factors leave out of all matrices is logged, relative, in Frobenius norm.
    """
    missed = total = 0.0
    for name, tensor in tensors:
        path, _, kind = name.rpartition(".")
        stored = keep(name, tensor)
        if kind != "weight" or path not in layers:
            yield name, stored
            continue
        factors, error = layers[path].factored(tensor)
        missed, total = missed + error**2, total + float(tensor.double().square().sum())
        for factor, core in factors.items():
            yield f"{path}.{factor}", core.to(stored.dtype)
    if layers:
        log.metrics["relative_error"] = relative = (missed / (total or 1)) ** 0.5
        log.lines.append(f"relative Frobenius error of the nearest factors: {relative:.3g}")
