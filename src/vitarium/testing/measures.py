"""The contract of measures (`vitarium.measures.base`), checked."""

from collections import Counter
from operator import itemgetter
from pathlib import Path
from unittest.mock import patch

import numpy as np

from vitarium.measures.base import unit_of
from vitarium.testing._rules import Contract
from vitarium.testing._tiny_zoo import tiny_zoo
from vitarium.zoo import Zoo

_IMAGES = 24
_UNIT_OF_WORD = {"loss": "nats", "error": "fraction", "accuracy": "fraction"}
"""Units of parts that are called so, of measures that have one of these units."""
_KEYS = ["model", "other", "part"]


def check_measure(name: str, zoo: Zoo | str | Path | None = None) -> None:
    """Check a measure by its contract: described, deterministic, symmetric if it says so, and
    computed once.

    Args:
        name: of a registered measure. It is measured with its settings `tiny` on 24 images.
        zoo: of a copy of it, two models of one parent are measured.
            None: a zoo of tiny models on scikit-learn's digits, grown once per process in a few
            seconds.
    """
    from vitarium import measure

    rule = Contract("measure", name)
    facts = rule.facts
    for fact in ("unit", "title"):
        rule(facts[fact], f"it has a {fact}")
    with tiny_zoo(instead=zoo) as zoo:
        specs = {id: zoo.spec(id) for id in zoo.ids()}
        families = Counter(spec.parent for spec in specs.values() if spec.parent)
        parent, count = max(families.items(), key=itemgetter(1), default=("", 0))
        rule(count > 1, "the zoo has two models of one parent")
        siblings = [id for id, spec in specs.items() if spec.parent == parent][:2]
        settings = {"models": siblings, "num_images": _IMAGES, **facts["tiny"]}
        values = measure(zoo, name, overwrite=True, **settings)
        reasons = values.loc[values["refused"] != "", "refused"].unique()
        rule(not len(reasons), f"it has values for siblings, not: {'; '.join(reasons)}")
        for part, unit in set(zip(values["part"], values["unit"], strict=True)):
            rule(unit == unit_of(facts, part), f"the unit of its part '{part}' is as declared")
            for word, expected in _UNIT_OF_WORD.items():
                named = word in part.split("/") and facts["unit"] in _UNIT_OF_WORD.values()
                rule(not named or unit == expected, f"its part '{part}' is in {expected}")
        fractions = values.loc[values["unit"] == "fraction", "value"]
        rule(fractions.abs().le(1).all(), "its fractions are from -1 to 1")
        per_model = 1 if facts["of"] == "pair" and facts["symmetric"] else 2
        rule(values["model"].nunique() == per_model, "it has a value for each model or pair")
        with patch.dict(facts, symmetric=False):  # in both orders
            again = measure(zoo, name, overwrite=True, **settings)
        is_first = again["model"].isin(values["model"])
        first, swapped = again[is_first].reset_index(drop=True), again[~is_first]
        rule(first.equals(values), "it gives the same bits when it is computed again")
        if len(swapped):
            by = "value" if facts["symmetric"] == "mirrored" else "part"
            pair, other = (frame.sort_values(by)["value"] for frame in (values, swapped))
            near = np.allclose(pair, other, rtol=1e-4, atol=1e-6 * pair.abs().max())
            rule(near, "it is the same in both orders")
        stored, values = (
            frame.sort_values(_KEYS, ignore_index=True)
            for frame in (measure(zoo, name, **settings), values)
        )
        rule(stored.equals(values), "its numbers are read from the zoo as they were computed")
