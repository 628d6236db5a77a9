"""Whether foreign weights fit the architecture that they are said to have, and can be stored."""

from collections.abc import Iterable, Mapping
from functools import lru_cache

import torch
from torch import Tensor, nn

from vitarium.core.devices import meta_device
from vitarium.core.errors import IncompatibleWeights, InvalidInput
from vitarium.core.parameters import parameter
from vitarium.core.progress import SILENT, Progress
from vitarium.core.registry import Section
from vitarium.formats.base import ForeignEpoch, ForeignModel
from vitarium.zoo._format.packing import unstorable


def check_weights(
    models: Iterable[ForeignModel], progress: Progress = SILENT, *, read: bool = False
) -> None:
    """Compare shapes of weights with the architecture of each model, which reads little of a file.

    Raises IncompatibleWeights, UntrustedFile, CorruptFile, NotReadable, and InvalidInput.

    Args:
        progress: counts models.
        read: read all weights of which shapes are not to be had otherwise, too.
    """
    pairs = [
        (model, [epoch for epoch in model.epochs if epoch.load and (epoch.shapes or read)])
        for model in models
    ]
    pairs = [(model, epochs) for model, epochs in pairs if epochs]
    for done, (model, epochs) in enumerate(pairs, 1):
        expected = expected_shapes(model)
        for epoch in epochs:
            if epoch.shapes:
                _check_fit(model, epoch, epoch.shapes(), expected)
            else:
                read_epoch(model, epoch, expected)
        progress.step("checking weights", done, len(pairs))


def expected_shapes(model: ForeignModel) -> dict[str, torch.Size] | None:
    """Shapes of the architecture's weights; None where nothing here builds it."""
    if model.architecture is None:
        return None
    return built_shapes(model.architecture, model.head, model.num_outputs)


def built_shapes(
    architecture: Section, head: Section | None, num_outputs: int
) -> dict[str, torch.Size]:
    built = _built(architecture, head, num_outputs)
    return {name: tensor.shape for name, tensor in built.state_dict().items()}


def _built(architecture: Section, head: Section | None, num_outputs: int) -> nn.Module:
    with meta_device():
        built: nn.Module = architecture(num_outputs)
        if head:
            head(built, num_outputs)
    return built


def read_epoch(
    model: ForeignModel, epoch: ForeignEpoch, expected: Mapping[str, torch.Size] | None
) -> dict[str, Tensor]:
    """An epoch's weights, each tensor with memory of its own. Raises IncompatibleWeights where they
    do not fit the `expected` shapes (None: not checked), and what `epoch.load` raises."""
    assert epoch.load
    weights = dict(epoch.load())
    for name, tensor in weights.items():
        if reason := unstorable(tensor):
            raise InvalidInput(f"{model.named}, epoch {epoch.number}: {name} {reason}")
    _check_fit(model, epoch, {name: tensor.shape for name, tensor in weights.items()}, expected)
    if expected is not None:
        _check_real(model, epoch, weights)
    storages: set[int] = set()
    for name, tensor in weights.items():
        # tied tensors share memory in a pickle, but safetensors writes each by itself
        storage = tensor.untyped_storage().data_ptr()
        weights[name] = tensor.clone() if storage in storages else tensor
        storages.add(storage)
    return weights


def _check_real(model: ForeignModel, epoch: ForeignEpoch, weights: Mapping[str, Tensor]) -> None:
    """Raises IncompatibleWeights for whole numbers where the architecture has real ones: loading
    would take them for their values."""
    assert model.architecture
    real = _real_names(model.architecture, model.head, model.num_outputs)
    for name, tensor in weights.items():
        if name in real and not tensor.is_floating_point():
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise IncompatibleWeights(
                f"{model.named}, epoch {epoch.number}: {name} is of {dtype}, and the architecture "
                "has real numbers there; quantized weights have to be converted back first, by the "
                "program that made them"
            )


@lru_cache(maxsize=16)
def _real_names(architecture: Section, head: Section | None, num_outputs: int) -> frozenset[str]:
    """Of an architecture's tensors of real numbers."""
    tensors = _built(architecture, head, num_outputs).state_dict().items()
    return frozenset(name for name, tensor in tensors if tensor.is_floating_point())


def _check_fit(
    model: ForeignModel,
    epoch: ForeignEpoch,
    shapes: Mapping[str, torch.Size],
    expected: Mapping[str, torch.Size] | None,
) -> None:
    if expected is not None and (reason := misfit(shapes, expected)):
        what = "these weights do not fit the architecture that it is said to have"
        raise IncompatibleWeights(f"{model.named}, epoch {epoch.number}: {what}: {reason}")


def misfit(shapes: Mapping[str, torch.Size], expected: Mapping[str, torch.Size]) -> str | None:
    """The first difference between weights and an architecture's; None where there is none."""
    missing, unknown = expected.keys() - shapes.keys(), shapes.keys() - expected.keys()
    for wrapped in unknown if missing else ():
        prefix = wrapped.removesuffix(f".{min(missing)}")
        if prefix != wrapped:
            alone = parameter("prefix", prefix)
            return f"its tensors begin with '{prefix}.'; {alone} takes these alone"
    for names, problem in ((sorted(missing), "missing"), (sorted(unknown), "unknown")):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            return f"{', '.join(names[:3])}{more} {problem}"
    for name, shape in sorted(expected.items()):
        if shapes[name] != shape:
            return f"{name} is {list(shapes[name])}, not {list(shape)}"
    return None
