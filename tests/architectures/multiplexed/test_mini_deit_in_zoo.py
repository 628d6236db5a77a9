"""Models of shared weights in the rest of the library: blueprint, training, measures, zoo, export."""

import pytest
import torch

from vitarium import Blueprint, Zoo, plan
from vitarium.core.errors import InvalidInput
from vitarium.data.loader import stacked_batches
from vitarium.evaluation.attention import watch
from vitarium.formats.export import export
from vitarium.training import Stepped, TrainOptions, stack_key, train
from vitarium.training.stacked_trainer import StackedTrainer
from vitarium.training.train_state import TrainState
from vitarium.training.trainer import Trainer
from vitarium.zoo import About, ModelFolder

EXACT = {"rtol": 0, "atol": 1e-12}
DIGITS = {
    "name": "mini_deit",
    "img_size": 8,
    "patch_size": 4,
    "in_chans": 1,
    "embed_dim": 16,
    "depth": 4,
    "num_heads": 2,
    "convolution": 3,
}


def blueprint(tiny, grid, **changes):
    stage = {**tiny["stages"]["pretrain"], "architecture": DIGITS, **changes, "grid": grid}
    return Blueprint.read({**tiny, "stages": {"pretrain": stage}})


def test_nested_settings_come_from_a_blueprint(tiny):
    grid = {
        "architecture.relative_positions": [None, {"method": "cross"}],
        "architecture.share": ["all", [1, 3], 2],
    }
    models = plan(blueprint(tiny, grid)).models
    found = [spec.recipe.architecture.config for spec in models]
    methods = {config.relative_positions and config.relative_positions.method for config in found}
    assert methods == {None, "cross"}
    assert {config.share for config in found} == {"all", (1, 3), 2}
    assert len({spec.id for spec in models}) == 6


def test_checkpoints_hold_shared_weights_once(tiny, tmp_path):
    """Twelve blocks of six sets take about half the bytes, and come back from the zoo."""
    vit = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 96, "num_heads": 2}
    zoo, sizes = Zoo.create(tmp_path / "zoo"), {}
    for name in ("vit", "mini_deit"):
        (spec,) = plan(blueprint(tiny, {"seed": [1]}, architecture={"name": name, **vit})).models
        model, folder = spec.recipe.build(10).eval(), zoo.folder(spec.id)
        folder.begin(spec, About(10, tuple("0123456789"), {"torch": "x"}))
        folder.commit(0, {}, model.state_dict(), None)
        folder.finish("finished")
        sizes[name] = sum(file.stat().st_size for file in (folder.path / "checkpoints").iterdir())
        images = torch.randn(2, 1, 8, 8)
        with torch.no_grad():
            assert torch.equal(zoo.load(spec.id).eval()(images), model(images))
    assert 0.45 < sizes["mini_deit"] / sizes["vit"] < 0.6


def losses(trainer, over, steps=4):
    found, epoch = [], 0
    while len(found) < steps:
        epoch += 1
        trainer.training_mode()
        for number, batch in enumerate(stacked_batches([m.batches for m in over], epoch)):
            found.append(trainer.step(batch, epoch, number)["loss"])
    return torch.stack(found)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {
            "share": "all",
            "class_token": True,
            "init_values": 0.1,
            "relative_positions": {"method": "cross", "on": ["q", "k", "v"]},
        },
    ],
    ids=["mini-deit", "one set"],
)
def test_stacked_models_learn_as_they_do_alone(tiny, tmp_path, settings):
    own = {"seed": [1, 2]}
    models = plan(blueprint(tiny, own, epochs=2, architecture=DIGITS | settings)).models
    assert len({stack_key(model) for model in models}) == 1

    def members():
        return [TrainState(m, ModelFolder(tmp_path / m.id), None, TrainOptions()) for m in models]

    stacked = members()
    together_ = losses(StackedTrainer(stacked, TrainOptions()), stacked)
    for k, member in enumerate(members()):
        alone = losses(Trainer([member], TrainOptions()), [member])[:, 0]
        assert torch.allclose(together_[:, k], alone, rtol=1e-5, atol=0)
        assert alone[-1] != alone[0]


def test_a_stopped_training_goes_on_to_the_same_bits(tiny, tmp_path):
    class Killed(Exception):
        pass

    def kill(event):
        if isinstance(event, Stepped) and event.epoch == 2:
            raise Killed

    (spec,) = plan(blueprint(tiny, {"seed": [1]})).models
    broken, whole = (ModelFolder(tmp_path / name / spec.id) for name in ("broken", "whole"))
    with pytest.raises(Killed):
        train(spec, broken, report=kill)
    train(spec, broken)
    train(spec, whole)
    assert broken.checkpoint() == whole.checkpoint()
    for name, tensor in whole.weights(2).items():
        assert torch.equal(broken.weights(2)[name], tensor)


def test_attention_is_seen_before_heads_are_mixed(reference):
    model, maps = reference.made(), {}
    images = reference.images(model)
    watch(model, images, lambda name, each: maps.update({name: each}))
    assert all(torch.allclose(each.sum(-1), torch.ones(()).double()) for each in maps.values())
    block = model.blocks[0]
    expected = maps["blocks.0"]
    given = []
    block.attn.attn_drop.register_forward_hook(lambda _, inputs, __: given.append(inputs[0]))
    with torch.no_grad():
        model(images)
        mixed = torch.einsum("ah,bhij->baij", block.attn.after.weight, expected)
    assert torch.allclose(given[0], mixed, **EXACT)


@pytest.fixture
def zoo(tiny, tmp_path):
    found = Zoo.create(tmp_path / "zoo")
    (spec,) = plan(blueprint(tiny, {"seed": [1]})).models
    folder = found.folder(spec.id)
    folder.begin(spec, About(10, tuple("0123456789"), {"torch": "x"}))
    folder.commit(0, {}, spec.recipe.build(10).state_dict(), None)
    folder.finish("finished")
    return found


def test_it_is_exported_but_to_timm(zoo, tmp_path):
    from safetensors.torch import load_file

    files = export(zoo, "safetensors", out=tmp_path / "out")
    (file,) = [path for path in files if path.suffix == ".safetensors"]
    state, (id,) = zoo.state_dict(zoo.ids()[0]), zoo.ids()
    assert state.keys() == load_file(file).keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in load_file(file).items())
    with pytest.raises(
        InvalidInput, match=rf"{id}: its architecture 'mini_deit' is none of timm's"
    ):
        export(zoo, "timm", out=tmp_path / "timm")
