"""Accuracy of classes with many, a medium number of, and few training images."""

from pydantic import NonNegativeInt, model_validator

from vitarium.measures.base import Config, NotApplicable, Predictions, Values, measure
from vitarium.measures.predictions._share import share


class ClassGroupAccuracy(Config):
    """Where the groups begin, for data whose classes are ordered by their numbers of images, as the
    setting `imbalance` of data sets orders them."""

    edges: tuple[NonNegativeInt, NonNegativeInt] | None = None
    """Numbers of the first class (from 0) of the medium and of the few; none: thirds of the
    classes. Published: [3, 7] of CIFAR-10, [36, 71] of CIFAR-100, [390, 835] of ImageNet-LT."""

    @model_validator(mode="after")
    def _rising(self) -> "ClassGroupAccuracy":
        if self.edges and not 0 < self.edges[0] < self.edges[1]:
            raise ValueError(f"edges {list(self.edges)} have to rise, from 1 at least")
        return self


@measure(
    "class_group_accuracy",
    unit="fraction",
    paper="Liu et al. 2019, arXiv 1904.05160; Rangwani et al. 2024, CVPR",
)
def class_group_accuracy(config: ClassGroupAccuracy, predictions: Predictions) -> Values:
    """Accuracy on classes with many, a medium number of, and few training images; "": on all.

    Parts: "many", "medium" and "few", each the share of right images of the group's classes.
    """
    classes = predictions.logits.shape[1]
    first, second = config.edges or (round(classes / 3), round(2 * classes / 3))
    if not 0 < first < second < classes:
        raise NotApplicable(f"edges {first} and {second} make no three groups of {classes} classes")
    labels, values = predictions.labels, {"": share(predictions.correct)}
    bounds = {"many": (0, first), "medium": (first, second), "few": (second, classes)}
    for name, (start, end) in bounds.items():
        inside = (labels >= start) & (labels < end)
        if not inside.any():
            raise NotApplicable(f"no image is of the classes with {name} training images")
        values[name] = share(predictions.correct[inside])
    return values
