"""A model on a trained curve between two models, where the straight line rises."""

import torch
from pydantic import Field, PositiveInt

from vitarium.evaluation.inputs import EvalModel
from vitarium.evaluation.scoring import check_classifier, load
from vitarium.measures.landscape._paths import bezier as point_of
from vitarium.measures.landscape.mode_connectivity import CurveTraining, ModeConnectivity, curve
from vitarium.operators.base import Ingredients, NamedTensors, checked, in_float64, operator


class Bezier(CurveTraining):
    t: float = Field(default=0.5, ge=0, le=1)
    """Position on the curve: 0 gives the first model, 1 the second."""
    num_images: PositiveInt = 50_000
    """Largest number of training images on which the curve is trained, without augmentation."""
    batch_size: PositiveInt = 64
    """Images per training step."""


@operator(
    "bezier",
    title="Bezier curve",
    paper="Garipov et al. 2018, arXiv 1802.10026",
    ordered=True,
    models=(2, 2),
    split="train",
    tiny={"num_images": 32, "batch_size": 16, "steps": 2},
)
def bezier(config: Bezier, ingredients: Ingredients) -> NamedTensors:
    """A point on a low-loss Bezier curve trained between two models.

    Yields (name, tensor [*shape]). The curve begins as the straight line, and is trained as the
    measure `mode_connectivity` does it; between equal models there is no way to go. Raises
    IncompatibleWeights, and NotApplicable for models between which nothing lies.
    """
    ingredients.share([1 - config.t, config.t])
    first, second = (
        {name: checked(model, name) for name in ingredients.shapes} for model in ingredients
    )
    if all(torch.equal(tensor, second[name]) for name, tensor in first.items()):
        yield from first.items()
        return
    examples = ingredients.examples()
    subjects = []
    for weights, state in zip(ingredients, (first, second), strict=True):
        model = ingredients.model()
        load(model, state)
        subjects.append(EvalModel(weights.name, model, examples))
    check_classifier(subjects[0].model, examples)
    shared = config.model_dump(include=set(CurveTraining.model_fields))
    images = {"train_images": config.num_images, "train_batch_size": config.batch_size}
    trained = ModeConnectivity(**shared, **images)
    controls = [in_float64(control) for control in curve(subjects[0], subjects[1], trained)]
    point = point_of(controls, config.t)
    for name in ingredients.shapes:
        yield name, point[name].cpu()
