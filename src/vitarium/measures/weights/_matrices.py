"""Weight matrices of a model: which tensors they are, and how attention's are split."""

from collections.abc import Iterator

from torch import Tensor, nn

from vitarium.core.errors import NotApplicable
from vitarium.evaluation.inputs import Weights, finite

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_FUSED = (".qkv.weight", ".in_proj_weight")
"""Queries, keys and values in one matrix, as timm and torch call it."""


def layers(weights: Weights) -> list[str]:
    """Names of the tensors that are weights of linear and convolutional layers.

    The architecture says which these are. Where it is not known, they are the tensors of two and
    more dimensions that are called "weight", but for matrices of modules called "...embed...":
    those are tables. Position embeddings and class tokens are matrices in neither case.
    """
    shapes = weights.shapes
    try:
        modules = weights.skeleton.named_modules()
    except NotApplicable:
        return [name for name, shape in shapes.items() if _looks_like_a_layer(name, shape)]
    layer_names = set()
    for name, module in modules:
        if isinstance(module, _LAYERS):
            layer_names.add(f"{name}.weight")
        elif isinstance(module, nn.MultiheadAttention):
            layer_names |= {f"{name}.in_proj_weight", f"{name}.out_proj.weight"}
    return [name for name, shape in shapes.items() if name in layer_names and len(shape) >= 2]


def matrices(weights: Weights) -> Iterator[tuple[str, Tensor]]:
    """Every layer's matrix [out, rest], and a fused one's queries, keys and values.

    Parts are TENSOR, TENSOR/q, TENSOR/k and TENSOR/v. A kernel [out, in, h, w] is seen as
    [out, in * h * w], which is the map that it is where patches do not overlap.
    """
    for name in layers(weights):
        matrix = finite(f"{weights.name}: {name}", weights[name]).flatten(1)
        yield name, matrix
        if _is_fused(name, matrix):
            for letter, part in zip("qkv", matrix.chunk(3), strict=True):
                yield f"{name}/{letter}", part


def head_matrices(weights: Weights) -> Iterator[tuple[str, Tensor]]:
    """Of every fused matrix, each head's own queries, keys and values [head_dim, in].

    Parts are TENSOR/q/head0 and so on. Raises NotApplicable where the architecture, and so the
    number of heads, is not known.
    """
    for name in layers(weights):
        matrix = weights[name].flatten(1)
        if _is_fused(name, matrix):
            count = _num_heads(weights, name)
            for letter, part in zip("qkv", matrix.chunk(3), strict=True):
                for number, head in enumerate(part.chunk(count)):
                    yield f"{name}/{letter}/head{number}", head


def _looks_like_a_layer(name: str, shape: tuple[int, ...]) -> bool:
    *path, leaf = name.split(".")
    is_table = len(shape) == 2 and any("embed" in module for module in path[-1:])
    return len(shape) >= 2 and leaf in ("weight", "in_proj_weight") and not is_table


def _is_fused(name: str, matrix: Tensor) -> bool:
    return name.endswith(_FUSED) and len(matrix) % 3 == 0


def _num_heads(weights: Weights, name: str) -> int:
    """Of the attention whose queries, keys and values `name` holds."""
    module_name = next(name.removesuffix(suffix) for suffix in _FUSED if name.endswith(suffix))
    count = getattr(weights.skeleton.get_submodule(module_name), "num_heads", None)
    if not isinstance(count, int):
        raise NotApplicable(f"{weights.name}: {module_name} does not say how many heads it has")
    return count
