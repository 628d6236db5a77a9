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
    more dimensions that are called "weight", but for tables: matrices of modules "...embed...".
    Position embeddings and class tokens are in neither case.
    """
    shapes = weights.shapes
    try:
        modules = weights.skeleton.named_modules()
    except NotApplicable:
        leaves = ("weight", "in_proj_weight")
        paths = {n: n.split(".") for n, s in shapes.items() if len(s) >= 2}
        tables = {
            n for n, p in paths.items() if len(shapes[n]) == 2 and "embed" in "".join(p[-2:-1])
        }
        return [n for n, path in paths.items() if path[-1] in leaves and n not in tables]
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
            module_name = next(name.removesuffix(end) for end in _FUSED if name.endswith(end))
            count = getattr(weights.skeleton.get_submodule(module_name), "num_heads", None)
            if not isinstance(count, int):
                unknown = f"{module_name} does not say how many heads it has"
                raise NotApplicable(f"{weights.name}: {unknown}")
            for letter, part in zip("qkv", matrix.chunk(3), strict=True):
                for number, head in enumerate(part.chunk(count)):
                    yield f"{name}/{letter}/head{number}", head


def _is_fused(name: str, matrix: Tensor) -> bool:
    return name.endswith(_FUSED) and len(matrix) % 3 == 0
