"""Where a model's blocks are found."""

import pytest
import timm
from torch import nn

from vitarium import create_model
from vitarium.architectures.features import blocks, transformer_blocks
from vitarium.core.devices import meta_device
from vitarium.core.errors import InvalidInput

SWIN = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 8, "num_heads": (1, 2, 2)}


@pytest.mark.parametrize(
    "name",
    ["vit", "mini_deit", "ewa_vit", "dinov2", "vit_tiny_patch16_224", "beit_base_patch16_224"],
)
def test_blocks_of_a_flat_transformer_are_its_transformer_blocks(name):
    size = 28 if name == "dinov2" else 16
    patches = {} if name == "dinov2" else {"patch_size": 8}
    with meta_device():
        model = create_model(name, img_size=size, depth=4, embed_dim=24, num_heads=2, **patches)
    assert transformer_blocks(model) == {f"blocks.{i}": model.blocks[i] for i in range(4)}


def test_blocks_of_a_hierarchical_transformer_are_those_inside_of_its_stages():
    with meta_device():
        swin = timm.create_model("swin_tiny_patch4_window7_224", **SWIN, depths=(2, 1, 3))
    assert list(blocks(swin)) == ["layers.0", "layers.1", "layers.2"]
    found = transformer_blocks(swin)
    assert list(found) == [
        "layers.0.blocks.0",
        "layers.0.blocks.1",
        "layers.1.blocks.0",
        "layers.2.blocks.0",
        "layers.2.blocks.1",
        "layers.2.blocks.2",
    ]
    assert all(swin.get_submodule(name) is block for name, block in found.items())


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto", "mixer_s16_224"])
def test_models_without_attention_have_no_transformer_blocks(name):
    with meta_device():
        model = timm.create_model(name)
    with pytest.raises(
        InvalidInput, match="none of its blocks, layers, stages has an attn and an mlp"
    ):
        transformer_blocks(model)


def test_an_empty_stack_has_no_transformer_blocks():
    model = nn.Module()
    model.blocks = nn.Sequential()
    with pytest.raises(InvalidInput, match="Module has no transformer blocks"):
        transformer_blocks(model)
