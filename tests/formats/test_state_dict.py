"""Which of a checkpoint's contents is the model, and what its tensors are called."""

from pathlib import Path

import pytest
import torch

from vitarium.core.errors import InvalidInput
from vitarium.formats._state_dict import StateDictSettings, state_dict_in, unwrapped

FILE = Path("w.pth")
NAMES = ("cls_token", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "norm.weight")
TRAINED = {name: torch.full((2,), 1.0) for name in NAMES}
EMA = {name: torch.full((2,), 2.0) for name in NAMES}


def under(prefix, names=NAMES):
    return [prefix + name for name in names]


def read(content, **settings):
    """Value of the model's tensors, and notes."""
    config = StateDictSettings(**settings)
    tensors, notes, ema = state_dict_in(content, FILE, config)
    names, more = unwrapped(list(tensors), FILE, config, ema=ema)
    assert set(names) == set(NAMES)
    (value,) = {tensors[name][0].item() for name in names.values()}
    return value, [*notes, *more]


@pytest.mark.parametrize(
    "prefix",
    [
        *("module.", "_orig_mod.", "model.", "backbone.", "net.", "student.", "teacher."),
        *("module._orig_mod.", "_orig_mod.module.", "model.module.net.", "teacher.backbone."),
        *("_forward_module.model._orig_mod.", "_fsdp_wrapped_module.module.encoder."),
    ],
)
def test_wrappers_in_any_nesting_are_no_part_of_names(prefix):
    assert unwrapped(under(prefix), FILE)[0] == dict(zip(NAMES, under(prefix), strict=True))


def test_what_torch_puts_inside_of_names_goes_too():
    names = ["blocks.0._orig_mod.attn.qkv.weight", "blocks.1._checkpoint_wrapped_module.mlp.bias"]
    assert list(unwrapped(names, FILE)[0]) == ["blocks.0.attn.qkv.weight", "blocks.1.mlp.bias"]


@pytest.mark.parametrize(
    "names",
    [
        under("generator."),
        [*under("model."), "adapter.weight"],  # a part of the trunk is outside of it
        ["model.weight", "weight"],
        ["model", "model.weight"],
        ["encoder.layer.0.weight", "embeddings.cls_token"],
    ],
)
def test_what_is_not_around_the_whole_trunk_stays(names):
    assert list(unwrapped(names, FILE)[0]) == names


@pytest.mark.parametrize("beside", ["head.weight", "dino_head.mlp.0.weight", "criterion.weight"])
def test_heads_and_losses_beside_the_wrapped_trunk_stay(beside):
    assert set(unwrapped([*under("backbone."), beside], FILE)[0]) == {*NAMES, beside}


def test_a_count_of_averaged_steps_is_left_out():
    assert set(unwrapped([*under("module."), "n_averaged"], FILE)[0]) == set(NAMES)


def test_two_models_in_one_file_are_an_error_that_names_the_setting():
    names = [*under("student.backbone."), *under("teacher.backbone.")]
    with pytest.raises(InvalidInput, match=r"student and teacher.*prefix='teacher'"):
        unwrapped(names, FILE)
    for prefix in ("student", "teacher", "teacher.backbone"):
        ours, notes = unwrapped(names, FILE, StateDictSettings(prefix=prefix))
        assert set(ours) == set(NAMES)
        assert all(name.startswith(prefix) for name in ours.values())
        assert notes[0].startswith(f"prefix={prefix} leaves out ")
    with pytest.raises(InvalidInput, match=r"no tensor begins with 'net\.' \(prefix\)"):
        unwrapped(names, FILE, StateDictSettings(prefix="net"))
    with pytest.raises(InvalidInput, match=r"student and teacher.*wrapped_in='teacher'"):
        read({"student": TRAINED, "teacher": EMA, "epoch": 3})
    assert read({"student": TRAINED, "teacher": EMA}, wrapped_in="student")[0] == 1
    assert read({"teacher": EMA, "epoch": 3}) == (2, [])
    nested = {"model": {"student": TRAINED, "teacher": EMA}}
    with pytest.raises(InvalidInput, match=r"model.student and model.teacher.*wrapped_in="):
        read(nested)
    assert read(nested, wrapped_in="model.teacher")[0] == 2
    assert read({"model": {"student": EMA, "teacher": EMA}, "net": TRAINED})[0] == 1


def test_an_average_among_the_names_is_taken_where_it_is_asked_for():
    names = [*under("model."), *under("ema_model.")]
    ours, notes = unwrapped(names, FILE)
    assert set(ours.values()) == set(under("model."))
    assert "ema=True" in notes[0]
    ours, _ = unwrapped(names, FILE, StateDictSettings(ema=True))
    assert set(ours.values()) == set(under("ema_model."))


@pytest.mark.parametrize(
    "key",
    [
        *("state_dict", "model", "model_state_dict", "net", "module", "params", "weights"),
        *("model.state_dict", "state_dict.model"),
    ],
)
def test_usual_keys_are_looked_into(key):
    content = TRAINED
    for part in reversed(key.split(".")):
        content = {"epoch": torch.tensor(3), part: content, "optimizer": {"state": {}, "lr": 0.1}}
    assert read(content) == (1, [])
    assert read(content, wrapped_in=key) == (1, [])


@pytest.mark.parametrize(
    ("trained", "average"),
    [
        ("state_dict", "state_dict_ema"),
        ("model", "model_ema"),
        ("model", "ema"),
        ("params", "params_ema"),
        ("model_state_dict", "ema_model_state_dict"),
    ],
)
def test_the_trained_weights_are_taken_unless_the_average_is_asked_for(trained, average):
    content = {average: EMA, "epoch": 1, trained: TRAINED}
    value, notes = read(content)
    assert value == 1
    assert trained in notes[0]
    assert average in notes[0]
    assert "ema=True" in notes[0]
    assert read(content, ema=True) == (2, [])
    assert read(content, wrapped_in=average) == (2, [])
    value, notes = read({average: EMA, "epoch": 1})
    assert value == 2
    assert "average" in notes[0]


def test_a_schema_is_no_average():
    value, notes = read({"state_dict": TRAINED, "schema": EMA, "emanate": EMA})
    assert (value, notes) == (1, [])


@pytest.mark.parametrize("content", [TRAINED, {"model": TRAINED}, {"state_dict": TRAINED, "a": 1}])
def test_an_average_that_is_not_there_is_an_error(content):
    with pytest.raises(InvalidInput, match="no average of the weights"):
        read(content, ema=True)


def test_a_key_that_is_not_there_is_an_error_that_names_those_that_are():
    content = {"epoch": 3, "generator": TRAINED, "critic": {"net": EMA}}
    with pytest.raises(InvalidInput, match=r"under 'ema' \(wrapped_in\).*generator, critic.net"):
        read(content, wrapped_in="ema")
    with pytest.raises(InvalidInput, match=r"'epoch' is a int.*wrapped_in='generator'"):
        read(content)
    assert read(content, wrapped_in="critic.net") == (2, [])
    with pytest.raises(InvalidInput, match=r"under 'model' \(wrapped_in\)"):
        read(TRAINED, wrapped_in="model")
