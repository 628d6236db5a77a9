"""After how many blocks images leave a model with early exits."""

from typing import Annotated, Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from vitarium.architectures.early_exit._rule import Criterion, ExitRule, first_exits
from vitarium.evaluation.features import blocks_of, evaluating
from vitarium.measures.base import Config, EvalModel, NotApplicable, Values, measure


class ExitDepth(Config):
    thresholds: tuple[Annotated[float, Field(ge=0, le=1)], ...] = ()
    """Thresholds to measure beside the model's own."""
    criterion: Criterion | None = None
    """Certainty that is compared with the thresholds: confidence, entropy or patience; null: the
    model's own."""
    per_image: bool = False
    """Also give the depth of each image at the model's own threshold."""
    num_images: PositiveInt = 10_000
    """Largest number of images of the split to look at."""


@measure(
    "exit_depth",
    unit="blocks",
    part_units={"accuracy": "fraction", "exit": "fraction"},
    held_out=True,
    paper="Xu et al. 2023, arXiv 2308.00255",
    tiny={"thresholds": (0.5,), "per_image": True},
)
def exit_depth(config: ExitDepth, subject: EvalModel) -> Values:
    """Mean number of blocks that images are computed by in a model with early exits; accuracy.

    Parts: "" and "accuracy" at the model's own threshold, "exit/3" the share of images that leave
    after block 3 there, "0.5" and "0.5/accuracy" at another threshold, "image/7" (`per_image`) the
    depth of the 7th image of the split, from 0. All exits are computed once, for all thresholds.
    Images leave a model without exits after its last block.
    """
    subject.check_classifier()
    images = subject.examples.first(config.num_images)
    if not len(images):
        raise NotApplicable("there are no images to classify")
    model: Any = subject.model
    rule = getattr(model, "exit_rule", None) or ExitRule(threshold=1.0)
    has_exits = hasattr(model, "exit_logits")
    depths = torch.tensor(model.exit_depths if has_exits else [len(blocks_of(model))])
    logits = _logits(subject, config.num_images, has_exits)
    criterion = config.criterion or rule.criterion
    rules = {"": rule} | {
        f"{value:g}": ExitRule(threshold=value, criterion=criterion) for value in config.thresholds
    }
    values: dict[str, float] = {}
    for part, chosen in rules.items():
        numbers = first_exits(chosen, logits)
        values[part] = depths[numbers].double().mean().item()
        outputs = logits[torch.arange(len(logits)), numbers]
        if has_exits and subject.examples.outputs.numbers:  # else the model gives the classes
            outputs = outputs[:, list(subject.examples.outputs.numbers)]
        correct = outputs.argmax(1) == images.labels
        values[f"{part}/accuracy" if part else "accuracy"] = correct.double().mean().item()
        if part:
            continue
        counts = numbers.bincount(minlength=len(depths)).double() / len(numbers)
        for depth, share in zip(depths.tolist(), counts.tolist(), strict=True):
            values[f"exit/{depth - 1}"] = share
        if config.per_image:
            own = zip(images.numbers.tolist(), depths[numbers].tolist(), strict=True)
            values |= {f"image/{image}": float(depth) for image, depth in own}
    return values


def _logits(subject: EvalModel, num_images: int, has_exits: bool) -> Tensor:
    """Of all exits and the head, float32 [n, exits + 1, classes], on the CPU.

    Raises NotApplicable where some are not finite.
    """
    model: Any = subject.model
    batches = subject.examples.first(num_images).batches()
    with torch.inference_mode(), evaluating(model):
        parts = [
            model.exit_logits(batch.images) if has_exits else model(batch.images).unsqueeze(1)
            for batch in batches
        ]
    logits = torch.cat(parts).float().cpu()
    if not logits.isfinite().all():
        raise NotApplicable(f"{subject.name}: its outputs are not finite")
    return logits
