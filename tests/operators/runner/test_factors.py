"""What is said of a merged model: its operator, and what all ingredients have in common."""

from vitarium import merge
from vitarium.blueprint.spec import differing_factors, restored


def test_a_merged_model_has_the_operators_settings_and_what_all_ingredients_share(
    grown_zoo, siblings
):
    merged = merge(grown_zoo, "ties", models=siblings, density=0.3)
    rates = {grown_zoo[id].factors["optimizer.lr"] for id in siblings}
    assert len(rates) == 2
    factors = merged.factors
    assert (factors["operator"], factors["operator.density"]) == ("ties", 0.3)
    assert "optimizer.lr" not in factors
    shared = grown_zoo[siblings[0]].factors
    assert factors["optimizer.momentum"] == shared["optimizer.momentum"] == 0.9
    assert factors["architecture.embed_dim"] == shared["architecture.embed_dim"]
    rows = grown_zoo.models().set_index("id")
    assert rows["optimizer.lr"].isna()[merged.id]
    assert rows.loc[merged.id, "operator.density"] == 0.3


def test_what_ingredients_do_not_share_is_not_shared_by_what_is_merged_of_them(grown_zoo, siblings):
    first = merge(grown_zoo, "uniform_soup", models=siblings)
    second = merge(grown_zoo, "interpolation", models=[first.id, siblings[0]], t=0.25)
    assert "optimizer.lr" not in second.factors
    assert (second.factors["operator"], second.factors["operator.t"]) == ("interpolation", 0.25)
    assert second.factors["optimizer.momentum"] == 0.9


def test_a_model_of_one_model_keeps_its_factors(grown_zoo, siblings):
    merged = merge(grown_zoo, "wise_ft", models=siblings[:1])
    factors = grown_zoo[siblings[0]].factors
    assert merged.factors | factors == merged.factors


def test_which_factors_differ_is_no_part_of_the_id(grown_zoo, siblings):
    spec = merge(grown_zoo, "uniform_soup", models=siblings).spec
    assert "optimizer.lr" in spec.differing
    assert restored({**spec.factors(), "differing": []}).id == spec.id


def test_a_factor_that_some_lack_differs():
    assert differing_factors([{"a": 1, "b": None}, {"a": 1, "c": 2}]) == ["b", "c"]
    assert differing_factors([{"a": 1}]) == []
