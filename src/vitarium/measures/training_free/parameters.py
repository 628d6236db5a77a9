"""Number of a model's parameters."""

from vitarium.architectures.base import packed_counts
from vitarium.architectures.heads import is_head
from vitarium.measures.base import NoConfig, Values, Weights, measure


@measure("parameters", unit="parameters", quick=False)
def parameters(config: NoConfig, weights: Weights) -> Values:
    """Number of parameters; buffers, such as statistics of batch norms, do not count.

    A weight that is stored as integers counts like one in floating point. Parts: "" is the whole
    model, "backbone" all but its head. Raises NotApplicable where it is not known what the model is
    built of.
    """
    model = weights.skeleton
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    sizes |= packed_counts(model)
    head = sum(size for name, size in sizes.items() if is_head(model, name))
    total = sum(sizes.values())
    return {"": float(total), "backbone": float(total - head)}
