"""Mean corruption error: a classifier's error on corrupted images."""

from collections.abc import Iterable
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, NonNegativeFloat, model_validator

from vitarium.measures.base import EvalModel, Values, measure
from vitarium.measures.robustness import _perturbation as perturbation
from vitarium.measures.robustness._corruption_functions import CorruptionName, Strengths, corrupted

Severity = Literal[1, 2, 3, 4, 5]


class Corruptions(perturbation.Perturbing):
    """Which corruptions, how strong. All of them are 55 forward passes of each image."""

    names: Annotated[tuple[CorruptionName, ...], Field(min_length=1)] = get_args(CorruptionName)
    """Corruptions to apply; each counts the same in the mean error."""
    severities: Annotated[tuple[Severity, ...], Field(min_length=1)] = (1, 2, 3, 4, 5)
    """Severities, from 1 (weak) to 5 (strong), over which the mean error is taken."""
    strengths: Strengths = "auto"
    """Whose severities are used: those of CIFAR-10-C, of ImageNet-C, or of the one nearer in image
    size (auto: CIFAR-10-C below 85 pixels). Blurs are scaled to the image size."""
    reference: dict[str, NonNegativeFloat] = {}
    """Mean error of a reference model (e.g. AlexNet) by corruption, and `clean` for uncorrupted
    images: the result is relative to it, as in the paper. Empty: the plain mean error."""

    @model_validator(mode="after")
    def _reference_fits(self) -> Self:
        for kind in ("names", "severities"):
            listed = getattr(self, kind)
            if len(set(listed)) < len(listed):
                raise ValueError(f"{kind} says something twice: {', '.join(map(str, listed))}")
        unknown = set(self.reference) - set(self.names) - {"clean"}
        if unknown:
            raise ValueError(f"reference has {', '.join(sorted(unknown))}, which is not measured")
        missing = set(self.names) - set(self.reference)
        if self.reference and missing:
            raise ValueError(f"reference lacks {', '.join(sorted(missing))}")
        clean = self.reference.get("clean", 0.0)
        no_worse = [name for name, error in self.reference.items() if error <= clean]
        if easy := set(no_worse) - {"clean"}:
            above = f"no error above its clean {clean:g}"
            raise ValueError(f"reference has {above} for {', '.join(sorted(easy))}")
        return self


@measure(
    "corruptions",
    unit="error",
    part_units={"relative": "ratio"},
    title="corruption error",
    quick=False,
    paper="Hendrycks & Dietterich 2019, arXiv 1903.12261",
    tiny={"severities": [1, 5]},
)
def corruptions(config: Corruptions, subject: EvalModel) -> Values:
    """Mean corruption error: the error on images with noise, blur and other common corruptions.

    Parts: "" the mean over corruptions; "NAME" the mean over its severities; "NAME/SEVERITY" the
    error there; "clean" the error on the same images as they are; "increase" the mean of NAME
    minus clean. All are shares of images.

    With a `reference`: "NAME/relative" is the paper's CE, NAME divided by the reference's, and ""
    their mean (mCE); with the reference's `clean`, "relative" is the relative mCE.

    Noise is the same for every model, and for every severity but its strength.
    """
    subject.check_classifier()
    examples = subject.examples.first(config.num_images)
    cases = [(name, severity) for name in config.names for severity in config.severities]
    wrong, wrong_clean = dict.fromkeys(cases, 0), 0
    for batch in perturbation.pixel_batches(examples, config.batch_size):
        wrong_clean += int((perturbation.classes_of(subject, batch.pixels) != batch.labels).sum())
        for name, severity in cases:
            generators = perturbation.streams(config.seed, f"corruption/{name}", batch.indices)
            pixels = corrupted(batch.pixels, name, severity, generators, config.strengths)
            classes = perturbation.classes_of(subject, pixels)
            wrong[name, severity] += int((classes != batch.labels).sum())
    clean = wrong_clean / len(examples)
    errors = {case: count / len(examples) for case, count in wrong.items()}
    means = {n: _mean(errors[n, severity] for severity in config.severities) for n in config.names}
    values = {"clean": clean, "increase": _mean(means.values()) - clean}
    values |= means | {f"{name}/{severity}": error for (name, severity), error in errors.items()}
    if not config.reference:
        return values | {"": _mean(means.values())}
    ratios = {name: error / config.reference[name] for name, error in means.items()}
    values |= {"": _mean(ratios.values())}
    values |= {f"{name}/relative": ratio for name, ratio in ratios.items()}
    if "clean" in config.reference:
        base = config.reference["clean"]
        rises = [(means[name] - clean) / (config.reference[name] - base) for name in means]
        values["relative"] = _mean(rises)
    return values


def _mean(numbers: Iterable[float]) -> float:
    listed = list(numbers)
    return sum(listed) / len(listed)
