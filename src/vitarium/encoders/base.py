"""The contract of weight encoders; all that one needs is imported from here."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import Tensor

from vitarium.core.config import Config, NoConfig
from vitarium.core.errors import NotApplicable
from vitarium.core.registry import contract, register
from vitarium.evaluation.inputs import Weights

__all__ = ["Config", "NoConfig", "NotApplicable", "Weights", "weight_encoder"]

RUNNER_OPTIONS: tuple[str, ...] = ("zoo", "encoder", "models", "where", "epochs", "progress")
"""Of `vitarium.encode`: no setting of an encoder is called like one."""
Encoder = TypeVar("Encoder", bound=Callable[[Any, Weights], Tensor])


@contract
def weight_encoder(
    name: str,
    *,
    title: str,
    paper: str = "",
    any_architecture: bool = False,
    standardize: bool = False,
    tiny: Mapping[str, Any] = {},
) -> Callable[[Encoder], Encoder]:
    """Register a function `(config, weights) -> vector` as the weight encoder called `name`.

    `weights` are those of a model's backbone by name: all but its head, or all of them where the
    model's architecture is not known. Each tensor is read when it is asked for, so memory need not
    hold more than one. `weights.skeleton` is the model without memory, for what names do not say
    (how many heads an attention has). The vector is a tensor of real numbers [dim], kept as
    float32, of which the Euclidean distances say how unlike models are.

    An encoder is deterministic: the same weights and settings give the same bits. Random numbers
    are derived from a seed among its settings, and weights of its own are named among them by what
    they hold, such as a checksum, since vectors are kept with the zoo under the settings alone.
    Where a model has no vector it raises NotApplicable that says why.

    Args:
        title: what the page and figures call it.
        paper: authors, year, and where it is, e.g. "Unterthiner et al. 2020, arXiv 2002.11448".
        any_architecture: whether vectors of models with other tensors can be compared. Else only
            those of models whose tensors have the same names are, and in any case only vectors of
            the same length.
        standardize: whether the vector's entries are of different units or sizes, so that each is
            given mean 0 and deviation 1 over the models before distances are taken.
        tiny: settings with which it takes a second at most, for
            `vitarium.testing.check_weight_encoder`.

    Raises TypeError, at import, for a fact that is misspelled or missing.
    """
    facts: dict[str, Any] = {"any_architecture": any_architecture, "standardize": standardize}
    return register(
        "weight_encoder",
        name,
        reserved=RUNNER_OPTIONS,
        title=title,
        paper=paper,
        tiny=tiny,
        **facts,
    )
