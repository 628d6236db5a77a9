"""How much a ViT's outputs on images depend on its channels, heads and hidden units."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vitarium.architectures.symmetries.base import Symmetries
from vitarium.architectures.symmetries.vit import STREAM
from vitarium.core.devices import meta_device
from vitarium.core.registry import Section
from vitarium.evaluation.data import EvalData
from vitarium.operators.compression._vit_slices import sizes_of, sliced, smaller

Structure = Literal["channels", "heads", "hidden"]
Importances = Mapping[str, Tensor]
"""By group of the symmetries, of each unit, float64 [units]: the larger, the more it matters."""

_BANDWIDTHS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Of the Gaussian kernels whose mean DeViT takes."""
_CHUNK = 64
"""Units whose kernel matrices are in memory at a time."""


class Divergences:
    """KL(outputs || outputs without a unit), nats, mean over images (ED-ViT, arXiv 2410.11650).

    A head or hidden unit is left out by zeros in what reads it, a channel of the stream with all
    its weights, so that LayerNorms do not see it, either. `at_once` hidden units of an MLP, which
    stand beside each other, are left out together. A plain ViT of `architecture` is taken; after
    each call it is as before.
    """

    def __init__(
        self, vit: Any, architecture: Section, symmetries: Symmetries, at_once: int = 1
    ) -> None:
        self.vit, self.at_once, self._symmetries = vit, at_once, symmetries
        self._architecture = architecture

    @torch.no_grad()
    def __call__(
        self,
        examples: EvalData,
        structures: set[Structure],
        batch_size: int,
        report: Callable[[int, int], None],
    ) -> Importances:
        """The importances of these structures' units."""
        sums: dict[str, Tensor] = {}
        batches = -(-len(examples) // batch_size)
        for done, batch in enumerate(examples.batches(batch_size)):
            report(done, batches)
            for group, divergences in self._of_batch(batch.images, structures):
                sums[group] = sums.get(group, 0) + divergences
        return {group: total / len(examples) for group, total in sums.items()}

    def _of_batch(self, images: Tensor, structures: set[Structure]) -> Iterator[tuple[str, Tensor]]:
        """By group, sums over images [batch, c, h, w]: float64 [units]."""
        vit = self.vit
        expected = vit(images)
        tokens = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images))))
        for number, block in enumerate(vit.blocks):
            following = vit.blocks[number:]  # what is before a block does not change

            def outputs(inputs: Tensor = tokens, rest: nn.Module = following) -> Tensor:
                logits: Tensor = vit.forward_head(vit.norm(rest(inputs)))
                return logits

            at, attention, reader = f"blocks.{number}", block.attn, block.mlp.fc2.weight
            if "heads" in structures:
                columns = attention.proj.weight.split(attention.head_dim, 1)
                yield f"{at}.attn.heads", _without_each(columns, outputs, expected)
            if "hidden" in structures:
                columns = reader.split(self.at_once, 1)
                each = _without_each(columns, outputs, expected)
                widths = torch.tensor([part.shape[1] for part in columns])
                yield f"{at}.mlp", each.repeat_interleave(widths)
            tokens = block(tokens)
        if "channels" in structures:
            outputs_without = self._without_channel(images)
            channels = range(vit.embed_dim)
            yield STREAM, torch.stack([_divergence(expected, outputs_without(c)) for c in channels])

    def _without_channel(self, images: Tensor) -> Callable[[int], Tensor]:
        """Of a channel the outputs [batch, classes] of the ViT without it."""
        vit, units = self.vit, torch.arange(self.vit.embed_dim)
        config: Any = self._architecture.config
        sizes = sizes_of(config)._replace(embed_dim=vit.embed_dim - 1)
        with meta_device():
            hollow = smaller(self._architecture, sizes)(vit.num_classes).eval()
        shapes = {name: tensor.shape for name, tensor in hollow.state_dict().items()}
        weights = vit.state_dict()

        def outputs(channel: int) -> Tensor:
            remaining = {STREAM: units[units != channel]}
            left = sliced(self._symmetries, weights, remaining, shapes)
            logits: Tensor = functional_call(hollow, left, (images,), strict=True)
            return logits

        return outputs


def _without_each(
    columns: tuple[Tensor, ...], outputs: Callable[[], Tensor], expected: Tensor
) -> Tensor:
    """Divergences [len(columns)] of outputs while each of these views of weights is zero."""
    divergences = []
    for view in columns:
        with _zeroed(view):
            divergences.append(_divergence(expected, outputs()))
    return torch.stack(divergences)


@contextmanager
def _zeroed(weights: Tensor) -> Iterator[None]:
    values = weights.clone()
    weights.zero_()
    try:
        yield
    finally:
        weights.copy_(values)


def _divergence(expected: Tensor, outputs: Tensor) -> Tensor:
    """Sum over images of KL(expected || outputs), of logits [batch, classes]: float64 []"""
    log_p, log_q = (logits.double().log_softmax(1) for logits in (expected, outputs))
    return (log_p.exp() * (log_p - log_q)).sum().cpu()


@torch.no_grad()
def dependences(vit: Any, examples: EvalData, structures: set[Structure]) -> Importances:
    """How far the softmax outputs depend on units, by HSIC over the images (DeViT's ranking).

    Of a hidden unit 0.1 minmax(HSIC(its values of all tokens, outputs)) + 0.9 minmax(sum of its
    absolute values) within its MLP; so of a channel, of the last block's stream. Of a head
    HSIC(its output's mean over channels, outputs) - 0.1 mean HSIC to the other heads of its block.
    All images are taken as one batch.
    """
    layers: dict[str, nn.Module] = {STREAM: vit.norm} if "channels" in structures else {}
    for number, block in enumerate(vit.blocks):
        if "heads" in structures:
            layers[f"blocks.{number}.attn.heads"] = block.attn.proj
        if "hidden" in structures:
            layers[f"blocks.{number}.mlp"] = block.mlp.fc2
    seen: dict[str, Tensor] = {}
    (batch,) = examples.batches(len(examples))
    with ExitStack() as hooks:
        for group, layer in layers.items():
            hooks.enter_context(layer.register_forward_pre_hook(partial(_see, seen, group)))
        probabilities = vit(batch.images).double().softmax(1)
    gram, heads = probabilities @ probabilities.T, vit.blocks[0].attn.num_heads
    return {
        group: _of_heads(values.unflatten(-1, (heads, -1)).mean(-1), gram)
        if group.endswith("heads")
        else _of_units(values, gram)
        for group, values in seen.items()
    }


def _see(seen: dict[str, Tensor], group: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    seen[group] = inputs[0].detach()


def _of_units(values: Tensor, gram: Tensor) -> Tensor:
    """Of values [images, tokens, units] and the outputs' Gram matrix: float64 [units]."""
    vectors = values.double().permute(2, 0, 1)
    dependence = torch.cat([hsic(gaussian_gram(part), gram) for part in vectors.split(_CHUNK)])
    return (0.1 * _minmax(dependence) + 0.9 * _minmax(vectors.abs().sum((1, 2)))).cpu()


def _of_heads(values: Tensor, gram: Tensor) -> Tensor:
    """Of heads' values [images, tokens, heads]: float64 [heads]."""
    grams = gaussian_gram(values.double().permute(2, 0, 1))
    pairs = hsic(grams[:, None], grams[None])
    count = len(grams)
    others = (pairs.sum(1) - pairs.diagonal()) / max(count - 1, 1)
    return (hsic(grams, gram) - 0.1 * others).cpu()


def hsic(first: Tensor, second: Tensor) -> Tensor:
    """The biased Hilbert-Schmidt independence criterion of Gram matrices [..., n, n]: [...].

    trace(K H L H) / (n - 1)^2 with H = I - 1/n (Gretton et al. 2005).
    """
    images = first.shape[-1]
    centered = first - first.mean(-1, keepdim=True)
    centered = centered - centered.mean(-2, keepdim=True)
    return (centered * second).sum((-2, -1)) / (images - 1) ** 2


def gaussian_gram(vectors: Tensor) -> Tensor:
    """Mean of Gaussian kernels of five bandwidths of vectors [..., n, d]: [..., n, n]"""
    squares = torch.cdist(vectors, vectors).square()
    return torch.stack([(-squares / (2 * width**2)).exp() for width in _BANDWIDTHS]).mean(0)


def _minmax(values: Tensor) -> Tensor:
    """Scaled to [0, 1]; zeros where all are equal: [n]"""
    span = values.max() - values.min()
    return (values - values.min()) / span if span > 0 else torch.zeros_like(values)
