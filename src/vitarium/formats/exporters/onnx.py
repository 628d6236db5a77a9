"""ONNX files, for ONNX Runtime and all that reads its format."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.config import Config
from vitarium.core.errors import InvalidInput
from vitarium.formats.base import Checkpoints, checkpoint_name, exporter, refuses_unbuilt
from vitarium.zoo import Zoo

TOLERANCE = 1e-4
_LARGEST = 2**31 - 2**24
"""Bytes of weights that fit into one file of the format; more lie beside it, in FILE.data."""


class OnnxFile(Config):
    """Which version of ONNX, and whether it is tried."""

    opset: int = Field(18, ge=18, le=23)
    """Version of the operators."""
    check: bool = True
    """Run each file in ONNX Runtime, and compare outputs with the zoo's to 1e-4."""


@exporter(
    "onnx",
    refuses=refuses_unbuilt,
    needs=("onnx", "onnxscript", "onnxruntime"),
    extra="vitarium[onnx]",
    tiny={"check": False},
)
def onnx_file(config: OnnxFile, zoo: Zoo, models: Checkpoints, out: Path) -> Iterator[Path]:
    """An ONNX file per model: images [batch, c, h, w] -> outputs [batch, n], any batch.

    In its metadata: id, epoch, stage, classes (JSON) and factors (JSON).
    """
    for checkpoint in models:
        model = zoo.load(*checkpoint)
        architecture = zoo.spec(checkpoint.model).origin.architecture
        assert architecture
        noise = torch.Generator().manual_seed(0)
        images = torch.randn(2, *architecture.config.input_size, generator=noise)
        file = out / f"{checkpoint_name(checkpoint)}.onnx"
        _write(model, images, file, config.opset, metadata(zoo, checkpoint))
        if config.check:
            _check(model, images, file, checkpoint.model)
        yield file


def _write(model: nn.Module, images: Tensor, file: Path, opset: int, props: dict[str, str]) -> None:
    import onnx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own deprecations
        program: Any = torch.onnx.export(
            model,
            (images,),
            dynamo=True,
            opset_version=opset,
            input_names=["images"],
            output_names=["outputs"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
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


def metadata(zoo: Zoo, checkpoint: CheckpointRef) -> dict[str, str]:
    spec, about = zoo.spec(checkpoint.model), zoo.folder(checkpoint.model).about()
    return {
        "id": checkpoint.model,
        "epoch": str(checkpoint.epoch),
        "stage": spec.stage,
        "classes": json.dumps(list(about.classes), ensure_ascii=False),
        "factors": json.dumps(spec.described(), ensure_ascii=False),
    }


def _check(model: nn.Module, images: Tensor, file: Path, id: str) -> None:
    """In a batch of another size than that of the export, too."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for batch in (images, torch.cat([images, images[:1] * 0.5])):
        (outputs,) = session.run(None, {"images": batch.numpy()})
        with torch.no_grad():
            error = (torch.from_numpy(outputs) - model(batch)).abs().max().item()
        if not error <= TOLERANCE:
            what = f"model {id}: the outputs of ONNX Runtime are up to {error:.1e} from the zoo's"
            raise InvalidInput(f"{what}; keep the file all the same with --set check=false")
