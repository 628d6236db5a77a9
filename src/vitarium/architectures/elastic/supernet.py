"""A ViT whose depth, width, heads and MLPs may all be smaller; each step trains some of the sizes.

Sub-networks are drawn as ElasticViT draws them (Tang et al. 2023, arXiv 2303.09730): a random walk
over banks of similar complexity, and beside uniform draws the smallest of a bank. Its convolutions,
teachers, and banks of good architectures are left out.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from timm.layers.drop import DropPath
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.func import functional_call

from vitarium.architectures.base import architecture, without_hidden_units
from vitarium.architectures.elastic._slices import member_weight
from vitarium.architectures.symmetries.base import Symmetries
from vitarium.architectures.symmetries.segments import segmented
from vitarium.architectures.symmetries.vit import STREAM, VitDeclaration
from vitarium.architectures.vit.dinov2 import ratio
from vitarium.architectures.vit.vit import TRAINING_FACTORS, Vit, as_timm
from vitarium.core.devices import meta_device
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import Section, choose


class Member(NamedTuple):
    """Sizes of a sub-network; `hidden` are the hidden units of each MLP."""

    depth: int
    embed_dim: int
    num_heads: int
    hidden: int


class Supernet(Vit):
    """A ViT with smaller ones inside; embed_dim, depth, num_heads and mlp_ratio are the largest.

    The operator `supernet_member` makes a plain `vit` of each. Lists rise, up to the largest.
    """

    depths: tuple[PositiveInt, ...] = Field((6, 8, 10, 12), min_length=1)
    """Numbers of blocks: a smaller model has the first ones."""
    embed_dims: tuple[PositiveInt, ...] = Field((64, 128, 192), min_length=1)
    """Widths of the residual stream: multiples of the channels of a head."""
    mlp_ratios: tuple[PositiveFloat, ...] = Field((2.0, 3.0, 4.0), min_length=1)
    """Hidden widths of the MLPs, as multiples of the stream's width."""
    heads: tuple[PositiveInt, ...] | None = Field(None, min_length=1)
    """Numbers of heads, with any width; None: as many as fill the width. Heads always have
    embed_dim / num_heads channels, so members with others are `uneven_vit`s."""
    num_banks: PositiveInt = 5
    """Ranges of complexity, equally wide in multiply-adds, over which the random walk goes."""

    @property
    def head_dim(self) -> int:
        """Channels of each head."""
        return self.embed_dim // self.num_heads

    @property
    def largest(self) -> Member:
        """The whole model."""
        hidden = int(self.embed_dim * self.mlp_ratio)
        return Member(self.depth, self.embed_dim, self.num_heads, hidden)

    def member(self, depth: int, embed_dim: int, mlp_ratio: float, num_heads: int) -> Member:
        return Member(depth, embed_dim, num_heads, int(embed_dim * mlp_ratio))

    def members(self) -> list[Member]:
        """All of them, by multiply-adds, then by sizes."""
        listed = set()
        for depth, width, share in product(self.depths, self.embed_dims, self.mlp_ratios):
            for heads in self.heads or (width // self.head_dim,):
                listed.add(self.member(depth, width, share, heads))
        return sorted(listed, key=lambda member: (self.multiply_adds(member), member))

    def multiply_adds(self, member: Member) -> int:
        """Of an image, in matrix products: patches and blocks, without biases, norms and head."""
        patches = (self.img_size // self.patch_size) ** 2
        tokens = patches + self.class_token + self.reg_tokens
        attended, width = member.num_heads * self.head_dim, member.embed_dim
        per_token = 4 * width * attended + 2 * width * member.hidden + 2 * tokens * attended
        embedding = patches * width * self.in_chans * self.patch_size**2
        return embedding + member.depth * tokens * per_token

    def mismatches(self) -> Iterator[str]:
        """See the base."""
        yield from super().mismatches()
        ends = {"depths": "depth", "embed_dims": "embed_dim", "mlp_ratios": "mlp_ratio"}
        for name, largest in {**ends, "heads": "num_heads"}.items():
            sizes, last = getattr(self, name), getattr(self, largest)
            if sizes is not None and (list(sizes) != sorted(set(sizes)) or sizes[-1] != last):
                yield f"{name} {list(sizes)} have to rise, and end with {largest} {last:g}"
        for width in self.embed_dims:
            if self.head_dim and width % self.head_dim:
                yield f"embed_dims: {width} is no multiple of a head's {self.head_dim} channels"
            yield from without_hidden_units(width, mlp_ratios=self.mlp_ratios[0])

    def banks(self) -> list[list[Member]]:
        """Members by ranges of multiply-adds, rising; ranges without any are left out."""
        members = self.members()
        costs = [self.multiply_adds(member) for member in members]
        span = max(costs[-1] - costs[0], 1)
        filled: dict[int, list[Member]] = {}
        for member, cost in zip(members, costs, strict=True):
            bank = min((cost - costs[0]) * self.num_banks // span, self.num_banks - 1)
            filled.setdefault(bank, []).append(member)
        return [filled[bank] for bank in sorted(filled)]


def common_part(members: list[Member]) -> Member:
    """The largest sub-network that is inside of all of these."""
    return Member(*(min(sizes) for sizes in zip(*members, strict=True)))


def member_architecture(config: Supernet, member: Member) -> Section:
    """A `vit` of these sizes, or where heads do not fill the width an `uneven_vit`."""
    factors = config.factors(defaults=False)
    shared: dict[str, Any] = {name: factors[name] for name in Vit.model_fields if name in factors}
    shared |= {"depth": member.depth, "embed_dim": member.embed_dim, "num_heads": member.num_heads}
    shared["mlp_ratio"] = ratio(member.hidden, member.embed_dim)
    if member.num_heads * config.head_dim == member.embed_dim:
        return choose("architecture", "vit", **shared)
    return choose("architecture", "uneven_vit", **shared, head_dim=config.head_dim)


@lru_cache(maxsize=128)
def _hollow(config: Supernet, member: Member, outputs: int) -> nn.Module:
    """A member without weights, to compute with those of the whole."""
    with meta_device():
        model: nn.Module = member_architecture(config, member)(outputs)
    return model


class SupernetTransformer(VisionTransformer):
    """Timm's; in training mode it computes the sub-network that was selected."""

    def __init__(self, config: Supernet, num_classes: int) -> None:
        super().__init__(**config.arguments(), num_classes=num_classes)
        self.config = config
        self._banks = config.banks()
        self._epoch, self._bank = 0, 0
        self._drawn: list[Member] = []
        self.selected: Member | None = None
        """Sub-network that is computed in training mode; None: the whole."""

    def sample(self, epoch: int, count: int) -> None:
        """Go to a neighboring bank, and draw a sub-network of it for each part of a batch; of
        several parts the last has the common part of the bank.

        In each epoch the walk begins anew, at a bank that is drawn: so there is no state to save.
        Raises InvalidInput for weights that no sub-network has.
        """
        last = len(self._banks) - 1
        if epoch != self._epoch:
            self._check_weights()
            self._epoch, self._bank = epoch, _integer(last + 1)
        else:
            self._bank = min(max(self._bank + _integer(3) - 1, 0), last)
        bank = self._banks[self._bank]
        self._drawn = [bank[_integer(len(bank))] for _ in range(count)]
        if count > 1:
            self._drawn[-1] = common_part(bank)

    def _check_weights(self) -> None:
        """Raises InvalidInput for weights that no sub-network has."""
        names = _hollow(self.config, self.config.largest, self.num_classes).state_dict().keys()
        if foreign := sorted(self.state_dict().keys() ^ names):
            raise InvalidInput(
                f"supernet: {foreign[0]} is in no sub-network, or missing here: they are trained "
                "with a linear head, and without an adaptation that adds weights"
            )

    def select(self, part: int) -> None:
        """Compute that part's sub-network."""
        self.selected = self._drawn[part]

    def forward(self, x: Tensor, *more: Any, **named: Any) -> Any:
        """images [batch, in_chans, img_size, img_size] -> outputs [batch, num_classes]"""
        if self.selected is None or not self.training:
            return super().forward(x, *more, **named)
        model: Any = _hollow(self.config, self.selected, self.num_classes).train()
        self._pass_on_drop_path(model)
        parameters = dict(self.named_parameters())
        weights = {
            name: member_weight(name, parameters[name], weight.shape)
            for name, weight in model.named_parameters()
        }
        return functional_call(model, weights, (x, *more), named, strict=True)

    def forward_features(self, x: Tensor, *more: Any, **named: Any) -> Tensor:
        """Raises InvalidInput while a sub-network is selected: its features are of other widths."""
        if self.selected is not None and self.training:
            raise InvalidInput(
                "supernet: its sub-networks have features of several widths; train it with an "
                "objective that takes the model's outputs"
            )
        return super().forward_features(x, *more, **named)

    def _pass_on_drop_path(self, model: Any) -> None:
        """A block has its own rate of stochastic depth, whatever the depth."""
        for own, block in zip(self.blocks, model.blocks, strict=False):
            for name in ("drop_path1", "drop_path2"):
                if isinstance(drop := getattr(block, name), DropPath):
                    drop.drop_prob = getattr(own, name).drop_prob


class _Declaration(VitDeclaration):
    model_class = SupernetTransformer
    mixes_stream = False  # norms are over the first channels, as many as a sub-network has


def nested_symmetries(model: Any) -> Symmetries:
    """Of a built model: channels, heads and hidden units stay in the smallest sub-network that has
    them, and blocks where they are.

    Raises IncompatibleWeights.
    """
    symmetries = _Declaration.symmetries(model)
    members = model.config.members()
    ends = {
        STREAM: sorted({member.embed_dim for member in members}),
        "heads": sorted({member.num_heads for member in members}),
        "mlp": sorted({member.hidden for member in members}),
    }
    named = {name: name.rpartition(".")[2] for name in symmetries.groups}
    return segmented(symmetries, {n: ends[kind] for n, kind in named.items() if kind in ends})


def _integer(below: int) -> int:
    """Uniform, from 0, from torch's global generator."""
    return int(torch.randint(below, ()))


@architecture(
    "supernet",
    paper="Tang et al. 2023, arXiv 2303.09730",
    timm=as_timm,
    symmetries=nested_symmetries,
    training_factors=(*TRAINING_FACTORS, "num_banks"),
    tiny={
        "img_size": 16,
        "patch_size": 8,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 3,
        "depths": (1, 2),
        "embed_dims": (8, 16, 24),
    },
)
def supernet(config: Supernet, num_outputs: int) -> nn.Module:
    """A ViT with smaller ones inside, over depth, width, heads and MLPs: one training, many models.

    Each step trains a sub-network that is drawn; with `accumulation` each part of a batch another
    one, and the last part one that is inside of all that could be drawn. In eval mode it is the
    plain ViT of the largest sizes.
    """
    return SupernetTransformer(config, num_outputs)
