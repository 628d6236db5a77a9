"""Every operator by its name on a family that was trained on real images."""

import pytest
import torch

from vitarium import measure, merge
from vitarium.core import registry

SHORT = {"num_images": 128, "steps": 4, "restarts": 1, "epochs": 1}
OF_FEW_EPOCHS = {"epoch_average": {"last": 2}, "lawa": {"k": 2}, "swa": {"start": 0.5}}
MANY_AT_ONCE = {"fisher_merging": {"batch_size": 32}}
CONVERSIONS = {"batch_norm_folding", "ci2p", "dense_form", "depth_pruning", "ed_vit", "exit_member"}
CONVERSIONS |= {"exit_threshold", "matvit_member", "repavit_fusion", "sparseformer"}
CONVERSIONS |= {"supernet_member"}
"""They take other architectures than vit, or what they give is still to be trained."""
OPERATORS = registry.plugins("operator")
CHANCE = 0.1

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def zoo(family):
    return family


@pytest.fixture(scope="module")
def siblings(zoo):
    table = zoo.models().query("stage == 'finetune'")
    return table[table["parent"] == table["parent"].iloc[0]]["id"].tolist()


@pytest.mark.parametrize("name", sorted(OPERATORS.keys() - CONVERSIONS))
def test_siblings_are_combined_into_a_model_that_still_classifies(zoo, siblings, name):
    facts = OPERATORS[name].facts
    most = 1 if facts["epochs"] else facts["models"][1]
    fields = OPERATORS[name].config.model_fields
    settings = {key: value for key, value in SHORT.items() if key in fields}
    settings |= OF_FEW_EPOCHS.get(name, {}) | MANY_AT_ONCE.get(name, {})
    models = siblings[:most]
    if name == "experts_average":
        models = zoo.models().query("stage == 'experts'")["id"].tolist()
    merged_id = merge(zoo, name, models=models, **settings).id
    assert all(torch.isfinite(tensor).all() for tensor in zoo.state_dict(merged_id).values())
    accuracy = measure(zoo, "accuracy", models=[merged_id], num_images=500).query("part == ''")[
        "value"
    ]
    assert accuracy.item() > 3 * CHANCE


def test_a_soup_of_siblings_is_as_good_as_the_mean_of_them(zoo, siblings):
    soup = merge(zoo, "uniform_soup", models=siblings).id
    table = measure(zoo, "accuracy", models=[*siblings, soup]).query("part == ''")
    values = table.set_index("model")["value"]
    assert values[soup] >= values[siblings].mean() - 0.01
