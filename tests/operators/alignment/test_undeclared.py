"""Architectures without symmetries say why their models are not aligned."""

import pytest

from vitarium import Blueprint, grow, merge
from vitarium.core.errors import IncompatibleWeights


def test_the_reason_stands_in_the_error(tmp_path):
    architecture = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "depth": 2}
    stage = {
        "architecture": {"name": "mini_deit", **architecture, "num_heads": 2},
        "data": {"name": "digits", "train_limit": 32},
        "epochs": 1,
        "batch_size": 16,
        "grid": {"seed": [0, 1]},
    }
    blueprint = Blueprint.read({"name": "two", "stages": {"two": stage}})
    zoo = grow(blueprint, tmp_path / "zoo", workers=0, progress=False).zoo
    with pytest.raises(
        IncompatibleWeights, match="mini_deit declares no symmetries to align it by: each"
    ):
        merge(zoo, "weight_matching", models=zoo.ids())
