"""Units of a ViT's structures: zero or cut out, and what they are judged by."""

from itertools import product

import pytest
import torch

from reference.random_moves import scrambled
from vitarium.architectures.elastic._uneven_attention import UnevenDeclaration
from vitarium.architectures.symmetries.vit import STREAM
from vitarium.core.registry import choose
from vitarium.operators.compression.pruning._structures import (
    Sizes,
    prunable,
    sliced,
    unit_sums,
)

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 12, "depth": 2, "num_heads": 3}
SECTION = choose("architecture", "vit", **SIZES)
SELECTED = {
    "blocks.0.attn.heads": [0, 2],
    "blocks.1.attn.heads": [1],
    "blocks.0.attn.qk": [1, 3],
    "blocks.1.attn.vo": [0, 1, 3],
    "blocks.0.mlp": [*range(0, 48, 3)],
    "blocks.1.mlp": [5, 6, 7],
}


@pytest.fixture(scope="module")
def model():
    return scrambled(SECTION(3), 0).double().requires_grad_(False)


def masked(symmetries, weights, selected):
    """The weights, with zeros in all that belongs to the units that are not selected."""
    tensors = {name: tensor.clone() for name, tensor in weights.items()}
    for group, numbers in selected.items():
        for piece, axis in symmetries.having(group):
            part = piece.of(tensors).clone()
            dropped = [n for n in range(part.shape[axis]) if n not in numbers.tolist()]
            part.index_fill_(axis, torch.tensor(dropped), 0)
            piece.put(part, tensors[piece.tensor])
    return tensors


def cut(section, model, selected):
    """The smaller model, and one with zeros in the place of what it has not."""
    symmetries = UnevenDeclaration.symmetries(model)
    selected = {group: torch.tensor(numbers) for group, numbers in selected.items()}
    sizes = Sizes.of(model).with_groups(
        {group: len(numbers) for group, numbers in selected.items()}
    )
    smaller_section = sizes.section(section)
    smaller = smaller_section(3).double().eval()
    smaller.load_state_dict(dict(sliced(symmetries, model.state_dict(), selected, sizes)))
    zeroed = section(3).double().eval()
    zeroed.load_state_dict(masked(symmetries, model.state_dict(), selected))
    return smaller_section, smaller, zeroed


IMAGES = torch.randn(4, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
EACH = [{group: numbers} for group, numbers in SELECTED.items()]


@pytest.mark.parametrize("selected", [*EACH, SELECTED])
def test_a_model_without_units_computes_what_it_did_with_zeros_for_them(model, selected):
    _, smaller, zeroed = cut(SECTION, model, selected)
    torch.testing.assert_close(smaller(IMAGES), zeroed(IMAGES), rtol=0, atol=1e-10)
    assert (smaller(IMAGES) - model(IMAGES)).abs().max() > 1e-3


def test_a_pruned_model_can_be_pruned_again(model):
    section, smaller, _ = cut(SECTION, model, {"blocks.0.attn.qk": [0, 1, 3]})
    assert prunable(section, "pruning") == section
    again = {"blocks.0.attn.qk": [0, 2], "blocks.0.attn.heads": [1, 2], "blocks.1.attn.vo": [3]}
    last, twice, zeroed = cut(section, smaller, again)
    assert last.config.qk_dims == (2, 4)
    torch.testing.assert_close(twice(IMAGES), zeroed(IMAGES), rtol=0, atol=1e-10)


def test_without_channels_of_the_stream_it_computes_something_else(model):
    """Norms take mean and variance over what is left, not over zeros beside it."""
    _, smaller, zeroed = cut(SECTION, model, {STREAM: [*range(8)]})
    difference = (smaller(IMAGES) - zeroed(IMAGES)).norm() / zeroed(IMAGES).norm()
    assert smaller.embed_dim == 8
    assert difference > 0.02


def test_sizes_say_which_architecture_and_how_many_units(model):
    sizes = Sizes.of_section(SECTION)
    assert sizes == Sizes(12, 4, (3, 3), (4, 4), (4, 4), (48, 48))
    assert sizes.section(SECTION) == SECTION
    assert sizes.groups() == {
        STREAM: 12,
        **{f"blocks.{n}.attn.heads": 3 for n in (0, 1)},
        **{f"blocks.{n}.attn.{part}": 4 for part, n in product(("qk", "vo"), (0, 1))},
        **{f"blocks.{n}.mlp": 48 for n in (0, 1)},
    }
    assert sizes.groups().keys() == UnevenDeclaration.symmetries(model).groups.keys()
    halved = sizes.with_groups({f"blocks.{n}.mlp": 24 for n in (0, 1)}).section(SECTION)
    assert (halved.name, halved.config.mlp_ratio) == ("vit", 2.0)
    fewer = sizes._replace(heads=(2, 2)).section(SECTION)
    assert (fewer.name, fewer.config.num_heads, fewer.config.head_dim) == ("uneven_vit", 2, 4)


def test_units_are_judged_by_their_own_parameters(model):
    symmetries, values = UnevenDeclaration.symmetries(model), model.state_dict()
    qkv, bias = values["blocks.1.attn.qkv.weight"], values["blocks.1.attn.qkv.bias"]
    rows, biases = qkv.view(3, 3, 4, 12), bias.view(3, 3, 4)
    for unit in range(3):
        expected = rows[:, unit].sum() + biases[:, unit].sum()
        sums = unit_sums(symmetries, values, "blocks.1.attn.heads")
        torch.testing.assert_close(sums[unit], expected)
    for group, part in (("qk", 0), ("vo", 2)):
        sums = unit_sums(symmetries, values, f"blocks.1.attn.{group}")
        torch.testing.assert_close(sums, rows[part].sum((0, 2)) + biases[part].sum(0))
    hidden = values["blocks.0.mlp.fc1.weight"].sum(1) + values["blocks.0.mlp.fc1.bias"]
    torch.testing.assert_close(unit_sums(symmetries, values, "blocks.0.mlp"), hidden)
    patches = values["patch_embed.proj.weight"].flatten(1).sum(1) + values["patch_embed.proj.bias"]
    stream = patches.clone()
    for number in (0, 1):
        names = f"blocks.{number}.attn.proj", f"blocks.{number}.mlp.fc2"
        for name in names:
            stream += values[f"{name}.weight"].sum(1) + values[f"{name}.bias"]
        for name in (f"blocks.{number}.attn.qkv", f"blocks.{number}.mlp.fc1"):
            stream += values[f"{name}.weight"].sum(0)
    torch.testing.assert_close(unit_sums(symmetries, values, STREAM), stream)
