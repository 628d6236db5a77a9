"""Compare the layers of any two models, of a zoo or not."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from vitarium.core.errors import InvalidInput, NotApplicable
from vitarium.core.registry import choose
from vitarium.evaluation.features import MIN_IMAGES, Vectorizer, cosines, rebatch
from vitarium.evaluation.inputs import Representation

if TYPE_CHECKING:
    import pandas as pd


def compare(
    model: nn.Module,
    other_model: nn.Module,
    images: Iterable[Any] | Tensor,
    other_images: Iterable[Any] | Tensor | None = None,
    *,
    measure: str = "cka",
    layers: Sequence[str] | None = None,
    other_layers: Sequence[str] | None = None,
    **settings: Any,
) -> "pd.DataFrame":
    """Similarity of every layer of a model to every layer of another, [layers, other layers].

        compare(model, tuned, loader)                       # CKA of all blocks
        compare(model, tuned, loader, measure="rsa", layers=["blocks.3.attn", "norm"])

    Each model runs once, in eval mode and in its own precision, and is left as it was: images of
    real numbers become of its weights' dtype, and features float32. All images are used, rebatched
    to `batch_size`; a last batch of fewer than four is left out.

    Args:
        images: a tensor [n, c, h, w], or what yields such tensors, or tuples that begin with one.
            Read once, for both models: an order that is drawn anew does no harm.
        other_images: what the other model sees instead: the same images in the same order.
        layers, other_layers: dotted names of modules; None: the blocks, and as `layers`.
        settings: of the measure, e.g. `kernel="rbf"`, `tokens="class"`, `batch_size=64`.

    Raises InvalidInput for wrong settings, a measure that is not of features, batches that are no
    images, loaders of different length; UnknownName; NotApplicable for a layer without a value.
    """
    import pandas as pd

    chosen = choose("measure", measure, **settings)
    if not isinstance(chosen.config, Representation):
        raise InvalidInput(f"'{measure}' does not compare features of layers")
    size = chosen.config.batch_size
    runs = [Vectorizer(model, [chosen], layers)]
    same = other_model is model and other_images is None and other_layers in (None, layers)
    if not same:
        layers = layers if other_layers is None else other_layers
        runs.append(Vectorizer(other_model, [chosen], layers))
    counts, loaders = [0, 0], list[Iterator[Tensor]]()

    def counted(which: int, loader: Iterable[Any] | Tensor) -> Iterator[Tensor]:
        for tensor in _tensors(loader):
            counts[which] += len(tensor)
            yield tensor

    if other_images is None:
        batches: Iterable[tuple[Any, ...]] = ((b, b) for b in rebatch(_tensors(images), size))
    else:
        loaders = [counted(0, images), counted(1, other_images)]
        batches = zip_longest(*(rebatch(loader, size) for loader in loaders))
    batch = None
    for batch in batches:
        if any(inputs is None for inputs in batch) or len(batch[0]) != len(batch[1]):
            break
        for run, inputs in zip(runs, batch, strict=False):
            run.add(inputs)
    for loader in loaders:  # what is left is counted alone
        for _ in loader:
            pass
    if counts[0] != counts[1]:
        raise InvalidInput(
            f"one model would see {counts[0]} images, the other {counts[1]}: give both the same "
            "images in the same order"
        )
    if batch is None:
        raise NotApplicable(f"there are too few images: {MIN_IMAGES} at least are compared")
    left, right = runs[0].vectors()[0], runs[-1].vectors()[0]
    return pd.DataFrame(cosines(left, right).numpy(), index=list(left), columns=list(right))


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
            sizes = f"{list(first)} and {list(tensor.shape[1:])}"
            raise InvalidInput(f"images of {sizes} in one batch, which has to have one size")
        yield tensor
