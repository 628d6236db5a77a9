"""Make a model of models, and keep it in the zoo with what it is made of."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vitarium.blueprint import CheckpointRef, check_stage_name
from vitarium.core.devices import find_devices
from vitarium.core.registry import Section, choose, section
from vitarium.evaluation.loader import ModelLoader
from vitarium.operators._runner.choose import chosen
from vitarium.operators._runner.plan import MergePlan
from vitarium.operators.base import Report
from vitarium.zoo import Zoo

STAGE, ALIGNED = "merge", "aligned"


def merge(
    zoo: Zoo,
    models: Iterable[str],
    method: str | Section,
    *,
    base: str | None = None,
    heads: str = "merge",
    align: str | Mapping[str, Any] | None = None,
    name: str = STAGE,
    data: str | Mapping[str, Any] | None = None,
    device: str = "auto",
    data_dir: Path | None = None,
    skip_diverged: bool = False,
    force: bool = False,
    report: Report = lambda done, of: None,
    **settings: Any,
) -> str:
    """Combine models of a zoo by a registered operator; the result is a model of the zoo.

        vitarium.merge(zoo, ids, "uniform_soup")
        vitarium.merge(zoo, ids, "ties", density=0.3)
        vitarium.merge(zoo, [one, other], "slerp", align="weight_matching")
        vitarium.merge(zoo, ["3f2a"], "epoch_average", last=5)

    Args:
        models: ids or beginnings of them; `ID@3` is the model after epoch 3, `ID` after its last.
            Methods for which the order counts take them as they come.
        method: name of the operator (`vitarium plugins operators`).
        base: what the models started from, `ID` or `ID@3`, for methods that need it; None: their
            common parent, with the head that they had before their training.
        heads: what becomes of the heads, which may be of different shapes: "merge" treats them as
            all other weights; "average"; "ensemble" keeps all, and the model gives the mean of
            their outputs; `ID` keeps that model's.
        align: an operator that rearranges every model to match the first, by name or with its
            settings; what it makes is kept as models of the stage "aligned".
        name: stage of the result.
        data: a data set for methods that need images; None: that of the first model, or of the one
            whose head is kept.
        device: where models run: "cpu", "cuda:1"; "auto": on a GPU, if there is one.
        data_dir: looked into first for data sets.
        skip_diverged: leave out models that diverged or have weights that are not finite.
        force: select by images that some of the models were trained on, too.
        report: called with how much is done, and of how much.
        settings: of the method.

    Returns the id of the new model; the same operator on the same models gives the same id, and is
    not computed again. Raises UnknownName, InvalidConfig, InvalidInput, IncompatibleWeights,
    CorruptFile, NotWritable before it is computed, DiskFull, and NotApplicable where images are
    needed that there are not.
    """
    check_stage_name(name)
    if isinstance(method, str):
        method = choose("operator", method.replace("-", "_"), **settings)
    images_of = section("dataset", data) if data is not None else None
    sources = ModelLoader(zoo, data=images_of, device=find_devices(device)[0], data_dir=data_dir)
    ingredients = chosen(zoo, method, models, skip_diverged=skip_diverged)
    if align is not None:
        how = align.replace("-", "_") if isinstance(align, str) else align
        ingredients = _aligned(sources, ingredients, section("operator", how), report)
    plan = MergePlan(sources, method, ingredients, base=base, heads=heads, stage=name, force=force)
    return plan.save(report)


def _aligned(
    sources: ModelLoader, ingredients: tuple[CheckpointRef, ...], how: Section, report: Report
) -> tuple[CheckpointRef, ...]:
    first, *rest = ingredients
    aligned = [first]
    for done, ingredient in enumerate(rest):
        report(done, len(rest))
        id = MergePlan(sources, how, (first, ingredient), stage=ALIGNED).save()
        aligned.append(CheckpointRef(model=id, epoch=0))
    return tuple(aligned)
