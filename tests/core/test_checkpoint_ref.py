import pytest
from pydantic import TypeAdapter

from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.config import Config, InvalidConfig

REF = CheckpointRef("3f2a0c41d9e7", 5)


class Merged(Config):
    ingredients: tuple[CheckpointRef, ...]


def test_its_text_is_id_at_epoch():
    assert str(REF) == "3f2a0c41d9e7@5"


def test_it_is_a_pair_that_can_be_unpacked_sorted_and_be_a_key():
    model, epoch = REF
    assert (model, epoch) == REF
    assert sorted([REF, CheckpointRef(model, 1)])[0].epoch == 1
    assert {REF: 1}[CheckpointRef(model, epoch)] == 1


def test_in_json_it_is_an_object_of_model_and_epoch():
    merged = Merged(ingredients=(REF,))
    assert merged.factors() == {"ingredients": [{"model": "3f2a0c41d9e7", "epoch": 5}]}
    assert Merged.read(merged.factors()) == merged
    assert TypeAdapter(CheckpointRef).dump_json(REF) == b'{"model":"3f2a0c41d9e7","epoch":5}'


@pytest.mark.parametrize(
    ("ref", "complaint"),
    [
        ({"model": "../../etc", "epoch": 1}, "ingredients.0.model"),
        ({"model": "3f2a0c41d9e7", "epoch": -1}, "ingredients.0.epoch"),
        ({"model": "3f2a0c41d9e7"}, "ingredients.0.epoch: missing"),
        ({"model": "3f2a0c41d9e7", "epoch": 1, "stage": "x"}, "ingredients.0.stage"),
    ],
)
def test_what_names_no_checkpoint_is_refused_with_its_path(ref, complaint):
    with pytest.raises(InvalidConfig, match=complaint):
        Merged.read({"ingredients": [ref]})
