"""Give models of a zoo compact students: converted by an operator, and taught by the original."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitarium.blueprint import check_stage_name
from vitarium.compression._students import Students
from vitarium.compression.comparison import compare
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import InvalidInput
from vitarium.core.parameters import parameter
from vitarium.core.progress import SILENT, Progress
from vitarium.core.registry import Section, choose
from vitarium.data.preprocessing import Assumed
from vitarium.engine.growth import Growth
from vitarium.operators._runner.merge_grid import members
from vitarium.zoo import Zoo
from vitarium.zoo.listing import select
from vitarium.zoo.model import ModelNames

if TYPE_CHECKING:
    import pandas as pd

STAGE = "compressed"


@dataclass(frozen=True)
class Compression:
    """What became of the models that were to be compressed.

    students: id of each student by `ID@EPOCH` of its original, finished or not. Of a method that
        splits a model, the student is what its parts are fused to; none where a part is missing.
    growth: of their training; None: an operator made them, and nothing was trained.
    parts: of a method that splits a model, the ids of its parts by `ID@EPOCH` of the original.
    data, normalization: of models that were trained elsewhere, as `compress` was given them.
    """

    zoo: Zoo
    students: Mapping[str, str]
    growth: Growth | None = field(repr=False)
    device: str
    data_dir: Path | None = None
    data: str | Mapping[str, Any] | None = None
    normalization: Assumed | None = None
    parts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @cached_property
    def comparison(self) -> "pd.DataFrame":
        """Every student that is finished beside its original; see `compare`.

        Of a method that splits models a student stands after its parts, and a column `part` has
        their numbers, and "fused".
        """
        ids = {old: [*self.parts.get(old, ())] for old in {**self.parts, **self.students}}
        for old, new in self.students.items():
            ids[old].append(new)
        done = {old: _finished(self.zoo, group) for old, group in ids.items()}
        images: dict[str, Any] = {"data": self.data, "normalization": self.normalization}
        table = compare(self.zoo, done, device=self.device, data_dir=self.data_dir, **images)
        if self.parts:
            roles = {id: str(n) for group in self.parts.values() for n, id in enumerate(group)}
            table.insert(3, "part", [roles.get(id, "fused") for id in table["student"]])
        return table


def compress(
    zoo: Zoo | str | Path,
    method: str | Section = "minivit",
    *,
    models: ModelNames | None = None,
    where: str = "",
    epochs: int | None = None,
    data: str | Mapping[str, Any] | None = None,
    normalization: Assumed | None = None,
    recipe: Mapping[str, Any] | None = None,
    stage: str = STAGE,
    device: str = "auto",
    data_dir: Path | None = None,
    workers: int | None = None,
    progress: bool = True,
    operator_progress: Progress = SILENT,
    grow_options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Compression:
    """Give every model a compact student: what an operator makes of it, trained or not.

        vitarium.compress(zoo, models=["3f2a"], share=2)
        vitarium.compress(zoo, "minivit", models=ids, share="all", init="mean", epochs=20)
        vitarium.compress(zoo, models=ids, recipe={"objective.hidden_weight": 0})
        vitarium.compress(zoo, "matvit_member", models=["3f2a"], granularity=0.25)
        vitarium.compress(zoo, "ed_vit", models=["3f2a"], parts=2)  # and what they are fused to

    A student is a model of the zoo with the original as its parent or ingredient. Where it is
    trained it is taught by the original. The same call goes on where an earlier one was stopped,
    and finds what is there.

    Args:
        method: an operator that makes a smaller model of one.
        models: ids or beginnings of them; `ID@3` is the model after epoch 3, `ID` after its last.
        where: of these, or of all, only models that fulfill this condition.
        epochs: of the training; 0: the student is used as the operator made it. None: 0 for
            post-training methods, for others as many as the original was trained for.
        data: a data set to learn from, and to calibrate on; None: the original's.
        normalization: of the images of originals of which it is not known, as of
            `vitarium.measure`; a student has that of its original.
        recipe: other factors of the training by dotted path; see `DEFAULTS`.
        stage: of the students, in the zoo's tables.
        device, data_dir, workers, progress, grow_options: as of `vitarium.grow`.
        operator_progress: is told how far operators are that look at images.
        settings: of the method.

    What a method makes of a model by looking at images is a model of the zoo, too, from which
    training starts. A method that splits a model makes and trains its parts, then what they are
    fused to. Raises UnknownName, InvalidConfig, InvalidInput, IncompatibleWeights,
    CorruptFile, ZooInUse.
    """
    check_stage_name(stage)
    zoo = Zoo.open(zoo)
    if isinstance(method, str):
        method = choose("operator", method, **settings)
    facts = method.plugin.facts
    if epochs is None and facts["compression"] == "post_training":
        epochs = 0
    if epochs == 0 and recipe:
        how = parameter("epochs", "N")
        raise InvalidInput(
            f"{', '.join(recipe)}: nothing is trained; give epochs of training, {how}"
        )
    refs = list(dict.fromkeys(map(zoo.at, select(zoo, models, where, "compress"))))
    for ref in refs:
        if zoo.folder(ref.model).status == "diverged":
            raise InvalidInput(f"model {ref} diverged; leave it out")
    images: dict[str, Any] = {"data": data, "normalization": normalization}
    where_to: dict[str, Any] = {"device": device, "data_dir": data_dir}
    asked_for = {"epochs": epochs, "data": data}
    overrides = {name: value for name, value in asked_for.items() if value is not None}
    overrides |= recipe or {}
    making = {**images, **where_to, "progress": operator_progress, "stage": stage}
    growing = {**where_to, "workers": workers, "progress": progress, **(grow_options or {})}
    run = Students(zoo, stage, None if epochs == 0 else overrides, normalization, making, growing)
    variants = {str(ref): _variants(zoo, ref, method) for ref in refs}
    parts = run.make([(ref, each, [str(ref)]) for ref in refs for each in variants[str(ref)]])
    by_ref = {str(ref): [id for other, id in parts if other == ref] for ref in refs}
    split = {ref: ids for ref, ids in by_ref.items() if len(ids) > 1}
    students = {ref: ids[0] for ref, ids in by_ref.items() if ref not in split}
    if ready := {ref: ids for ref, ids in split.items() if _finished(zoo, ids) == ids}:
        fuse = choose("operator", facts["fused_by"])
        fused = run.make([(zoo.at(ref), fuse, ids) for ref, ids in ready.items()])
        students |= {str(ref): id for ref, id in fused}
    return Compression(zoo, students, run.growth, device, data_dir, **images, parts=split)


def _finished(zoo: Zoo, ids: Sequence[str]) -> list[str]:
    return [id for id in ids if zoo.folder(id).status == "finished"]


def _variants(zoo: Zoo, ref: CheckpointRef, method: Section) -> list[Section]:
    """The method for each of the parts that it splits a model into; itself, if it splits none."""
    if not method.plugin.facts["fused_by"]:
        return [method]
    settings = {k: v for k, v in method.factors(defaults=False).items() if k != "name"}
    points = members(zoo, method.name, [str(ref)], settings)
    return [choose("operator", method.name, **{**settings, **point}) for point in points]
