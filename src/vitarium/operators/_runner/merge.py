"""Make a model of models, and keep it in the zoo with what it is made of."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitarium.blueprint import CheckpointRef, check_stage_name
from vitarium.core.devices import find_devices
from vitarium.core.errors import InvalidInput
from vitarium.core.progress import SILENT, Progress
from vitarium.core.registry import Section, choose, section
from vitarium.data.preprocessing import Assumed
from vitarium.evaluation.loader import ModelLoader
from vitarium.operators._runner.choose import chosen
from vitarium.operators._runner.plan import MergePlan
from vitarium.zoo import Model, Zoo
from vitarium.zoo.listing import select
from vitarium.zoo.model import ModelName, ModelNames

STAGE, ALIGNED = "merge", "aligned"


def merge(
    zoo: Zoo | str | Path,
    method: str | Section,
    *,
    models: ModelNames | None = None,
    where: str = "",
    base: ModelName | None = None,
    heads: str = "merge",
    align: str | Mapping[str, Any] | None = None,
    stage: str = STAGE,
    data: str | Mapping[str, Any] | None = None,
    normalization: Assumed | None = None,
    device: str = "auto",
    data_dir: Path | None = None,
    skip_diverged: bool = False,
    force: bool = False,
    progress: Progress = SILENT,
    **settings: Any,
) -> Model:
    """Combine models of a zoo by a registered operator; the result is a model of the zoo.

        vitarium.merge(zoo, "uniform_soup", models=ids)
        vitarium.merge(zoo, "ties", models=ids, density=0.3)
        vitarium.merge(zoo, "slerp", models=[first, second], align="weight_matching")
        vitarium.merge(zoo, "epoch_average", models=["3f2a"], last=5)

    Args:
        method: name of the operator (`vitarium plugins operators`).
        models: ids or beginnings of them; `ID@3` is the model after epoch 3, `ID` after its last.
            Methods for which the order counts take them as they come. None: all.
        where: of these, only models that fulfill this condition, as `vitarium ls` has it.
        base: what the models started from, `ID` or `ID@3`, for methods that need it; None: their
            common parent, with the head that they had before their training.
        heads: what becomes of the heads, which may be of different shapes: "merge" treats them as
            all other weights; "average"; "ensemble" keeps all, and the model gives the mean of
            their outputs; `ID` keeps that model's.
        align: an operator that rearranges every model to match the first, by name or with its
            settings. The aligned copies stay in the zoo as models of the stage "aligned"; they are
            the result's `ingredients` from the second on.
        stage: of the result, in the zoo's tables.
        data: a data set for methods that need images; None: that of the first model, or of the one
            whose head is kept.
        normalization: as of `vitarium.measure`.
        device: where models run: "cpu", "cuda:1"; "auto": on a GPU, if there is one.
        data_dir: looked into first for data sets.
        skip_diverged: leave out models that diverged or have weights that are not finite.
        force: select by images that some of the models were trained on, too.
        progress: is told how far each operator is.
        settings: of the method.

    Returns the new model. The same operator on the same models gives the same model, and is not
    computed again; where that is of another stage, it stays there, with a warning. Raises
    UnknownName, InvalidConfig, InvalidInput, IncompatibleWeights, CorruptFile, NotWritable before
    it is computed, DiskFull, and NotApplicable where images are needed that there are not.
    """
    check_stage_name(stage)
    zoo = Zoo.open(zoo)
    if isinstance(method, str):
        method = choose("operator", method, **settings)
    images_of = section("dataset", data) if data is not None else None
    where_to: dict[str, Any] = {"device": find_devices(device)[0], "data_dir": data_dir}
    sources = ModelLoader(zoo, data=images_of, normalization=normalization, **where_to)
    selected = select(zoo, models, where, "merge")
    refs = chosen(zoo, method, selected, skip_diverged=skip_diverged)
    if repeated := [ref for ref in refs if refs.count(ref) > 1]:
        raise InvalidInput(f"{method.name}: {repeated[0]} is named more than once")
    if align is not None:
        how = section("operator", align)
        first, *rest = refs
        aligned = [first]
        for done, ref in enumerate(rest):
            progress.step(how.name, done, len(rest))
            id = MergePlan(sources, how, (first, ref), stage=ALIGNED).save()
            aligned.append(CheckpointRef(id, 0))
        refs = tuple(aligned)
    plan = MergePlan(sources, method, refs, base=base, heads=heads, stage=stage, force=force)
    return zoo[plan.save(progress)]
