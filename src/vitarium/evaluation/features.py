"""Features of layers, and their vectors for measures of representations, in one forward pass.

They are turned into vectors as soon as the layer has run: memory does not grow with channels.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vitarium.architectures.features import (
    blocks,
    is_linearized,
    leaves_early,
    prefix_tokens,
    prompt_tokens,
)
from vitarium.core.errors import InvalidInput, NotApplicable, UnknownName
from vitarium.core.registry import Section
from vitarium.evaluation.inputs import Representation

Vectors = dict[str, Tensor]
"""By layer: float32 on the CPU, of all batches one after the other."""

MIN_IMAGES = 4
"""Images in a batch: unbiased estimators divide by n - 3."""
_SAME = 1e-6


class Tap(NamedTuple):
    """A layer of a model whose output is recorded."""

    name: str
    module: nn.Module
    model: nn.Module

    def features(self, output: Any, tokens: str) -> Tensor:
        """A layer's output -> [n, d], by one of the policies of `Representation.tokens`.

        Outputs are [n, c], tokens [n, t, c], or maps [n, c, h, w] (or [n, h, w, c], where the
        model's `output_fmt` says so); of a tuple, the first. Raises NotApplicable.
        """
        output = first_tensor(output, self.name)
        if output.is_floating_point() and output.dtype.itemsize < 4:
            output = output.float()  # before it is averaged
        if tokens == "class":
            has_class = getattr(self.model, "cls_token", None) is not None
            if output.dim() != 3 or not has_class or not _prefix(self.model, output):
                raise NotApplicable(f"{self.name} gives no class token; choose other tokens")
            return output[:, 0]
        if output.dim() == 2:
            return output
        patches = patch_features(self.model, output, self.name)
        return patches.mean(1) if tokens == "mean" else patches.flatten(1)


def blocks_of(model: nn.Module, name: str = "", hint: str = "") -> dict[str, nn.Module]:
    """Blocks by name, each of which sees all images.

    Raises NotApplicable, with the model's name and a hint.
    """
    check_full_depth(model, name)
    try:
        return dict(blocks(model))
    except InvalidInput as error:
        raise NotApplicable(f"{name}: {error}{hint}" if name else f"{error}{hint}") from None


def check_full_depth(model: nn.Module, name: str = "") -> None:
    """Raises NotApplicable where some blocks compute a part of the images alone."""
    if leaves_early(model):
        raise NotApplicable(
            f"{name or type(model).__name__}: images leave it at its exits, so that its later "
            "blocks see a part of them; look into its twin that none leaves early, which the "
            "operator exit_threshold makes of it with threshold 1"
        )


def taps(
    model: nn.Module, config: Representation, layers: Sequence[str] | None = None
) -> list[Tap]:
    """Its blocks, or only the last if so set; or layers by dotted names. Raises NotApplicable where
    a model has no blocks, UnknownName for a layer that is not there."""
    if is_linearized(model):
        raise NotApplicable(f"{type(model).__name__} is linear in its tangent: no layer has tokens")
    check_full_depth(model)
    if layers is None:
        block_modules = blocks_of(model, hint="; name the layers to compare")
        names = list(block_modules)[-1:] if config.layers == "last" else list(block_modules)
        return [Tap(name, block_modules[name], model) for name in names]
    modules = dict(model.named_modules())
    for name in layers:
        if name not in modules:
            raise UnknownName("layer", name, modules)
    return [Tap(name, modules[name], model) for name in layers]


@contextmanager
def tapped(layers: Sequence[Tap], see: Callable[[Tap, Any], None]) -> Iterator[None]:
    """Inside, `see` is called with each of the taps and its layer's output, when the layer ran."""
    with ExitStack() as stack:
        for tap in layers:
            hook = tap.module.register_forward_hook(lambda _, __, out, tap=tap: see(tap, out))
            stack.callback(hook.remove)
        yield


class Vectorizer:
    """Runs a model over batches, and concatenates measures' vectors of its layers.

        vectorizer = Vectorizer(model, [choose("measure", "cka"), choose("measure", "rsa")])
        for batch in rebatch(images, size):
            vectorizer.add(batch)
        cka, rsa = vectorizer.vectors()

    `measures` are sections whose configuration is a Representation; the first one's says which
    blocks, where no `layers` are named.
    """

    def __init__(
        self, model: nn.Module, measures: Sequence[Section], layers: Sequence[str] | None = None
    ) -> None:
        self.model, self.measures = model, measures
        self.taps = taps(model, measures[0].config, layers)
        self._parts = [{tap.name: list[Tensor]() for tap in self.taps} for _ in measures]

    def add(self, images: Tensor) -> None:
        """One forward pass of [n, c, h, w]; n has to be 4 at least. Raises NotApplicable."""
        runs = {tap.name: 0 for tap in self.taps}
        device = next((parameter.device for parameter in self.model.parameters()), "cpu")

        def see(tap: Tap, output: Any) -> None:
            runs[tap.name] += 1
            features: dict[str, Tensor] = {}
            for section, parts in zip(self.measures, self._parts, strict=True):
                tokens = section.config.tokens
                if tokens not in features:
                    batch = features[tokens] = tap.features(output, tokens).float()
                    # Neighbors and ranks hide what is not finite; the sum does not.
                    if not torch.isfinite(batch.sum()):
                        raise NotApplicable(f"{tap.name} has features that are not finite")
                    limit = _SAME * batch[0].abs().amax()
                    # Two images tell as a rule, without a pass over all of the features.
                    if all((part - batch[0]).abs().amax() <= limit for part in (batch[1], batch)):
                        raise NotApplicable(f"{tap.name} gives all images the same features")
                parts[tap.name].append(section(features[tokens]))

        with tapped(self.taps, see), torch.inference_mode(), evaluating(self.model):
            self.model(self._as_weights(images.to(device, non_blocking=True)))
        for name, count in runs.items():
            if count != 1:
                raise NotApplicable(f"{name} runs {count} times in a forward pass, not once")

    def _as_weights(self, images: Tensor) -> Tensor:
        """Images [n, c, h, w] of real numbers in the dtype of the model's first weights."""
        floats = (p.dtype for p in self.model.parameters() if p.is_floating_point())
        dtype = next((dtype for dtype in floats if dtype.itemsize > 1), images.dtype)
        return images.to(dtype) if images.is_floating_point() else images

    def vectors(self) -> list[Vectors]:
        """Of each measure. Raises NotApplicable where one is not finite, or of too few images."""
        by_measure = []
        for section, parts in zip(self.measures, self._parts, strict=True):
            joined = {name: torch.cat(pieces).cpu() for name, pieces in parts.items() if pieces}
            for name, vector in joined.items():
                if not len(vector):
                    raise NotApplicable(f"{section.name}: there are too few images")
                if not torch.isfinite(vector).all():
                    raise NotApplicable(f"{name}: {section.name} of it is not finite")
            by_measure.append(joined)
        return by_measure


def cosines(first: Vectors, second: Vectors) -> Tensor:
    """Cosine of each layer's vector with each of the other model's, float64 [layers, layers]."""
    left, right = (torch.stack(list(side.values())) for side in (first, second))
    norms = [torch.linalg.vector_norm(side, dim=1, dtype=torch.float64) for side in (left, right)]
    return (left @ right.T).double() / norms[0][:, None] / norms[1]


def rebatch(batches: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Batches of exactly `size` images [size, c, h, w]; the last has four at least."""
    waiting: list[Tensor] = []
    for batch in batches:
        waiting.append(batch)
        while (count := sum(map(len, waiting))) >= size:
            joined = torch.cat(waiting) if len(waiting) > 1 else waiting[0]
            waiting = [joined[size:]] if count > size else []
            yield joined[:size]
    if sum(map(len, waiting)) >= MIN_IMAGES:
        yield torch.cat(waiting)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, a model is in eval mode; outside, each of its modules is in the mode it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def first_tensor(output: Any, layer: str) -> Tensor:
    """The output [*shape], or the first of several. Raises NotApplicable if it is no tensor."""
    while isinstance(output, tuple | list | Mapping) and output:
        output = next(iter(output.values() if isinstance(output, Mapping) else output))
    if not isinstance(output, Tensor):
        raise NotApplicable(f"{layer} gives a {type(output).__name__}, not a tensor")
    return output


def patch_features(model: nn.Module, output: Tensor, layer: str) -> Tensor:
    """Tokens or maps -> [n, patches, c], without class token and registers."""
    if output.dim() == 3:
        return output[:, _prefix(model, output) :]
    if output.dim() != 4:
        raise NotApplicable(f"{layer} gives {list(output.shape)}: neither tokens nor maps")
    if str(getattr(model, "output_fmt", "NCHW")) == "NCHW":
        output = output.permute(0, 2, 3, 1)
    return output.flatten(1, 2)


def _prefix(model: nn.Module, tokens: Tensor) -> int:
    """Tokens before the patches' at this place: some models put them in after some blocks."""
    patches = getattr(getattr(model, "patch_embed", None), "num_patches", None)
    if tokens.shape[1] == patches:
        return 0
    prefix = prefix_tokens(model)
    prompted = prefix + prompt_tokens(model)
    return prompted if patches is not None and tokens.shape[1] == prompted + patches else prefix
