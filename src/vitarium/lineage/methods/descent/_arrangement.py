"""Symmetries of a set of models, and models with their units in another order."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from timm.layers.mlp import GluMlp, Mlp
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vitarium.architectures.symmetries.base import Symmetries, UnitTransforms, moved
from vitarium.architectures.symmetries.vit import vit_symmetries
from vitarium.core.errors import IncompatibleWeights, InvalidInput, NotApplicable
from vitarium.evaluation.inputs import Weights
from vitarium.lineage.model_set import ModelSet


def symmetries_of(model_set: ModelSet) -> Symmetries:
    """Permutation symmetries of the tensors that are compared.

    Where nothing is known of the models but their weights, they are taken for a vision transformer
    of timm if they have its names. How many heads it has is not in the weights: one is declared,
    whose channels can stand in any order, which includes every order of more heads.

    Raises IncompatibleWeights where the symmetries are not known.
    """
    try:
        skeleton = model_set.models[0].skeleton
    except (NotApplicable, InvalidInput):
        skeleton = _timm_vit(model_set.shapes)
    declared = vit_symmetries(skeleton)
    pieces = tuple(piece for piece in declared.pieces if piece.tensor in model_set.shapes)
    unknown = model_set.shapes.keys() - {piece.tensor for piece in pieces}
    if unknown:
        raise IncompatibleWeights(f"which symmetries {min(unknown)} has is not known")
    named = {axis.group for piece in pieces for axis in piece.axes}
    groups = {name: group for name, group in declared.groups.items() if name in named}
    return Symmetries(groups, pieces)


def permute_units(model: Weights, symmetries: Symmetries, moves: UnitTransforms) -> Weights:
    """A model of the same name whose tensors are moved when they are read.

    Tensors that the symmetries do not have, such as a head's, stay as they are.
    """
    permuted = Weights(
        model.name, _PermutedTensors(model, symmetries, moves), skeleton=_skeleton(model)
    )
    permuted.__dict__["shapes"] = model.shapes  # nothing is read for them
    return permuted


class _PermutedTensors(Mapping[str, Tensor]):
    def __init__(self, model: Weights, symmetries: Symmetries, moves: UnitTransforms) -> None:
        self.model, self.moves = model, moves
        self._by_tensor: dict[str, Symmetries] = {}
        for piece in symmetries.pieces:
            declared = self._by_tensor.get(piece.tensor, Symmetries(symmetries.groups, ()))
            self._by_tensor[piece.tensor] = Symmetries(declared.groups, (*declared.pieces, piece))

    def __getitem__(self, name: str) -> Tensor:
        tensor = self.model[name]
        if name not in self._by_tensor:
            return tensor
        return moved(self._by_tensor[name], {name: tensor}, self.moves)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.model)

    def __len__(self) -> int:
        return len(self.model)


def _skeleton(model: Weights) -> Any:
    return lambda: model.skeleton


def _timm_vit(shapes: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """A model of timm, on the meta device, that has tensors of these names and shapes."""
    try:
        width, channels, *patch = shapes["patch_embed.proj.weight"]
        hidden, into = shapes["blocks.0.mlp.fc1.weight"][0], shapes["blocks.0.mlp.fc2.weight"][1]
        tokens, registers = shapes["pos_embed"][1], shapes.get("reg_token", (1, 0, width))[1]
    except KeyError as error:
        raise IncompatibleWeights(
            f"they have no {error.args[0]}, as vision transformers of timm do"
        ) from None
    prefix = ("cls_token" in shapes) + registers
    normed = shapes.get("blocks.0.attn.q_norm.weight")
    with torch.device("meta"):
        model = VisionTransformer(
            # a row of patches: only their number matters
            img_size=(patch[0] * (tokens - prefix), patch[1]),
            patch_size=(patch[0], patch[1]),
            in_chans=channels,
            num_classes=1,
            global_pool="avg" if "fc_norm.weight" in shapes else "token" if prefix else "avg",
            fc_norm="fc_norm.weight" in shapes,
            final_norm="norm.weight" in shapes or "fc_norm.weight" in shapes,
            pre_norm="norm_pre.weight" in shapes,
            embed_dim=width,
            depth=sum(name.endswith(".mlp.fc1.weight") for name in shapes),
            num_heads=width // normed[0] if normed else 1,
            mlp_ratio=hidden / width,
            qkv_bias="blocks.0.attn.qkv.bias" in shapes,
            qk_norm=normed is not None,
            init_values=1e-5 if "blocks.0.ls1.gamma" in shapes else None,
            class_token="cls_token" in shapes,
            reg_tokens=registers,
            mlp_layer=Mlp if hidden == into else GluMlp,
        )
    built = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name, shape in shapes.items():
        if built.get(name) != shape:
            raise IncompatibleWeights(
                f"{name} {list(shape)} is not as in a vision transformer of timm"
            )
    return model
