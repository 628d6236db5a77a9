"""Which models are scored on other evaluation sets than their plan names."""

from collections import Counter
from collections.abc import Iterator

from vitarium.blueprint import Plan
from vitarium.core.numerals import counted
from vitarium.core.parameters import parameter
from vitarium.zoo import Zoo


def unscored(zoo: Zoo, plan: Plan) -> Iterator[str]:
    """A line for each evaluation set of a plan on which models were not scored that were trained,
    or begun, before it was named; they stay as they are, so that all epochs have the same metrics.
    """
    models: Counter[str] = Counter()
    for spec in plan.models:
        sets, folder = spec.recipe.evaluate_on, zoo.folder(spec.id)
        if sets and folder.exists:
            recorded = folder.factors()["recipe"]["evaluate_on"]
            models.update(n for n, each in sets.items() if recorded.get(n) != each.factors())
    for name, count in models.items():
        yield (
            f"{counted(count, 'model')} of this plan began without the evaluation set '{name}', "
            f"and training will not score them on it; measure does: {parameter('data', 'NAME')}"
        )
