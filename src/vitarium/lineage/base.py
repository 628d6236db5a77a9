"""The contract of methods of lineage recovery, and the decorator that registers one."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from vitarium.core.config import Config, NoConfig
from vitarium.core.registry import register
from vitarium.lineage.forest import Forest
from vitarium.lineage.model_set import ModelSet

Method = TypeVar("Method", bound=Callable[[Any, ModelSet, int | None], Forest])


def lineage(
    name: str,
    *,
    config: type[Config] = NoConfig,
    paper: str | None = None,
    tiny: Mapping[str, Any] = MappingProxyType({}),
) -> Callable[[Method], Method]:
    """Register a method of lineage recovery, a function `(config, model_set, trees) -> Forest`.

        @lineage("mother", config=MoTHer, paper="Horwitz et al. 2025, arXiv 2405.18432")
        def mother(config: MoTHer, model_set: ModelSet, trees: int | None) -> Forest: ...

    It is given K models with the same tensors (heads left out), their inner products and moments,
    and nothing else: names and the order of models mean nothing to it (`canonical_order` sorts
    them). `trees` is how many trees there are, None where that is not known.

    The forest has every model in the order given, in exactly one tree; trees are numbered from 0
    in order of appearance. Edges close no circle and stay within a tree; the shares of a model's
    parents add up to 1, and a model without a parent is in `roots`. Confidences are in [0, 1].
    Models with equal weights are in `tied`. It has as many trees as are asked for, and raises
    InvalidInput that says the number where that cannot be.

    A setting `roots` (names of models) is set to the true roots where the method is run for
    comparison and these are known (`recover`).

    `vitarium.testing.check_lineage(name)` checks all of this.

    Args:
        name: what it is called in Python and on the command line.
        config: its settings; every field has a docstring.
        paper: authors, year, title or arXiv id; None: it is from no paper.
        tiny: settings for the contract tests, where the defaults do not fit a dozen small models.
    """
    facts = {"tiny": dict(tiny)} | ({} if paper is None else {"paper": paper})
    return register("lineage", name, config, facts)
