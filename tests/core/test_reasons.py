"""Reasons that several things share are printed once."""

from vitarium.core.reasons import by_reason

MODELS = ("04fd944c8a49", "379ccacafc2b")


def test_what_has_the_same_reason_stands_in_one_line():
    reasons = [("accuracy", "no classes"), ("norm", "no weights"), ("loss", "no classes")]
    assert by_reason(reasons) == ["accuracy, loss: no classes", "norm: no weights"]


def test_reasons_that_differ_in_ids_alone_are_one():
    reasons = [("distance", f"{model}@8: it has no parent") for model in MODELS]
    assert by_reason(reasons) == [f"distance (2 times, e.g.): {MODELS[0]}@8: it has no parent"]


def test_a_name_stands_once_and_many_are_counted():
    reasons = [(name, "no classes") for name in ("a", "b", "b", "c", "d")]
    assert by_reason(reasons, max_names=2) == ["a, b and 2 more: no classes"]
