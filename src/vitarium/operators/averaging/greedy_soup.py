"""The greedy soup: the best model, and every other that does not make the mean worse."""

import torch
from pydantic import PositiveInt
from torch import Tensor

from vitarium.core.config import Config
from vitarium.core.numerals import counted
from vitarium.evaluation.batch_statistics import is_statistic, recount
from vitarium.evaluation.inputs import Weights
from vitarium.evaluation.scoring import Scorer, load
from vitarium.operators.base import Ingredients, NamedTensors, checked, operator


class GreedySoup(Config):
    strict: bool = False
    """Keep an ingredient only if the accuracy rises; false: also if it stays the same, as in the
    paper."""
    num_images: PositiveInt | None = None
    """Largest number of held-out images to use; none: the whole split."""
    batch_size: PositiveInt = 256
    """Images per forward pass; affects memory and speed only."""


@operator(
    "greedy_soup",
    title="Greedy soup",
    split="val",
    paper="Wortsman et al. 2022, arXiv 2203.05482, Algorithm 1",
    tiny={"num_images": 32, "batch_size": 16},
)
def greedy_soup(config: GreedySoup, ingredients: Ingredients) -> NamedTensors:
    """Greedy soup: add models from the best on, keeping those that do not lower held-out accuracy.

    Yields (name, tensor [*shape]) in float64. Every model is read twice, to be scored alone and
    then to be tried; of equal accuracy the one of lower loss comes first, then the earlier name. In
    memory are the sum in float64, the model that is tried (mapped, unless packed), and one running.
    """
    examples, log = ingredients.examples(), ingredients.log
    scorer = Scorer(ingredients.model(), examples, config.num_images, config.batch_size)
    tries, scores = 2 * len(ingredients) - 1, []
    for number in range(len(ingredients)):
        ingredients.report(number, tries)
        load(scorer.model, _statistics(ingredients[number]))
        scores.append(scorer.score(_read(ingredients, number)))
    order = sorted(
        range(len(ingredients)),
        key=lambda n: (-scores[n].accuracy, scores[n].loss, ingredients.names[n]),
    )
    best, score = order[0], scores[order[0]]
    sums = {name: tensor.to(torch.float64, copy=True) for name, tensor in _read(ingredients, best)}
    members, added = [best], dict[str, Tensor]()

    def with_model(number: int) -> NamedTensors:
        """The mean with one model more, which is then in `added`."""
        for name, tensor in _read(ingredients, number):
            added[name] = tensor
            yield name, sums[name].add(tensor).div_(len(members) + 1)

    lines = [f"starts from the best single model, {ingredients.names[best]} ({score.accuracy:.4f})"]
    for done, number in enumerate(order[1:], len(ingredients)):
        ingredients.report(done, tries)
        name = ingredients.names[number]
        load(scorer.model, with_model(number))
        recount(scorer.model, examples)
        tried = scorer.score_as_it_is()
        better = tried.accuracy > score.accuracy
        if better or (tried.accuracy == score.accuracy and not config.strict):
            for part, tensor in added.items():
                sums[part] += tensor
            change = "rises to" if better else "stays at"
            lines.append(f"adds {name}: accuracy {change} {tried.accuracy:.4f}")
            score = tried
            members.append(number)
        else:
            change = "stay at" if tried.accuracy == score.accuracy else "fall to"
            lines.append(f"leaves out {name}: accuracy would {change} {tried.accuracy:.4f}")
    averaged = f"mean of {len(members)} of {counted(len(ingredients), 'model')}"
    split = {"val": "validation"}.get(examples.split, examples.split)
    log.lines += [f"{averaged}: {split} accuracy {score.accuracy:.4f}", *lines]
    log.metrics.update(score.metrics(examples.split))
    ingredients.share([float(number in members) for number in range(len(ingredients))])
    for name, total in sums.items():
        yield name, total / len(members)


def _statistics(model: Weights) -> dict[str, Tensor]:
    return {name: model[name] for name in filter(is_statistic, model)}


def _read(ingredients: Ingredients, number: int) -> NamedTensors:
    """One model, tensor by tensor. Raises IncompatibleWeights, CorruptFile."""
    model = ingredients[number]
    model.read_ahead(list(ingredients.shapes))
    for name in ingredients.shapes:
        yield name, checked(model, name)
