"""ONNX files, for ONNX Runtime and all that reads its format."""

import json
import logging
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from vitarium.architectures.features import is_linearized
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.config import Config
from vitarium.core.errors import VitariumError
from vitarium.core.parameters import parameter
from vitarium.core.printable import shortened
from vitarium.formats.base import (
    Checkpoints,
    Skipped,
    checkpoint_name,
    exporter,
    refuses_unbuilt,
)
from vitarium.zoo import Zoo

TOLERANCE = 1e-4
_FATAL = 4  # ONNX Runtime's level of messages; what is less is raised, too
_MAX_LENGTH = 200  # characters of a cause
_LARGEST = 2**31 - 2**24
"""Bytes of weights that fit into one file of the format; more lie beside it, in FILE.data."""


class OnnxFile(Config):
    """Which version of ONNX, and whether it is tried."""

    opset: int = Field(18, ge=18, le=23)
    """Version of ONNX's operator set."""
    check: bool = True
    """Run each exported file in ONNX Runtime, and check that its outputs equal the zoo's to
    1e-4."""


@exporter(
    "onnx",
    refuses=refuses_unbuilt,
    needs=("onnx", "onnxscript", "onnxruntime"),
    extra="vitarium[onnx]",
    opened_by='onnxruntime.InferenceSession("{path}")',
    tiny={"check": False},
)
def onnx_file(
    config: OnnxFile, zoo: Zoo, models: Checkpoints, out: Path
) -> Iterator[Path | Skipped]:
    """An ONNX file per model, for any batch size.

    images [batch, channels, height, width] -> outputs [batch, num_outputs].

    In its metadata: id, epoch, stage, classes (JSON) and factors (JSON).
    """
    for checkpoint in models:
        file = out / f"{checkpoint_name(checkpoint)}.onnx"
        fault = _export(config, zoo, checkpoint, file)
        if fault:
            for part in (file, file.with_name(f"{file.name}.data")):
                part.unlink(missing_ok=True)
        yield Skipped(checkpoint, fault) if fault else file


def _export(config: OnnxFile, zoo: Zoo, checkpoint: CheckpointRef, file: Path) -> str | None:
    """Write a model's file; gives what is wrong with it."""
    architecture = zoo.spec(checkpoint.model).origin.architecture
    assert architecture
    noise = torch.Generator().manual_seed(0)
    images = torch.randn(2, *architecture.config.input_size, generator=noise)
    try:
        with quiet():
            model = unfused(zoo.load(*checkpoint))
            if is_linearized(model):
                return "its features are a derivative, for which ONNX has no operations"
            write(model, images, file, config.opset, metadata(zoo, checkpoint))
            if not config.check:
                return None
            error = largest_error(zoo.load(*checkpoint), images, file)
    except (VitariumError, OSError, MemoryError):
        raise
    except Exception as failure:  # torch and ONNX raise what they like
        return f"torch cannot write it as ONNX: {_cause(failure)}"
    if error <= TOLERANCE:
        return None
    what = f"the outputs of ONNX Runtime are up to {error:.1e} from the zoo's"
    return f"{what}; keep the file all the same: {parameter('check', False)}"


def unfused(model: nn.Module) -> nn.Module:
    """Attention step by step: timm's fused kernels cannot be exported where they add positions."""
    module: Any
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's own deprecations, and its reports of what is raised anyway."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _cause(error: BaseException) -> str:
    """The first line of what began it, without colors."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = re.sub(r"\x1b\[\d*m", "", str(error)).strip().splitlines()
    return shortened(lines[0] if lines else type(error).__name__, _MAX_LENGTH)


def write(model: nn.Module, images: Tensor, file: Path, opset: int, props: dict[str, str]) -> None:
    """Images [2, c, h, w] are the example that torch follows through the model."""
    import onnx

    program: Any = torch.onnx.export(
        model,
        (images,),
        dynamo=True,
        opset_version=opset,
        input_names=["images"],
        output_names=["outputs"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
        custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
    )
    proto = program.model_proto
    graph = proto.graph
    values = [*graph.input, *graph.output, *graph.value_info, *graph.initializer]
    nodes = [node for function in proto.functions for node in function.node]
    for part in [*graph.node, *nodes, *values]:
        # where in this machine's source files each operation came from
        part.ClearField("metadata_props")
    onnx.helper.set_model_props(proto, props)
    bytes = sum(tensor.nbytes for tensor in model.state_dict().values())
    onnx.save(proto, file, save_as_external_data=bytes > _LARGEST, location=f"{file.name}.data")
    onnx.checker.check_model(file)


def _stable_sort(
    values: Any, *, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> Any:
    """`torch.sort(stable=True)`, of which torch's exporter knows nothing, by ONNX operators:
    values and indices [*values.shape]. Of equal values TopK has the first one first."""
    from onnxscript import opset18

    operators: Any = opset18
    size = operators.Shape(values)
    length = operators.Gather(size, operators.Constant(value_ints=[dim]), axis=0)
    return operators.TopK(values, length, axis=dim, largest=descending, sorted=1)


def metadata(zoo: Zoo, checkpoint: CheckpointRef) -> dict[str, str]:
    spec, about = zoo.spec(checkpoint.model), zoo.folder(checkpoint.model).about()
    return {
        "id": checkpoint.model,
        "epoch": str(checkpoint.epoch),
        "stage": spec.stage,
        "classes": json.dumps(list(about.classes), ensure_ascii=False),
        "factors": json.dumps(spec.described(), ensure_ascii=False),
    }


def largest_error(model: nn.Module, images: Tensor, file: Path) -> float:
    """The largest difference of outputs [batch, n] of images [2, c, h, w], and of another batch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    errors = []
    for batch in (images, torch.cat([images, images[:1] * 0.5])):
        (outputs,) = session.run(None, {"images": batch.numpy()})
        with torch.no_grad():
            errors.append((torch.from_numpy(outputs) - model(batch)).abs().max().item())
    return math.nan if any(map(math.isnan, errors)) else max(errors)
