"""Measure the models of a zoo; stored numbers are not computed again."""

import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitarium.core.devices import find_devices
from vitarium.core.errors import NotWritable, VitariumError, WriteFault
from vitarium.core.file_faults import check_writable
from vitarium.core.registry import choose, section
from vitarium.data.loader import SplitName
from vitarium.evaluation.checkpoints import Epochs, PairsName, targets
from vitarium.evaluation.checkpoints import pairs as pairs_of
from vitarium.evaluation.inputs import Values, finite
from vitarium.evaluation.loader import ModelLoader
from vitarium.measures._runner import settings as measure_settings
from vitarium.measures._runner.all_pairs import pairwise
from vitarium.measures._runner.forward import Forward
from vitarium.measures._runner.jobs import Conditions, Job, Refusal, jobs, key_of
from vitarium.measures._runner.settings import Measures
from vitarium.zoo import Zoo, records
from vitarium.zoo.records import Measured

if TYPE_CHECKING:
    import pandas as pd

Report = Callable[[int, int], None]
_SAVE_SECONDS = 1.0
_TABLE_COLUMNS = [name for name in records.COLUMNS if name not in ("images", "weights")]
_EMPTY = {"data": "", "split": "", "num_images": 0, "trained_on": False}


def measure(
    zoo: Zoo,
    measures: Measures,
    *,
    models: Iterable[str] | None = None,
    epochs: Epochs = "last",
    pairs: PairsName = "same-stage",
    split: SplitName = "test",
    images: int | None = None,
    data: str | Mapping[str, Any] | None = None,
    device: str = "auto",
    data_dir: Path | None = None,
    again: bool = False,
    force: bool = False,
    report: Report = lambda done, total: None,
    **settings: Any,
) -> "pd.DataFrame":
    """Measure models, or pairs of them, by registered measures; or read stored values.

        vitarium.measure(zoo, "accuracy")
        vitarium.measure(zoo, ["agreement", "cka"], pairs="same-parent", images=512)

    Args:
        measures: names (`vitarium plugins measure`), or sections with settings of their own.
        models: ids, or beginnings of them; None: every model that has weights.
        epochs: the last kept epoch of each, all kept ones, or some by their numbers.
        pairs: of measures of pairs: siblings, models of the same stage, or all.
        split: of the images.
        images: at most so many, of each class in proportion, the same for every model. Where a
            measure has a setting of that name, this is its value.
        data: a data set by name, or a mapping with its settings; None: each model's own.
        device: where models run: "cpu", "cuda:1"; "auto": on a GPU, if there is one.
        data_dir: dataset folder, searched first.
        again: recompute stored values.
        force: measure behavior on images that were trained on, too, and mark it.
        report: called with the number of finished jobs, and of all.
        settings: of the measures; of several, each takes those that it knows.

    Returns one row per number: model, epoch, other and other_epoch (the second of a pair), measure,
    settings (JSON), part ("": of the whole model), value, unit, data, split, num_images, trained_on
    and refused: why there is no value, if there is none.

    Where the zoo cannot be written, numbers are returned and not stored, with a warning (NotKept).

    Raises UnknownName, InvalidConfig, and InvalidInput for epochs that no model has; DiskFull.
    """
    sections = measure_settings.chosen(measures, settings, images)
    chosen = targets(zoo, models, epochs)
    pair_measures = [entry for entry in sections if entry.plugin.facts["of"] == "pair"]
    images_of = choose("dataset", data) if isinstance(data, str) else None
    if data is not None and images_of is None:
        images_of = section("dataset", data)
    sources = ModelLoader(zoo, data=images_of, device=find_devices(device)[0], data_dir=data_dir)
    run = _Run(zoo, sources, Conditions(split, images, force), report)
    todo = jobs(
        sources,
        sections,
        chosen,
        pairs_of(zoo, chosen, pairs) if pair_measures else [],
        run.conditions,
    )
    return run.all(todo, again=again)


class NotKept(UserWarning):
    """Measured values are not stored, since the zoo cannot be written."""


class _Run:
    """One call of `measure`."""

    def __init__(
        self,
        zoo: Zoo,
        sources: ModelLoader,
        conditions: Conditions,
        report: Report,
    ) -> None:
        self.zoo, self.sources, self.conditions, self.report = zoo, sources, conditions, report
        self.measured: list[Measured] = []
        self.refused: list[Refusal] = []
        self._weights = lru_cache(maxsize=1)(sources.weights)
        self._unsaved: list[Measured] = []
        self._saved = time.monotonic()
        self._keeps = True

    def all(self, requested: Iterable[Job | Refusal], *, again: bool) -> "pd.DataFrame":
        stored: dict[tuple[str, str], dict[object, list[Measured]]] = {}
        todo = []
        for job in requested:
            if isinstance(job, Refusal):
                self.refused.append(job)
                continue
            which = (job.section.name, job.settings)
            if which not in stored:
                stored[which] = {} if again else self._stored(which)
            if job_records := stored[which].get(job.key):
                self.measured += job_records
            else:
                todo.append(job)
        if todo:
            self._keeps = self._can_keep()
        self.report(0, len(todo))
        missing = {(job.section.name, job.settings): job.section for job in todo}
        self.forward = Forward(self.zoo, self.sources, self.conditions, list(missing.values()))
        try:
            self._measure(todo)
        finally:
            self._save()
        return _table(self.measured, self.refused)

    def _stored(self, which: tuple[str, str]) -> dict[object, list[Measured]]:
        by_job: dict[object, list[Measured]] = {}
        for record in records.find(self.zoo.path, *which):
            by_job.setdefault(key_of(record), []).append(record)
        return by_job

    def _measure(self, todo: Sequence[Job]) -> None:
        done = 0
        for kind, group in groupby(todo, key=_kind):
            if kind == ("pair", "weights"):
                values = pairwise(list(group), self.sources)
            else:
                values = ((job, partial(self._value, job)) for job in group)
            for job, compute in values:
                self._keep(job, compute)
                done += 1
                self.report(done, len(todo))
                if time.monotonic() - self._saved > _SAVE_SECONDS:
                    self._save()

    def _keep(self, job: Job, compute: Callable[[], Values]) -> None:
        try:
            measured = job.measured(compute())
        except WriteFault:
            raise
        except VitariumError as error:
            self.refused.append(Refusal(job.section, job.settings, job.of, str(error)))
            return
        self.measured += measured
        self._unsaved += measured

    def _can_keep(self) -> bool:
        """Whether numbers can be stored; warns beforehand if they are only returned."""
        try:
            check_writable(self.zoo.path / "records")
        except NotWritable as error:
            warnings.warn(f"numbers are not kept: {error}", NotKept, stacklevel=4)
            return False
        return True

    def _save(self) -> None:
        if self._keeps:
            records.add(self.zoo.path, self._unsaved)
        self._unsaved, self._saved = [], time.monotonic()

    def _value(self, job: Job) -> Values:
        """The values of a job. Raises NotApplicable, CorruptFile, ..."""
        facts, of, conditions = job.section.plugin.facts, job.of, self.conditions
        match _kind(job):
            case ("model", "weights"):
                return self._of_weights(job)
            case (_, "predictions") if splits := facts["splits"]:
                inputs: Any = [
                    {split: self.forward.predictions(target, split) for split in splits}
                    for target in of
                ]
            case (_, "predictions"):
                inputs = [self.forward.predictions(target, conditions.split) for target in of]
            case ("pair", "features"):
                return self.forward.similarity(job.section, *of)
            case _:
                inputs = [
                    self.sources.subject(target, conditions.split, conditions.limit)
                    for target in of
                ]
        values: Values = job.section(*inputs)
        return values

    def _of_weights(self, job: Job) -> Values:
        weights = self._weights(job.of[0])
        parts: Values = job.section(weights)
        values = parts.values() if isinstance(parts, Mapping) else [parts]
        if not all(map(math.isfinite, values)):
            for name, tensor in weights.items():
                finite(f"{weights.name}: {name}", tensor)
        return parts


def _kind(job: Job) -> tuple[str, str]:
    facts = job.section.plugin.facts
    return facts["of"], facts["needs"]


def _table(measured: Sequence[Measured], refused: Sequence[Refusal]) -> "pd.DataFrame":
    import pandas as pd

    columns = {name: [getattr(row, name) for row in measured] for name in _TABLE_COLUMNS}
    refusals = pd.DataFrame(
        [_refused(row) for row in refused], columns=[*_TABLE_COLUMNS, "refused"]
    )
    table = pd.DataFrame({**columns, "refused": ""})
    if refused:
        table = pd.concat([table, refusals], ignore_index=True) if measured else refusals
    types = {"epoch": "Int64", "other_epoch": "Int64", "num_images": "Int64", "value": "float64"}
    return table.astype(types)


def _refused(refusal: Refusal) -> dict[str, Any]:
    first, second = refusal.of[0], refusal.of[1] if len(refusal.of) > 1 else None
    return {
        "model": first.model,
        "epoch": first.epoch,
        "other": second.model if second else None,
        "other_epoch": second.epoch if second else None,
        "measure": refusal.section.name,
        "settings": refusal.settings,
        "part": "",
        "unit": refusal.section.plugin.facts["unit"],
        **_EMPTY,
        "refused": refusal.reason,
    }
