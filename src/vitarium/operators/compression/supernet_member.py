"""Models inside a supernet, each as a plain ViT."""

from collections.abc import Mapping
from typing import Any

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from vitarium.architectures.elastic._slices import member_weight
from vitarium.architectures.elastic.supernet import (
    Member,
    Supernet,
    SupernetTransformer,
    member_architecture,
)
from vitarium.blueprint.overrides import combinations
from vitarium.core.config import Config
from vitarium.core.devices import meta_device
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import Section
from vitarium.operators.base import Ingredients, NamedTensors, checked, operator
from vitarium.zoo import Model


class SupernetMember(Config):
    """Sizes that are trained; those that are not given are the largest."""

    member: NonNegativeInt | None = None
    """Number of the member, from 0, in the order of multiply-adds, in place of sizes."""
    depth: PositiveInt | None = None
    """Number of blocks."""
    embed_dim: PositiveInt | None = None
    """Width of the residual stream."""
    mlp_ratio: PositiveFloat | None = None
    """Hidden width of each MLP, as a multiple of embed_dim."""
    num_heads: PositiveInt | None = None
    """Attention heads per block, where the supernet has several numbers with a width."""

    @model_validator(mode="after")
    def _either(self) -> "SupernetMember":
        sizes = (self.depth, self.embed_dim, self.mlp_ratio, self.num_heads)
        if self.member is not None and any(size is not None for size in sizes):
            raise ValueError("give either the number of a member, or sizes")
        return self

    def of(self, supernet: Supernet) -> Member:
        """Raises IncompatibleWeights where the supernet has no such member."""
        members = supernet.members()
        if self.member is not None:
            if self.member >= len(members):
                fault = f"there is no member {self.member}: they are 0 to {len(members) - 1}"
                raise IncompatibleWeights(fault)
            return members[self.member]
        largest = supernet.largest
        width = self.embed_dim or largest.embed_dim
        filling = min(width // supernet.head_dim, largest.num_heads)
        heads = self.num_heads or (filling if supernet.heads is None else largest.num_heads)
        share = self.mlp_ratio or supernet.mlp_ratio
        member = supernet.member(self.depth or largest.depth, width, share, heads)
        trained: dict[str, tuple[float, ...]] = {
            "depth": supernet.depths,
            "embed_dim": supernet.embed_dims,
            "mlp_ratio": supernet.mlp_ratios,
            "num_heads": supernet.heads or (filling,),
        }
        chosen = {"depth": member.depth, "embed_dim": width, "mlp_ratio": share, "num_heads": heads}
        for name, size in chosen.items():
            if size not in trained[name]:
                known = ", ".join(f"{each:g}" for each in trained[name])
                raise IncompatibleWeights(f"{name} {size:g} was not trained; choose of {known}")
        return member


def architecture_of(config: SupernetMember, architecture: Section | None) -> Section:
    """The member's. Raises IncompatibleWeights where there is none."""
    supernet = _supernet(architecture)
    return member_architecture(supernet, config.of(supernet))


def _supernet(architecture: Section | None) -> Supernet:
    if architecture is None or not isinstance(supernet := architecture.config, Supernet):
        kind = architecture.name if architecture else "an unknown architecture"
        raise IncompatibleWeights(f"supernet_member needs a supernet, not {kind}")
    return supernet


def members(model: Model, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sizes of every model that may be trained, by multiply-adds."""
    supernet = _supernet(model.spec.origin.architecture)
    grid: dict[str, list[Any]] = {
        "depth": [*supernet.depths],
        "embed_dim": [*supernet.embed_dims],
        "mlp_ratio": [*supernet.mlp_ratios],
    }
    if supernet.heads:
        grid["num_heads"] = [*supernet.heads]
    sizes: dict[Member, dict[str, Any]] = {}
    for point in combinations(grid):
        sizes.setdefault(SupernetMember.read(point).of(supernet), point)
    return [sizes[member] for member in supernet.members()]


@operator(
    "supernet_member",
    title="Supernet member",
    models=(1, 1),
    architecture=architecture_of,
    compression="post_training",
    members=members,
    paper="Tang et al. 2023, arXiv 2303.09730",
    tiny={"embed_dim": 8},
    tiny_architecture={"name": "supernet", "depths": (1,), "embed_dims": (8, 16)},
)
def supernet_member(config: SupernetMember, ingredients: Ingredients) -> NamedTensors:
    """Cut a smaller model out of a `supernet`: its first blocks, channels, heads and hidden units.

    Yields (name, tensor [*shape]), bit for bit as they are in the model. Raises IncompatibleWeights
    for a head that is not linear.
    """
    (model,) = ingredients
    skeleton = model.skeleton
    assert isinstance(skeleton, SupernetTransformer)  # `architecture_of` has seen to it
    section = member_architecture(skeleton.config, config.of(skeleton.config))
    with meta_device():
        shapes = {name: t.shape for name, t in section(skeleton.num_classes).state_dict().items()}
    if missing := sorted(shapes.keys() - ingredients.shapes.keys()):
        raise IncompatibleWeights(f"{model.name} has no {missing[0]}: its head has to be linear")
    for done, (name, shape) in enumerate(shapes.items()):
        ingredients.report(done, len(shapes))
        yield name, member_weight(name, checked(model, name), shape).clone()
