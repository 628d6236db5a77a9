"""Segments: units are exchanged inside of them alone, wherever a tensor has them."""

import pytest
import torch

from reference import random_moves
from vitarium import create_model
from vitarium.architectures.symmetries.base import (
    Axis,
    Piece,
    Symmetries,
    UnitGroup,
    moved,
)
from vitarium.architectures.symmetries.segments import segmented
from vitarium.architectures.symmetries.vit import vit_symmetries
from vitarium.operators.alignment._search import kind_of
from vitarium.operators.alignment._trained_maps import rearranged

GROUPS = {"units": UnitGroup(5), "heads": UnitGroup(3), "channels": UnitGroup(2, inside="heads")}
PIECES = (
    Piece("into", (5, 4), (Axis("units"), Axis())),
    Piece("out", (3, 2, 5), (Axis("heads"), Axis("channels"), Axis("units", reads=True)), start=1),
    Piece("out", (1, 5), (Axis(), Axis()), stop=1),
)
WHOLE = Symmetries(GROUPS, PIECES)
SEGMENTED = segmented(WHOLE, {"units": (2, 5), "heads": (1, 3)})


def weights():
    return {"into": torch.arange(20.0).view(5, 4), "out": torch.arange(35.0).view(7, 5)}


def test_groups_are_those_of_the_segments_and_what_is_inside():
    sizes = {name: (group.size, group.inside) for name, group in SEGMENTED.groups.items()}
    assert sizes == {
        "units.0": (2, None),
        "units.1": (3, None),
        "heads.0": (1, None),
        "heads.1": (2, None),
        "channels.0": (2, "heads.0"),
        "channels.1": (2, "heads.1"),
    }
    assert [len([p for p in SEGMENTED.pieces if p.tensor == name]) for name in weights()] == [2, 5]


def test_moves_of_segments_are_moves_of_all_units_that_cross_no_end():
    generator = torch.Generator().manual_seed(0)
    moves = random_moves.random_moves(SEGMENTED, generator)
    joined = {
        "units": torch.cat([moves["units.0"], 2 + moves["units.1"]]),
        "heads": torch.cat([moves["heads.0"], 1 + moves["heads.1"]]),
        "channels": torch.cat([moves["channels.0"], moves["channels.1"]]),
    }
    expected = moved(WHOLE, weights(), joined)
    for name, tensor in moved(SEGMENTED, weights(), moves).items():
        assert torch.equal(tensor, expected[name])
        assert not torch.equal(tensor, weights()[name])


def test_trained_maps_of_segments_do_what_moves_do():
    moves = random_moves.random_moves(SEGMENTED, torch.Generator().manual_seed(1))
    matrices = {
        name: torch.nn.functional.one_hot(move, SEGMENTED.groups[name].size).float()
        for name, move in moves.items()
    }
    maps = {name: (matrix, matrix) for name, matrix in matrices.items()}
    expected = moved(SEGMENTED, weights(), moves)
    for name, tensor in rearranged(SEGMENTED, weights(), maps).items():
        assert torch.equal(tensor, expected[name])


def test_gradients_pass_through_trained_maps_of_segments():
    matrix = torch.eye(3, requires_grad=True)
    tensors = rearranged(SEGMENTED, weights(), {"units.1": (matrix, matrix)})
    tensors["into"].square().sum().backward()
    rows = weights()["into"][2:]
    torch.testing.assert_close(matrix.grad, 2 * rows @ rows.T)


def test_one_segment_is_the_group():
    assert segmented(WHOLE, {"units": (5,)}) == WHOLE


def test_a_tensor_of_other_strides_is_moved():
    turned = {name: tensor.T.contiguous().T for name, tensor in weights().items()}
    moves = random_moves.random_moves(SEGMENTED, torch.Generator().manual_seed(0))
    expected = moved(SEGMENTED, weights(), moves)
    for name, tensor in moved(SEGMENTED, turned, moves).items():
        assert torch.equal(tensor, expected[name])


def test_segments_of_a_stream_that_can_be_mixed_are_refused():
    model = create_model("vit", num_classes=2, img_size=8, patch_size=8, embed_dim=6, depth=1)
    with pytest.raises(ValueError, match="stream can be mixed"):
        segmented(vit_symmetries(model), {"stream": (2, 6)})


def test_segments_are_of_the_kind_of_their_group():
    symmetries = segmented(Symmetries({"stream": UnitGroup(4), **GROUPS}, ()), {"stream": (1, 4)})
    symmetries = segmented(symmetries, {"units": (2, 5), "heads": (1, 3)})
    kinds = {name: kind_of(symmetries, name) for name in symmetries.groups}
    assert kinds == {
        "stream.0": "stream",
        "stream.1": "stream",
        "units.0": "units",
        "units.1": "units",
        "heads.0": "attention_heads",
        "heads.1": "attention_heads",
        "channels.0": "channels",
        "channels.1": "channels",
    }
