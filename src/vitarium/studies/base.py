"""The contract of studies: a population of models in, tables out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from vitarium.core import registry
from vitarium.core.errors import InvalidInput
from vitarium.core.progress import SILENT, Progress
from vitarium.core.registry import contract, register
from vitarium.data.loader import SplitName
from vitarium.data.preprocessing import Assumed
from vitarium.studies.report.figures import Figure
from vitarium.studies.report.tables import Section, Sentences, Table, Tables
from vitarium.zoo import Zoo
from vitarium.zoo.listing import listing

__all__ = ["Figure", "Population", "Progress", "Section", "Sentences", "Table", "Tables", "study"]

F = TypeVar("F", bound=Callable[..., Tables])
RUNNER_OPTIONS: tuple[str, ...] = ("zoo", "directory", "name", "out", "figures", "exports", "set")
RUNNER_OPTIONS += ("help", "models", "where", "split", "num_images", "device", "data_dir")
RUNNER_OPTIONS += ("data", "data_set", "normalization", "progress", "csv")
"""Of `vitarium.study` and `vitarium study`: no setting of a study is called like one of them."""


@dataclass(frozen=True)
class Population:
    """The models that a study is about, and where it may run them.

    Args:
        source: a zoo or its folder; for a study of weights also a folder of weight files.
        models: of a zoo, only these, by their ids or beginnings of them; None: all.
        where: an SQL condition on the models of a zoo, as `vitarium ls` has it.
        split, num_images: whose images models are measured on, and at most how many.
        data_dir: data set folder, searched first.
        data, normalization: as of `vitarium.measure`.
    """

    source: Zoo | Path
    where: str = ""
    split: SplitName = "test"
    num_images: int | None = None
    device: str = "auto"
    data_dir: Path | None = None
    progress: Progress = SILENT
    models: tuple[str, ...] | None = None
    data: registry.Section | None = None
    normalization: Assumed | None = None

    @property
    def name(self) -> str:
        path = self.source.path if isinstance(self.source, Zoo) else self.source
        return path.resolve().name

    @cached_property
    def zoo(self) -> Zoo:
        """Raises NotAZoo."""
        return Zoo.open(self.source)

    @cached_property
    def ids(self) -> list[str]:
        """Of the models that fulfill the condition.

        Raises InvalidInput where none of them is finished, or the condition is no SQL; UnknownName.
        """
        models = None if self.models is None else [self.zoo.find(model) for model in self.models]
        rows = listing(self.zoo.path, models=models, where=self.where).rows
        if not any(row["status"] == "finished" for row in rows):
            condition = f" fulfills the condition {self.where}" if self.where else ""
            raise InvalidInput(f"{self.zoo.path}: no finished model{condition}")
        return [row["model"] for row in rows]


@contract
def study(
    name: str,
    *,
    title: str,
    of: Literal["zoo", "weights", "records"] = "zoo",
    exports: Mapping[str, Callable[[Any, Path], None]] = {},
    paper: str = "",
    prepare: Callable[[Zoo], None] | None = None,
    tiny: Mapping[str, Any] = {},
) -> Callable[[F], F]:
    """Register a function `(config, population: Population) -> Tables` as the study called `name`.

    It computes tables, as pandas DataFrames with a title and a note each, and may add sentences and
    figures about them. `vitarium study NAME` runs it, with an option for each field of `config`,
    and one report makes a page, files of its figures, and lines for the terminal of what it
    returns. The first line of its docstring says what the study answers; the rest is the help of
    its command, with examples below `Examples:`.

    A study is deterministic: the same models and settings give the same page. What it measures is
    kept in the zoo; it adds no model to it. Where there is nothing to study it raises InvalidInput,
    before anything is computed where it can.

    Args:
        title: of its page, before the name of the population, e.g. "Diversity".
        of: "zoo": it runs models on images, and so has the options `--split`, `--num-images`,
            `--data`, `--device` and `--data-dir`; "weights": it needs weights only, and so takes a
            folder of weight files as well; "records": it reads what is known of a zoo's models.
        exports: further files that it can write, by the name of the option, each from what the
            study returned: `{"json": write_json}`. The first line of the docstring is the help.
        paper: authors, year, and where it is.
        prepare: adds to a zoo of a few tiny models what the study is about, for
            `vitarium.testing.check_study`; None: it is about any models.
        tiny: settings with which it takes some seconds on a few tiny models, for
            `vitarium.testing.check_study`.

    Raises TypeError, at import, for a fact that is misspelled or missing.
    """
    if taken := set(exports) & set(RUNNER_OPTIONS):
        raise TypeError(f"study '{name}': call the exports {sorted(taken)} otherwise")
    if not title:
        raise TypeError(f"study '{name}': give it a title")
    facts: dict[str, Any] = {"title": title, "of": of, "exports": exports, "paper": paper}
    facts |= {"prepare": prepare, "tiny": tiny}
    return register("study", name, reserved=RUNNER_OPTIONS, **facts)
