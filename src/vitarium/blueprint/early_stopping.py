"""When a recipe ends training before its last epoch."""

from collections.abc import Sequence

from pydantic import NonNegativeFloat, PositiveInt, field_validator

from vitarium.core.config import Config


class EarlyStopping(Config):
    """Training ends when a validation score has not become better for some epochs."""

    metric: str = "val_accuracy"
    """A score of the validation split, e.g. val_accuracy, or of a data set that `evaluate_on`
    names, e.g. v2_accuracy; of one that ends in `loss`, less is better, of all others more."""
    patience: PositiveInt = 5
    """Epochs in a row without a better score after which training ends."""
    min_delta: NonNegativeFloat = 0.0
    """By how much a score has to be better than the best before it."""

    @field_validator("metric", mode="after")
    @classmethod
    def _is_of_validation(cls, metric: str) -> str:
        images, _, score = metric.partition("_")
        if not score or images in ("train", "test", "epoch", "images"):
            example = "e.g. val_accuracy or val_loss"
            raise ValueError(f"'{metric}' is no score of the validation split; name one, {example}")
        return metric

    @property
    def images(self) -> str:
        """On which the score is computed: `val`, or the name of an evaluation set."""
        return self.metric.partition("_")[0]

    def best(self, scores: Sequence[float]) -> int:
        """Number (from 1) of the epoch with the best score, of those after epochs 1, 2, ...; 0:
        none is finite."""
        sign = -1 if self.metric.endswith("loss") else 1
        best_score, best_epoch = -float("inf"), 0
        for epoch, score in enumerate(scores, 1):
            if sign * score - self.min_delta > best_score:
                best_score, best_epoch = sign * score, epoch
        return best_epoch

    def verdict(self, scores: Sequence[float]) -> str:
        """Why training ends after these scores, of epochs 1, 2, ...; empty: it does not."""
        best = self.best(scores)
        if len(scores) - best < self.patience:
            return ""
        if not best:
            return f"stopped after epoch {len(scores)}: no {self.metric} was a number"
        score = f"{scores[best - 1]:.4g} in epoch {best}"
        return f"stopped after epoch {len(scores)}: no better {self.metric} than {score}"
