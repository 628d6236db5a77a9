"""The numerics of a blueprint: a project's defaults, which change no id."""

import pytest

from vitarium import Blueprint, Zoo, grow, plan
from vitarium.core.config import InvalidConfig

NUMERICS = {"precision": "bf16", "compiled": False, "stacked": 1, "workers": 0, "threads": 1}


def software(zoo: Zoo, name: str) -> set[str]:
    return {zoo.folder(id).about().software[name] for id in zoo.ids()}


@pytest.fixture
def one(tiny):
    """A blueprint of one model."""
    del tiny["stages"]["finetune"], tiny["stages"]["pretrain"]["grid"]
    tiny["stages"]["pretrain"]["epochs"] = 1
    return tiny


def test_they_change_no_id(tiny):
    before = plan(Blueprint.read(tiny))
    after = plan(Blueprint.read({**tiny, "numerics": NUMERICS}))
    assert after.models == before.models
    assert after.numerics.precision == "bf16"


def test_a_zoo_is_grown_as_they_say(one, tmp_path):
    zoo = grow({**one, "numerics": NUMERICS}, tmp_path / "zoo", progress=False).zoo
    assert software(zoo, "precision") == {"bf16"}
    assert software(zoo, "threads") == {"1"}


def test_what_is_asked_for_comes_first(one, tmp_path):
    values = {**one, "numerics": NUMERICS}
    zoo = grow(values, tmp_path / "zoo", precision="fp32", progress=False).zoo
    assert software(zoo, "precision") == {"fp32"}


def test_models_are_stacked_as_they_say(one, tmp_path):
    one["stages"]["pretrain"]["grid"] = {"seed": [1, 2]}
    blueprint = Blueprint.read({**one, "numerics": {"stacked": 4, "workers": 0, "precision": "fp32", "compiled": False}})  # fmt: skip
    zoo = grow(blueprint, tmp_path / "zoo", progress=False).zoo
    assert software(zoo, "stacked") == {"True"}


@pytest.mark.parametrize(
    ("numerics", "message"),
    [
        ({"precision": "fp16"}, "numerics.precision: 'fp16' is not 'auto', 'fp32', 'tf32' or 'bf16'"),
        ({"stacked": 0}, "numerics.stacked"),
        ({"threads": 0}, "numerics.threads: 0 is not greater than 0"),
        ({"seed": 1}, "numerics.seed: unknown factor 'seed'"),
    ],
)  # fmt: skip
def test_what_they_cannot_be_is_a_mistake_of_the_blueprint(tiny, numerics, message):
    with pytest.raises(InvalidConfig) as refused:
        Blueprint.read({**tiny, "numerics": numerics})
    assert message in str(refused.value)
