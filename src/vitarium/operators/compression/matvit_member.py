"""Models inside a MatViT, each as a plain ViT."""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from vitarium.architectures.elastic._slices import member_weight
from vitarium.architectures.elastic.matvit import Granularity, Matvit
from vitarium.architectures.vit.dinov2 import ratio
from vitarium.architectures.vit.vit import Vit
from vitarium.core.config import Config
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import Section, choose
from vitarium.operators.base import Ingredients, NamedTensors, checked, operator
from vitarium.zoo import Model

_OF_MLP = re.compile(r"blocks\.(\d+)\.mlp\.fc([12])\.(weight|bias)")


class MatvitMember(Config):
    granularity: Granularity | Annotated[tuple[Granularity, ...], Field(min_length=1)]
    """Share of the hidden units of each MLP: one of the model's granularities, or a list with one
    for each block (mix and match)."""

    def of_block(self, number: int) -> float:
        """The share of a block, from 0."""
        shares = self.granularity
        return shares[number] if isinstance(shares, tuple) else shares


def member_architecture(config: MatvitMember, architecture: Section | None) -> Section:
    """A `vit`, or where blocks have different widths an `uneven_vit`.

    Raises IncompatibleWeights where the model has no such member.
    """
    matvit = _matvit(architecture)
    assert architecture
    if isinstance(shares := config.granularity, tuple) and len(shares) != matvit.depth:
        fault = f"granularity has {len(shares)} numbers, and the model {matvit.depth} blocks"
        raise IncompatibleWeights(fault)
    by_share = dict(zip(matvit.granularities, matvit.widths, strict=True))
    wanted = [config.of_block(number) for number in range(matvit.depth)]
    if missing := [share for share in wanted if share not in by_share]:
        known = ", ".join(f"{share:g}" for share in by_share)
        raise IncompatibleWeights(f"granularity {missing[0]:g} was not trained; choose of {known}")
    hidden = [by_share[share] for share in wanted]
    factors = architecture.factors(defaults=False)
    shared: dict[str, Any] = {name: factors[name] for name in Vit.model_fields if name in factors}
    if len({*hidden}) > 1:
        return choose("architecture", "uneven_vit", **shared, hidden=hidden)
    shared["mlp_ratio"] = ratio(hidden[0], matvit.embed_dim)
    return choose("architecture", "vit", **shared)


def _matvit(architecture: Section | None) -> Matvit:
    if architecture is None or not isinstance(matvit := architecture.config, Matvit):
        kind = architecture.name if architecture else "an unknown architecture"
        raise IncompatibleWeights(f"matvit_member needs a matvit, not {kind}")
    return matvit


def members(model: Model, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A granularity of each model that was trained, the same in all blocks."""
    shares = _matvit(model.spec.origin.architecture).granularities
    return [{"granularity": share} for share in shares]


@operator(
    "matvit_member",
    title="MatViT member",
    models=(1, 1),
    architecture=member_architecture,
    compression="post_training",
    members=members,
    paper="Devvrit et al. 2023, arXiv 2310.07707",
    tiny={"granularity": 0.25},
    tiny_architecture={"name": "matvit", "depth": 2},
)
def matvit_member(config: MatvitMember, ingredients: Ingredients) -> NamedTensors:
    """Cut a smaller model out of a `matvit`: the first hidden units of each MLP.

    Yields (name, tensor [*shape]), bit for bit as they are in the model.
    """
    (model,) = ingredients
    for name in ingredients.in_turn():
        weight = checked(model, name)
        if match := _OF_MLP.fullmatch(name):
            yield name, _narrowed(name, weight, match, config.of_block(int(match[1])))
        else:
            yield name, weight


def _narrowed(name: str, weight: Any, match: re.Match[str], share: float) -> Any:
    """The hidden units of an MLP's weight or bias that are in the member."""
    shape = list(weight.shape)
    axis = 0 if match[2] == "1" else 1
    if axis < weight.ndim:  # the bias of fc2 is that of the whole stream
        shape[axis] = round(share * shape[axis])
    return member_weight(name, weight, shape).clone()
