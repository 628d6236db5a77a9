"""What `import vitarium` offers."""

import inspect
import subprocess
import sys
from functools import partial
from importlib import import_module

import numpy as np
import pandas as pd
import pytest

import vitarium
from vitarium.core.config import Config
from vitarium.core.errors import InvalidInput
from vitarium.formats.base import exporter


def test_every_public_name_is_there_and_listed():
    assert sorted(vitarium.__all__) == vitarium.__all__
    assert all(getattr(vitarium, name) for name in vitarium.__all__)
    assert set(vitarium.__all__) <= set(dir(vitarium))


def test_what_public_functions_take_and_give_is_public():
    inputs = {"Blueprint", "CheckpointRef", "Plan", "Progress", "Zoo"}
    results = {"Compression", "Growth", "Model", "Recovered", "StudyResult"}
    assert inputs | results <= set(vitarium.__all__)


def test_a_name_that_is_none_is_an_error():
    with pytest.raises(AttributeError, match="grwo"):
        _ = vitarium.grwo


@pytest.fixture
def family(grown_zoo):
    ids = sorted(grown_zoo.query("SELECT id FROM models WHERE stage = 'finetune'")["id"])[:2]
    return grown_zoo, ids


WAYS = {
    "ids": lambda zoo, ids: ids,
    "beginnings": lambda zoo, ids: (id[:10] for id in ids),
    "models": lambda zoo, ids: [zoo[id] for id in ids],
    "checkpoints": lambda zoo, ids: [zoo[id].checkpoints[-1] for id in ids],
    "a column": lambda zoo, ids: pd.Series(ids),
    "an array": lambda zoo, ids: np.array(ids),
}


@pytest.mark.parametrize("way", WAYS)
def test_models_are_named_in_any_way_wherever_models_are_taken(family, way, tmp_path):
    zoo, ids = family
    named = WAYS[way]
    table = vitarium.measure(zoo.path, "weight_norm", models=named(zoo, ids))
    assert set(table["model"]) == set(ids)
    soup = vitarium.merge(str(zoo.path), "uniform_soup", models=named(zoo, ids))
    assert [ref.model for ref in soup.ingredients] == ids
    written = vitarium.export(zoo.path, "safetensors", out=tmp_path / "x", models=named(zoo, ids))
    assert all(any(id in path.name for path in written) for id in ids)
    if way != "checkpoints":  # lineage is of models
        assert vitarium.recover(zoo.path, models=named(zoo, ids)).forest.models == ids


def test_one_model_stands_for_a_list_of_itself(family):
    zoo, (id, _) = family
    for model in (id, id[:9], zoo[id], zoo[id].checkpoints[-1], f"{id}@0"):
        table = vitarium.measure(zoo, "weight_norm", models=model)
        assert set(table["model"]) == {id}
        assert set(table["epoch"]) == {0 if model == f"{id}@0" else zoo.at(id).epoch}


def test_a_condition_narrows_what_is_named(family):
    zoo, ids = family
    where = f"id = '{ids[0]}'"
    assert set(vitarium.measure(zoo, "weight_norm", models=ids, where=where)["model"]) == {ids[0]}
    assert set(vitarium.measure(zoo, "weight_norm", where=where)["model"]) == {ids[0]}
    average = vitarium.merge(zoo, "wise_ft", models=ids, where=where)
    assert {ref.model for ref in average.ingredients} == {ids[0]}
    both = vitarium.merge(zoo, "uniform_soup", where=f"id IN ('{ids[0]}', '{ids[1]}')")
    assert [ref.model for ref in both.ingredients] == ids
    # a condition cannot get around what is named
    with pytest.raises(InvalidInput, match="two models or more"):
        vitarium.recover(zoo, models=ids[:1], where="1 = 1) OR (1 = 1")
    for verb in (partial(vitarium.merge, method="uniform_soup"), vitarium.compress):
        for nothing in ({}, {"where": " "}, {"models": []}):
            with pytest.raises(InvalidInput, match="say which models to"):
                verb(zoo, **nothing)


def test_a_zoo_may_be_open_or_a_folder_wherever_one_is_taken(family, tiny):
    zoo, _ = family
    again = vitarium.grow(vitarium.Blueprint.read(tiny), zoo, workers=0, progress=False)
    assert len(again.existing) == len(zoo)
    assert vitarium.push(zoo, "me/zoo", dry_run=True, license="mit")
    assert vitarium.Zoo.create(zoo).path == zoo.path


def test_models_of_a_zoo_are_in_it(family):
    zoo, ids = family
    assert all(model in zoo for model in zoo)
    assert ids[0] in zoo
    assert ids[0][:9] in zoo
    assert 3 not in zoo


def test_without_extras_every_name_is_there():
    code = (
        "import sys; sys.modules |= dict.fromkeys(('altair', 'jinja2', 'statsmodels', 'curvlinops'));"
        "from vitarium import *; import vitarium; assert all(map(vitarium.__getattribute__, ['study']))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("function", "kind", "but"),
    [
        (vitarium.measure, "measures", {"num_images"}),
        (vitarium.merge, "operators", set()),
        (vitarium.recover, "lineage", set()),
    ],
)
def test_no_setting_can_be_called_like_a_parameter_of_what_takes_settings(function, kind, but):
    reserved = set(import_module(f"vitarium.{kind}.base").RUNNER_OPTIONS)
    parameters = inspect.signature(function).parameters.values()
    named = {p.name for p in parameters if p.kind is not p.VAR_KEYWORD}
    assert named - reserved == but


def test_settings_of_exporters_are_not_called_like_parameters_of_export(monkeypatch):
    class Wrong(Config):
        where: str = ""

    with pytest.raises(TypeError, match="exporter 'x': call the settings"):

        @exporter("x")
        def x(config: Wrong, zoo, models, out): ...
