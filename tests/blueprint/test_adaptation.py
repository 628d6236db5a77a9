"""The adaptation of a recipe, and what earlier versions called it."""

import pytest

from vitarium import plan
from vitarium.core.config import InvalidConfig

ARCHITECTURE = {"name": "vit", "img_size": 8, "patch_size": 4, "in_chans": 1}
ARCHITECTURE |= {"embed_dim": 16, "depth": 1, "num_heads": 2}
STAGE = {"architecture": ARCHITECTURE, "data": "digits", "epochs": 1, "batch_size": 32}
PROBE = "010945ec0337"
"""The id that version 0.1 gave a linear probe."""


def planned(**settings):
    return plan({"name": "t", "stages": {"pretrain": STAGE | settings}}).models


@pytest.mark.parametrize("settings", [{"trainable": "head"}, {"adaptation": "head"}])
def test_a_linear_probe_has_the_id_that_it_always_had(settings):
    (spec,) = planned(**settings)
    assert spec.id == PROBE
    assert spec.recipe.adaptation.name == "head"


def test_all_weights_learn_as_ever():
    ids = {planned(**s)[0].id for s in ({}, {"trainable": "all"}, {"adaptation": "full"})}
    assert len(ids) == 1


def test_a_grid_over_the_old_name_is_read():
    models = planned(grid={"trainable": ["all", "head"]})
    assert [spec.recipe.adaptation.name for spec in models] == ["full", "head"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trainable": "backbone"}, "pretrain.trainable: write `adaptation: full` or another"),
        ({"trainable": "head", "adaptation": "norms"}, "leave it out beside `adaptation`"),
        ({"adaptation": "lora"}, "'lora' changes weights that were trained before: give the stage"),
        ({"adaptation": {"name": "lora", "rank": 0}}, "adaptation.rank: 0 is not greater than 0"),
        ({"adaptation": {"name": "lora", "matrices": ["w"]}}, "adaptation.matrices"),
        ({"adaptation": {"name": "lora", "matrices": []}}, "adaptation.matrices"),
        ({"adaptation": {"name": "adapter", "bottleneck": 10**9}}, "adaptation.bottleneck"),
        ({"augmentation": {"repeats": 60}}, "more than the 32 images of a batch"),
        ({"early_stopping": {"metric": "val_ema_accuracy"}}, "without a moving average"),
        ({"adaptation": {"name": "kronecker", "matrices": ["q", "v", "q"]}}, "q, v, q name a"),
        ({"adaptation": {"name": "adapter", "blocks": []}}, "adaptation.blocks"),
    ],
)
def test_what_is_wrong_with_an_adaptation_is_said(settings, message):
    with pytest.raises(InvalidConfig) as error:
        planned(**settings)
    assert message in str(error.value)
