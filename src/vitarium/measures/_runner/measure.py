"""Measure the models of a zoo; stored numbers are not computed again."""

import math
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitarium.core.devices import find_devices
from vitarium.core.errors import (
    InvalidInput,
    NotApplicable,
    NotKept,
    NotWritable,
    VitariumError,
    WriteFault,
)
from vitarium.core.file_faults import check_writable
from vitarium.core.progress import SILENT, Progress
from vitarium.core.registry import Section, choose, section
from vitarium.data.loader import SplitName, check_images
from vitarium.data.preprocessing import Assumed
from vitarium.evaluation.checkpoints import Epochs, PairsName, pairs_of, targets
from vitarium.evaluation.inputs import Values, finite
from vitarium.evaluation.loader import ModelLoader
from vitarium.measures._runner.forward import Forward
from vitarium.measures._runner.jobs import Conditions, Job, Measures, jobs, key_of, sections_of
from vitarium.zoo import Zoo, records
from vitarium.zoo.listing import select
from vitarium.zoo.model import ModelNames
from vitarium.zoo.records import Measured

if TYPE_CHECKING:
    import pandas as pd

_SAVE_SECONDS = 1.0


def measure(
    zoo: Zoo | str | Path,
    measures: Measures,
    *,
    models: ModelNames | None = None,
    where: str = "",
    epochs: Epochs = "last",
    pairs: PairsName = "same-stage",
    split: SplitName = "test",
    num_images: int | None = None,
    data: str | Section | Mapping[str, Any] | None = None,
    normalization: Assumed | None = None,
    device: str = "auto",
    data_dir: Path | None = None,
    overwrite: bool = False,
    force: bool = False,
    progress: Progress = SILENT,
    **settings: Any,
) -> "pd.DataFrame":
    """Measure models, or pairs of them, by registered measures; or read stored values.

        vitarium.measure(zoo, "accuracy")
        vitarium.measure(zoo, ["agreement", "cka"], pairs="same-parent", num_images=512)

    Args:
        measures: names (`vitarium plugins measure`), or sections with settings of their own.
        models: ids, or beginnings of them; None: every model that has weights.
        where: of these, only models that fulfill this condition, as `vitarium ls` has it.
        epochs: the last kept epoch of each, all kept ones, or some by their numbers; `ID@3` is
            the model after epoch 3 in any case.
        pairs: of measures of pairs: siblings, models of the same stage, or all.
        split: of the images.
        num_images: at most so many, of each class in proportion, the same for every model; and
            the value of the setting of that name, where a measure has one.
        data: a data set by name, or a mapping with its settings; None: each model's own.
        normalization: mean and std of the pixels in [0, 1], as `(0.5, 0.5)` or per channel, for
            imported models of which it is not known; "data": the data set's; None: they are
            refused.
        device: where models run: "cpu", "cuda:1"; "auto": on a GPU, if there is one.
        data_dir: dataset folder, searched first.
        overwrite: recompute stored values.
        force: measure behavior on images that were trained on, too, and mark it.
        progress: takes a step "measuring" for each finished number.
        settings: of the measures; of several, each takes those that it knows.

    Returns one row per number: model, epoch, other and other_epoch (the second of a pair), measure,
    settings (JSON), part ("": of the whole model), value, unit, data, split, num_images, trained_on
    and refused: why there is no value, if there is none. `attrs` of the table: `final`, names of
    the measures whose rows are the same as long as the zoo does not change, and `written`, names
    of the files of records with those that are new. Where the zoo cannot be written, numbers are
    not stored, with a warning (NotKept).

    Raises UnknownName, InvalidConfig, and InvalidInput for epochs that no model has; DiskFull.
    """
    check_images(split, num_images)
    zoo = Zoo.open(zoo)
    sections = sections_of(measures, settings, num_images)
    chosen = targets(zoo, select(zoo, models, where), epochs)
    dataset = choose("dataset", data) if isinstance(data, str) else None
    if data is not None and dataset is None:
        dataset = section("dataset", data)
    where_to: dict[str, Any] = {"device": find_devices(device)[0], "data_dir": data_dir}
    loader = ModelLoader(zoo, data=dataset, normalization=normalization, **where_to)
    any_pairs = any(entry.plugin.facts["of"] == "pair" for entry in sections)
    both = pairs_of(zoo, chosen, pairs) if any_pairs else []
    if any_pairs and not both:
        _without_pairs(sections, pairs)
    conditions = Conditions(split, num_images, force)
    requested = jobs(loader, sections, chosen, both, conditions)
    return _Run(loader, conditions, progress).table(requested, overwrite)


def _without_pairs(sections: Sequence[Section], pairs: str) -> None:
    """Raises InvalidInput where nothing can be measured; else warns of what cannot."""
    names = [section.name for section in sections if section.plugin.facts["of"] == "pair"]
    fault = (
        f"{', '.join(names)}: measured of pairs of models, and among those chosen there is no pair "
        f"({pairs}); choose more models, or pairs of all"
    )
    if len(names) == len(sections):
        raise InvalidInput(fault)
    warnings.warn(fault, stacklevel=3)


class _Run:
    """One call of `measure`."""

    def __init__(self, loader: ModelLoader, conditions: Conditions, progress: Progress) -> None:
        self.loader, self.conditions, self.progress = loader, conditions, progress
        self.zoo = loader.zoo.path
        self._weights = lru_cache(maxsize=1)(loader.weights)
        self.measured: list[Measured] = []
        self.refused: list[tuple[Measured, str]] = []
        """Records without a value, and why there is none."""
        self._unsaved: list[Measured] = []
        self._written: list[str] = []
        self._saved, self._keeps = time.monotonic(), True
        self._not_final: set[str] = set()
        """Measures that refused for a reason that may go away though the zoo does not change."""

    def table(self, requested: Iterable[Job], overwrite: bool) -> "pd.DataFrame":
        """Stored values of the jobs, and those of the others, which are computed."""
        stored: dict[tuple[str, str], dict[object, list[Measured]]] = {}
        needs: dict[str, str] = {}
        todo = []
        for job in requested:
            which = (job.section.name, job.settings)
            needs[job.section.name] = job.section.plugin.facts["needs"]
            if job.refused:
                self._refuse(job, job.refused)
                continue
            if which not in stored:
                stored[which] = defaultdict(list)
                for record in () if overwrite else records.find(self.zoo, *which):
                    stored[which][key_of(record)].append(record)
            if job.key in stored[which]:
                self.measured += stored[which][job.key]
            else:
                todo.append(job)
        if todo:
            try:
                check_writable(self.zoo / "records")
            except NotWritable as error:
                warnings.warn(f"numbers are not kept: {error}", NotKept, stacklevel=3)
                self._keeps = False
        missing = {(job.section.name, job.settings): job.section for job in todo}
        self.forward = Forward(self.loader, self.conditions, list(missing.values()))
        try:
            self._measure(todo)
        finally:
            self._save()
        import pandas as pd

        rows = [*self.measured, *(record for record, _ in self.refused)]
        names = [name for name in records.COLUMNS if name not in ("images", "weights")]
        table = pd.DataFrame({name: [getattr(row, name) for row in rows] for name in names})
        table["refused"] = [""] * len(self.measured) + [reason for _, reason in self.refused]
        table.attrs["written"] = self._written
        table.attrs["final"] = self._final(needs)
        numbers = ("epoch", "other_epoch", "num_images")
        return table.astype(dict.fromkeys(numbers, "Int64") | {"value": "float64"})

    def _final(self, needs: Mapping[str, str]) -> list[str]:
        """Of the measures, by what each needs, those whose rows follow from the zoo alone."""
        settled = self.loader.data_is_fixed and not self.loader.by_number  # of which it warns
        final = [name for name in needs if settled or needs[name] == "weights"]
        return [name for name in final if self._keeps and name not in self._not_final]

    def _measure(self, todo: Sequence[Job]) -> None:
        done = 0
        self.progress.step("measuring", 0, len(todo))
        kinds = groupby(todo, lambda job: [job.section.plugin.facts[of] for of in ("of", "needs")])
        for kind, group in kinds:
            of_kind = list(group)
            all_pairs = kind == ["pair", "weights"]
            value_of = _pairwise(of_kind, self.loader) if all_pairs else self._value
            for job in of_kind:
                try:
                    measured = job.measured(value_of(job))
                    self.measured += measured
                    self._unsaved += measured
                except WriteFault:
                    raise
                except VitariumError as error:
                    self._refuse(Job(job.section, job.settings, job.of), error)
                done += 1
                self.progress.step("measuring", done, len(todo))
                if time.monotonic() - self._saved > _SAVE_SECONDS:
                    self._save()

    def _refuse(self, job: Job, reason: VitariumError) -> None:
        self.refused.append((job.record(), str(reason)))
        if not isinstance(reason, NotApplicable):
            self._not_final.add(job.section.name)

    def _save(self) -> None:
        if self._keeps:
            self._written += records.add(self.zoo, self._unsaved)
        self._unsaved, self._saved = [], time.monotonic()

    def _value(self, job: Job) -> Values:
        """The values of a job. Raises NotApplicable, CorruptFile, ..."""
        facts, conditions, forward = job.section.plugin.facts, self.conditions, self.forward
        inputs: list[Any]
        match facts["of"], facts["needs"]:
            case "model", "weights":
                inputs = [self._weights(job.of[0])]
            case _, "predictions" if splits := facts["splits"]:
                inputs = [{s: forward.predictions(ref, s) for s in splits} for ref in job.of]
            case _, "predictions":
                inputs = [forward.predictions(ref, conditions.split) for ref in job.of]
            case "pair", "features":
                return forward.similarity(job.section, *job.of)
            case _:
                subject, split, limit = self.loader.subject, conditions.split, conditions.limit
                inputs = [subject(ref, split, limit) for ref in job.of]
        values: Values = job.section(*inputs)
        if facts["needs"] == "weights":
            numbers = values.values() if isinstance(values, Mapping) else [values]
            if not all(map(math.isfinite, numbers)):
                for name, tensor in inputs[0].items():
                    finite(f"{inputs[0].name}: {name}", tensor)
        return values


def _pairwise(todo: Sequence[Job], loader: ModelLoader) -> Callable[[Job], Values]:
    """Gives values of pairs of weights; the first job of a measure computes all pairs."""
    refs = list(dict.fromkeys(ref for job in todo for ref in job.of))
    index = {ref: number for number, ref in enumerate(refs)}
    models = [loader.weights(ref) for ref in refs]
    matrices: dict[tuple[str, str], tuple[list[str], np.ndarray]] = {}
    """By measure and settings: parts, and all values, float64 [parts, models, models]."""

    def values_of(job: Job) -> Values:
        which = (job.section.name, job.settings)
        if which not in matrices:
            by_part = job.section(models)
            stacked = np.stack([matrix.numpy() for matrix in by_part.values()])
            matrices[which] = list(by_part), stacked
        parts, all_values = matrices[which]
        first, second = (index[ref] for ref in job.of)
        values = dict(zip(parts, all_values[:, first, second].tolist(), strict=True))
        if np.isnan(values[""]):
            reason = job.section.plugin.facts["reason"]
            raise NotApplicable(str(reason(job.section.config, models[first], models[second])))
        # parts that only one of the two has, or that are zero
        return {part: value for part, value in values.items() if not np.isnan(value)}

    return values_of
