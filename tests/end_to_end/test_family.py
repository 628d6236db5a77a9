"""What is known of families of models shows in one that was trained on real images."""

import pytest

from vitarium import measure, merge
from vitarium.lineage.recover import recover

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(family):
    """The parents and their children."""
    return family.models().query("stage in ('pretrain', 'finetune')")


@pytest.fixture(scope="module")
def soups(family, models):
    """A soup of each parent's first two children, and one of both parents."""
    children = models.dropna(subset="parent").groupby("parent")["id"].apply(list)
    of_siblings = [merge(family, "uniform_soup", models=siblings[:2]).id for siblings in children]
    return of_siblings, merge(family, "uniform_soup", models=children.index).id


def test_siblings_may_be_averaged_and_models_of_different_parents_must_not(family, models, soups):
    of_siblings, of_parents = soups
    table = measure(family, "accuracy", models=[*models["id"], *of_siblings, of_parents])
    accuracy = table.query("part == ''").set_index("model")["value"]
    children = models.dropna(subset="parent")["id"]
    assert accuracy[of_siblings].mean() > accuracy[children].mean() - 0.02
    parents = models[models["parent"].isna()]["id"]
    assert accuracy[of_parents] < accuracy[parents].mean() - 0.1


def test_families_roots_and_parents_are_found(family, models):
    scores = recover(family, where="stage IN ('pretrain', 'finetune')").scores
    assert scores.models == 2 + 6
    assert scores.adjusted_rand_index == 1
    assert scores.root_accuracy == 1
    assert scores.parent_accuracy >= 0.8


def test_both_parents_of_a_soup_of_siblings_are_found(family, soups):
    _, of_parents = soups
    recovered = recover(family, where=f"stage != 'experts' AND id != '{of_parents}'")
    assert recovered.scores.mixtures == 2
    assert recovered.scores.mixtures_found == 1
