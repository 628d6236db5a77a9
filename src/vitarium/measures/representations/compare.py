"""Compare the layers of any two models, of a zoo or not."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from vitarium.core.errors import InvalidInput, NotApplicable
from vitarium.core.registry import choose
from vitarium.evaluation.features import FEWEST, Vectoriser, cosines, recut
from vitarium.evaluation.inputs import Representation

if TYPE_CHECKING:
    import pandas as pd


def compare(
    one: nn.Module,
    other: nn.Module,
    images: Iterable[Any] | Tensor,
    other_images: Iterable[Any] | Tensor | None = None,
    *,
    measure: str = "cka",
    layers: Sequence[str] | None = None,
    other_layers: Sequence[str] | None = None,
    **settings: Any,
) -> "pd.DataFrame":
    """How alike the layers of two models are, each with each: a row for each layer of `one`.

        compare(model, tuned, loader)                       # CKA of all blocks
        compare(model, tuned, loader, measure="rsa", layers=["blocks.3.attn", "norm"])

    Each model runs once, in eval mode, and is left as it was. All images that there are count,
    in batches of `batch_size` whatever the loader's are; a last one of less than four is left out.

    Args:
        images: a tensor [n, c, h, w], or what yields such tensors, or tuples that begin with one.
            Read once, for both models: an order that is drawn anew does no harm.
        other_images: what the other model sees instead: the same images in the same order, e.g.
            of another size or normalised otherwise.
        layers: dotted names of modules; None: the blocks.
        other_layers: of the other model; None: as `layers`.
        settings: of the measure, e.g. `kernel="rbf"`, `tokens="class"`, `batch_size=64`.

    Raises InvalidInput for wrong settings, a measure that is not of features, batches that are no
    images, or loaders of different length; UnknownName for a layer; NotApplicable where a layer
    has no value.
    """
    import pandas as pd

    chosen = choose("measure", measure, **settings)
    if not isinstance(chosen.config, Representation):
        raise InvalidInput(f"'{measure}' does not compare features of layers")
    size = chosen.config.batch_size
    runs = [Vectoriser(one, [chosen], layers)]
    same = other is one and other_images is None and other_layers in (None, layers)
    if not same:
        runs.append(Vectoriser(other, [chosen], layers if other_layers is None else other_layers))
    if other_images is None:
        batches: Iterator[tuple[Tensor, ...]] = ((b, b) for b in recut(_tensors(images), size))
    else:
        batches = _side_by_side(_Counted(images), _Counted(other_images), size)
    batch = None
    for batch in batches:
        for run, seen in zip(runs, batch, strict=False):
            run.add(seen)
    if batch is None:
        raise NotApplicable(f"there are too few images: {FEWEST} at least are compared")
    left, right = runs[0].vectors()[0], runs[-1].vectors()[0]
    found = cosines(left, right).numpy()
    return pd.DataFrame(found, index=list(left), columns=list(right))


class _Counted:
    """Images of a loader, and how many there were."""

    def __init__(self, images: Iterable[Any] | Tensor) -> None:
        self._tensors, self.count = _tensors(images), 0

    def __iter__(self) -> Iterator[Tensor]:
        for batch in self._tensors:
            self.count += len(batch)
            yield batch


def _side_by_side(one: _Counted, other: _Counted, size: int) -> Iterator[tuple[Tensor, ...]]:
    """Batches of both, of the same images. Raises InvalidInput where one has more of them."""
    left, right = iter(one), iter(other)
    for pair in zip_longest(recut(left, size), recut(right, size)):
        if any(batch is None for batch in pair) or len(pair[0]) != len(pair[1]):
            break
        yield pair
    for rest in (left, right):  # what is left is counted alone
        for _ in rest:
            pass
    if one.count != other.count:
        raise InvalidInput(
            f"one model would see {one.count} images, the other {other.count}: give both the same "
            "images in the same order"
        )


def _tensors(images: Iterable[Any] | Tensor) -> Iterator[Tensor]:
    """The images of what a loader yields, [n, c, h, w]. Raises InvalidInput that shows a batch."""
    first = None
    for batch in [images] if isinstance(images, Tensor) else images:
        tensor = batch[0] if isinstance(batch, tuple | list) and batch else batch
        tensor = getattr(tensor, "images", tensor)
        if not isinstance(tensor, Tensor) or tensor.dim() != 4:
            shape = list(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise InvalidInput(f"a batch of images [n, c, h, w] was expected, not {shape}")
        first = tensor.shape[1:] if first is None else first
        if tensor.shape[1:] != first:
            raise InvalidInput(
                f"images of {list(first)} and of {list(tensor.shape[1:])} cannot be in one batch"
            )
        yield tensor
