"""Whether the mean of twins of several originals is as good as they are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vitarium.blueprint import CheckpointRef
from vitarium.core.errors import VitariumError
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import Predictions, check_predictions
from vitarium.evaluation.loader import ModelLoader
from vitarium.measures._runner.cache import Cache
from vitarium.operators._runner.plan import MergePlan
from vitarium.studies.base import Population
from vitarium.studies.twins.comparison import Family, Member


@dataclass(frozen=True)
class TwinSoup:
    """Twins of one method whose originals are children of one parent, and the mean of them.

    Args:
        soup, originals_soup: predictions of the means of their weights.
        why: there is no soup.
    """

    method: str
    parent: str
    twins: Sequence[Member]
    originals: Sequence[Member]
    soup: Predictions | None = None
    originals_soup: Predictions | None = None
    why: str = ""

    @property
    def accuracies(self) -> list[float]:
        """Of the twins."""
        return [twin.accuracy for twin in self.twins if twin.accuracy is not None]

    @property
    def mean(self) -> float:
        return float(np.mean(self.accuracies))


def twin_soups(
    population: Population, loader: ModelLoader, families: Sequence[Family], limit: int
) -> list[TwinSoup]:
    """Of every group of two twins or more of one method and of equal shapes, or of the first
    `limit` of them."""
    groups: dict[tuple[str, str, str], list[tuple[Member, Member]]] = {}
    for family in families:
        spec = population.zoo.spec(family.original.ref.model)
        for twin in family.comparable if spec.parent else ():
            assert twin.twin
            key = (twin.twin.method, spec.parent or "", _shapes(loader, twin.ref))
            groups.setdefault(key, []).append((family.original, twin))
    chosen = {key: pairs[:limit] for key, pairs in sorted(groups.items()) if len(pairs) > 1}
    soups = []
    for done, ((method, parent, _), pairs) in enumerate(chosen.items()):
        population.progress.step("averaging twins", done, len(chosen))
        originals, twins = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        try:
            averaged, reference = (_soup(population, loader, m) for m in (twins, originals))
        except VitariumError as error:
            soups.append(TwinSoup(method, parent, twins, originals, why=str(error)))
        else:
            soups.append(TwinSoup(method, parent, twins, originals, averaged, reference))
    return soups


def _shapes(loader: ModelLoader, ref: CheckpointRef) -> str:
    return repr(sorted(loader.weights(ref).shapes.items()))


def _soup(population: Population, loader: ModelLoader, members: Sequence[Member]) -> Predictions:
    """Of the mean of their weights, from the zoo's cache if they are known.

    Raises IncompatibleWeights, InvalidInput, NotApplicable, CorruptFile.
    """
    refs = tuple(member.ref for member in members)
    plan = MergePlan(loader, choose("operator", "uniform_soup"), refs)
    examples = loader.examples(refs[0].model, population.split, population.num_images)
    contents = [loader.content(ref) for ref in refs]
    key = ("merged", plan.spec.id, *contents, loader.images(examples))
    cache = Cache(population.zoo.path)
    if (cached := cache.get(*key)) is None:
        model = plan.spec.origin.build(plan.about.num_outputs)
        model.load_state_dict(plan.weights())
        model = examples.in_class_order(model).eval().float().to(loader.device)
        with torch.inference_mode():
            outputs = [model(batch.images).float().cpu() for batch in examples.batches()]
        cached = {"logits": torch.cat(outputs)}
        cache.put(cached, *key)
    predictions = Predictions(cached["logits"], examples.labels, examples.dataset.classes)
    check_predictions(predictions)
    return predictions
