"""Folders that `ViTForImageClassification.from_pretrained` of transformers loads."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from timm.layers.attention import Attention
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from vitarium.core import files
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.devices import meta_device
from vitarium.core.errors import InvalidInput
from vitarium.data.preprocessing import Preprocessing
from vitarium.formats._names import from_timm
from vitarium.formats._preprocessing import Preprocessed, preprocessing
from vitarium.formats.base import Checkpoints, checkpoint_name, exporter, refuses_unbuilt
from vitarium.zoo import Zoo

_ACTIVATIONS = {
    "GELU": "gelu",
    "GELUTanh": "gelu_pytorch_tanh",
    "QuickGELU": "quick_gelu",
    "ReLU": "relu",
    "SiLU": "silu",
}
_RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
"""PIL's numbers."""


def refuses(config: Preprocessed, zoo: Zoo, checkpoint: CheckpointRef) -> str | None:
    if reason := refuses_unbuilt(config, zoo, checkpoint):
        return reason
    fault = next(_faults(_skeleton(zoo, checkpoint)), None)
    return fault and f"{fault}; --exporter safetensors and --exporter onnx take it"


@exporter("hugging_face", refuses=refuses)
def hugging_face(config: Preprocessed, zoo: Zoo, models: Checkpoints, out: Path) -> Iterator[Path]:
    """A folder per model for transformers: ViTForImageClassification.from_pretrained(...).

    A model without a head becomes a ViTModel. The folder says how images are prepared, too.
    """
    for checkpoint in models:
        folder, id = out / checkpoint_name(checkpoint), checkpoint.model
        model, classes = _skeleton(zoo, checkpoint), zoo.folder(id).about().classes
        inputs = preprocessing(zoo.spec(id), config)
        if inputs.fault:
            raise InvalidInput(inputs.fault)
        files.write_json(folder / "config.json", _config(model, classes))
        files.write_json(folder / "preprocessor_config.json", _processor(inputs))
        headless = isinstance(model.head, nn.Identity)
        weights = from_timm(zoo.state_dict(*checkpoint), headless=headless)
        contiguous = {name: tensor.contiguous() for name, tensor in weights.items()}
        save_file(contiguous, folder / "model.safetensors", metadata={"format": "pt"})
        yield folder


def _skeleton(zoo: Zoo, checkpoint: CheckpointRef) -> Any:
    id = checkpoint.model
    with meta_device():
        return zoo.spec(id).origin.build(zoo.folder(id).about().num_outputs)


def _faults(model: Any) -> Iterator[str]:
    """In what a model differs from a ViTForImageClassification."""
    if type(model) is not VisionTransformer:
        yield f"it is a {type(model).__name__}, not a plain ViT"
        return
    if model.global_pool != "token" or not isinstance(model.fc_norm, nn.Identity):
        yield f"its head sees global_pool '{model.global_pool}', and there the class token alone"
    if not isinstance(model.head, nn.Linear | nn.Identity):
        yield "its head has several layers, and there is one"
    for name, tensor in model.state_dict().items():
        try:
            from_timm({name: tensor}, headless=False)
        except KeyError:
            yield f"it has {name}, for which there is no place"
    blocks: Any = model.blocks
    for block in blocks:
        parts = (type(block), type(block.attn), type(block.mlp))
        if parts != (Block, Attention, Mlp):
            yield f"its blocks are of {', '.join(part.__name__ for part in parts)}"
        if _activation(model) is None:
            yield f"its activation is {type(block.mlp.act).__name__}"
    tokens = model.patch_embed.num_patches + 1
    if model.pos_embed is None or model.pos_embed.shape[1] != tokens:
        yield "its class token has no position, and there it has one"
    norms = [part for part in model.modules() if isinstance(part, nn.LayerNorm)]
    if len(norms) != 2 * len(model.blocks) + 1 or len({norm.eps for norm in norms}) != 1:
        yield "its norms are not those of a plain ViT"


def _activation(model: Any) -> str | None:
    act: Any = model.blocks[0].mlp.act
    if getattr(act, "approximate", "none") == "tanh":
        return "gelu_pytorch_tanh"
    return _ACTIVATIONS.get(type(act).__name__)


def _config(model: Any, classes: Sequence[str]) -> dict[str, Any]:
    block, outputs = model.blocks[0], getattr(model.head, "out_features", 0)
    image, patch = (  # sides of squares, else heights and widths
        size[0] if len(set(size)) == 1 else list(size)
        for size in (model.patch_embed.img_size, model.patch_embed.patch_size)
    )
    names = classes if len(classes) == outputs else [f"LABEL_{i}" for i in range(outputs)]
    labels = {
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
    }
    return {
        "architectures": ["ViTForImageClassification" if outputs else "ViTModel"],
        "model_type": "vit",
        "hidden_size": model.embed_dim,
        "num_hidden_layers": len(model.blocks),
        "num_attention_heads": block.attn.num_heads,
        "intermediate_size": block.mlp.fc1.out_features,
        "hidden_act": _activation(model),
        "hidden_dropout_prob": block.attn.proj_drop.p,
        "attention_probs_dropout_prob": block.attn.attn_drop.p,
        "layer_norm_eps": model.norm.eps,
        "image_size": image,
        "patch_size": patch,
        "num_channels": model.in_chans,
        "qkv_bias": block.attn.qkv.bias is not None,
        **(labels if outputs else {}),
    }


def _processor(inputs: Preprocessing) -> dict[str, Any]:
    """The image processor that resizes the shorter side and crops the middle, as scoring does."""
    (channels, height, width), resize = inputs.input_size, inputs.resize
    size = {"shortest_edge": resize if isinstance(resize, int) else min(height, width)}
    if isinstance(resize, tuple):
        size = {"height": resize[0], "width": resize[1]}
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": channels == 3,
        "do_resize": resize is not None,
        "size": size,
        "resample": _RESAMPLE[inputs.interpolation],
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(inputs.mean or ()),
        "image_std": list(inputs.std or ()),
    }
