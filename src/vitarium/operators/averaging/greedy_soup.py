"""The greedy soup: the best model, and every other that does not make the mean worse."""

from collections.abc import Iterator

import torch
from pydantic import PositiveInt
from torch import Tensor

from vitarium.core.config import Config
from vitarium.evaluation.scoring import Score, Scorer, load
from vitarium.operators.base import Ingredients, NamedTensors, checked, operator


class GreedySoup(Config):
    """By what an ingredient is kept."""

    strict: bool = False
    """Keep an ingredient only where the accuracy rises; false: also where it stays (the paper)."""
    images: PositiveInt | None = None
    """At most so many held-out images; none: all of the split."""
    batch_size: PositiveInt = 256
    """Images at a time; it changes nothing but memory and speed."""


@operator(
    "greedy_soup",
    title="Greedy soup",
    config=GreedySoup,
    split="val",
    paper="Wortsman et al. 2022, arXiv 2203.05482, Algorithm 1",
    tiny={"images": 32, "batch_size": 16},
)
def greedy_soup(config: GreedySoup, ingredients: Ingredients) -> NamedTensors:
    """Mean of those models, added from the best on, that do not lower held-out accuracy.

    Yields (name, tensor [*shape]) in float64. Every model is read twice, to be scored alone and
    then to be tried; of equal accuracy the one of lower loss comes first, then the earlier name. In
    memory are the sum in float64, the model that is tried (mapped, where its file is not packed),
    and the one that runs.
    """
    scorer = Scorer(ingredients.model(), ingredients.examples(), config.images, config.batch_size)
    tries = 2 * len(ingredients) - 1
    individual_scores: list[tuple[float, float, str, int]] = []
    for number, model in enumerate(ingredients):
        ingredients.report(number, tries)
        score = scorer.score(_read(ingredients, number))
        individual_scores.append((-score.accuracy, score.loss, model.name, number))
    (minus_accuracy, loss, name, best), *rest = sorted(individual_scores)
    soup, score = Soup(ingredients, best), Score(-minus_accuracy, loss)
    split = scorer.examples.split
    ingredients.log.lines.append(f"{name} alone: {split} accuracy {score.accuracy:.4f}")
    for done, (_, _, name, number) in enumerate(rest, len(ingredients)):
        ingredients.report(done, tries)
        load(scorer.model, soup.tried(number))
        tried = scorer.score_as_it_is()
        better = tried.accuracy > score.accuracy
        if better or (tried.accuracy == score.accuracy and not config.strict):
            soup.keep()
            score = tried
            ingredients.log.lines.append(f"with {name}: {score.accuracy:.4f}")
        else:
            ingredients.log.lines.append(f"not with {name}: {tried.accuracy:.4f}")
    ingredients.log.metrics.update(score.metrics(split))
    yield from soup.mean()


class Soup:
    """The running mean of the models that are kept, begun with one of the ingredients."""

    def __init__(self, ingredients: Ingredients, first: int) -> None:
        self._ingredients, self.count = ingredients, 1
        self._sum = {
            name: tensor.to(torch.float64, copy=True) for name, tensor in _read(ingredients, first)
        }
        self._added: dict[str, Tensor] = {}

    def tried(self, number: int) -> Iterator[tuple[str, Tensor]]:
        """The mean with one model more, tensor [*shape] by tensor; `keep` makes it the soup."""
        self._added = {}
        for name, tensor in _read(self._ingredients, number):
            self._added[name] = tensor
            yield name, self._sum[name].add(tensor).div_(self.count + 1)

    def keep(self) -> None:
        for name, tensor in self._added.items():
            self._sum[name] += tensor
        self.count += 1

    def mean(self) -> Iterator[tuple[str, Tensor]]:
        """The soup, float64 [*shape] by name."""
        for name, total in self._sum.items():
            yield name, total / self.count


def _read(ingredients: Ingredients, number: int) -> Iterator[tuple[str, Tensor]]:
    """One model, tensor by tensor. Raises IncompatibleWeights, CorruptFile."""
    model = ingredients[number]
    model.read_ahead(list(ingredients.shapes))
    for name in ingredients.shapes:
        yield name, checked(model, name)
