"""Structured pruning: heads and hidden units are cut out of every block."""

from pydantic import Field

from vitarium.architectures.elastic._uneven_attention import UnevenDeclaration
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import Section
from vitarium.operators.base import Ingredients, NamedTensors, checked, operator
from vitarium.operators.compression.pruning._saliency import Saliency, best, unit_scores
from vitarium.operators.compression.pruning._structures import Sizes, prunable, sliced


class StructuredPruning(Saliency):
    head_density: float = Field(0.5, gt=0, le=1)
    """Share of each block's attention heads that stay, rounded; at least one does."""
    mlp_density: float = Field(0.5, gt=0, le=1)
    """Share of the hidden units of each MLP that stay, rounded; at least one does."""

    def sizes(self, original: Sizes) -> Sizes:
        """Of what is left of a model."""
        heads = tuple(_share(self.head_density, size) for size in original.heads)
        return original._replace(
            heads=heads, hidden=tuple(_share(self.mlp_density, size) for size in original.hidden)
        )


def _share(density: float, size: int) -> int:
    return max(round(density * size), 1)


def pruned_architecture(config: StructuredPruning, architecture: Section | None) -> Section:
    """A `vit` or an `uneven_vit`. Raises IncompatibleWeights for what is no plain ViT, and where
    nothing would be cut out."""
    section = prunable(architecture, "structured_pruning")
    original = Sizes.of_section(section)
    if (sizes := config.sizes(original)) == original:
        raise IncompatibleWeights(
            f"its {original.heads[0]} heads and {original.hidden[0]} hidden units would all stay; "
            "give a lower head_density or mlp_density"
        )
    return sizes.section(section)


@operator(
    "structured_pruning",
    title="Structured pruning",
    paper="Molchanov et al. 2019, arXiv 1906.10771; Sanh et al. 2020, arXiv 2005.07683",
    models=(1, 1),
    split="train",
    architecture=pruned_architecture,
    compression="post_training",
    tiny={"num_images": 32, "batch_size": 16},
)
def structured_pruning(config: StructuredPruning, ingredients: Ingredients) -> NamedTensors:
    """Cut the least important attention heads and hidden units out of every block of a ViT.

    Yields (name, tensor [*shape]), rows and columns of the model's own, bit for bit: what stays
    computes what it did with zeros in place of the rest. Heads keep their channels. Raises
    IncompatibleWeights for what is no plain ViT, and NotApplicable where gradients are needed and
    the model's outputs are not the classes of its data.
    """
    (model,) = ingredients
    weights = {name: checked(model, name) for name in ingredients.shapes}
    symmetries = UnevenDeclaration.symmetries(model.skeleton)
    original = Sizes.of(model.skeleton)
    sizes = config.sizes(original)
    before, after = original.groups(), sizes.groups()
    groups = [group for group, size in after.items() if size < before[group]]
    scores = unit_scores(config, ingredients.subject(0), symmetries, groups)
    selected = {group: best(scores[group], after[group]) for group in groups}
    heads = {g.split(".")[1]: n.tolist() for g, n in selected.items() if g.endswith(".heads")}
    ingredients.log.lines.append(f"heads that stay, by block: {heads or 'all'}")
    yield from sliced(symmetries, weights, selected, sizes)
