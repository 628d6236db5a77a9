"""A trained model of timm with its batch norms folded into the layers before them."""

from vitarium.architectures.vit.timm import TimmModel, fuse_batch_norms
from vitarium.core.config import NoConfig
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import Section, choose
from vitarium.operators.base import Ingredients, NamedTensors, checked, operator


def fused_section(config: NoConfig, architecture: Section | None) -> Section:
    """The fused form of a model of timm. Raises IncompatibleWeights for anything else."""
    name = architecture.name if architecture else "an unknown architecture"
    if architecture is None or not isinstance(model := architecture.config, TimmModel):
        reason = "; of a repavit, use repavit_fusion" if name == "repavit" else ""
        raise IncompatibleWeights(
            f"batch_norm_folding needs a model of timm ({{name: timm}}), not {name}{reason}"
        )
    if model.fused:
        raise IncompatibleWeights("it is fused already; name the model that it was made of")
    if not model.fusible:
        raise IncompatibleWeights(
            f"timm has no batch norms to fuse in {model.model}; choose a model of which it has a "
            "form for inference, such as a LeViT, TinyViT, RepViT or FastViT"
        )
    factors = {**architecture.factors(defaults=False), "fused": True}
    return choose("architecture", factors.pop("name"), **factors)


@operator(
    "batch_norm_folding",
    title="batch norm folding",
    paper="Jacob et al. 2018, arXiv 1712.05877",
    models=(1, 1),
    architecture=fused_section,
    compression="post_training",
    tiny_architecture={
        "name": "timm",
        "model": "levit_256d",
        "img_size": 32,
        "in_chans": 1,
        "embed_dim": [16, 16, 16],
        "key_dim": 8,
        "depth": [1, 1, 1],
        "num_heads": [1, 1, 1],
    },
)
def batch_norm_folding(config: NoConfig, ingredients: Ingredients) -> NamedTensors:
    """Fold batch norms of a LeViT, RepViT, FastViT and others into the layers before them.

    Yields (name, tensor [*shape]) of a model of timm that is `fused`; products are of float64. The
    classifier's own batch norm stays. Raises IncompatibleWeights for a model in which timm fuses
    nothing, and for one that is fused.
    """
    (model,) = ingredients
    for name in ingredients.in_turn():
        checked(model, name)
    fused = ingredients.model().double()
    fuse_batch_norms(fused)
    usual = next(iter(model.shapes))
    for name, parameter in fused.named_parameters():
        dtype = model.dtype(name if name in model.shapes else usual)
        yield name, parameter.detach().to("cpu", dtype)
