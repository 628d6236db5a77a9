"""Number of a model's parameters."""

from vitarium.architectures.heads import is_head
from vitarium.architectures.quantized._layers import PackedWeight
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
    packed = (entry for entry in model.named_modules() if isinstance(entry[1], PackedWeight))
    sizes |= {name: weight.shape.numel() for name, weight in packed}
    head = sum(size for name, size in sizes.items() if is_head(model, name))
    total = sum(sizes.values())
    return {"": float(total), "backbone": float(total - head)}
