"""One training run: reproducible, resumable, and honest about failure."""

import shutil
from pathlib import Path

import pytest
import torch

from vitarium import Blueprint, plan
from vitarium.blueprint import ModelSpec
from vitarium.core.errors import IncompatibleWeights, InvalidData, InvalidInput
from vitarium.training import EpochEnded, Stepped, TrainOptions, train
from vitarium.training.resume import restore_progress, take_progress
from vitarium.zoo import ModelFolder


class Killed(Exception):
    pass


def spec(tiny, **changes) -> ModelSpec:
    from vitarium.blueprint.overrides import apply

    first = tiny["stages"]["pretrain"]
    tiny["stages"] = {"pretrain": apply(first, {"drop": 0, **changes})}
    tiny["stages"]["pretrain"].pop("drop")
    return plan(Blueprint.read(tiny)).models[0]


def weights(folder: ModelFolder) -> dict[int, bytes]:
    kept = [epoch.number for epoch in folder.epochs() if epoch.checkpoint]
    return {number: folder.checkpoints.path(number).read_bytes() for number in kept}


def run(spec: ModelSpec, path: Path, **kwargs) -> ModelFolder:
    folder = ModelFolder(path / spec.id)
    train(spec, folder, **kwargs)
    return folder


EVERYTHING_RANDOM = {
    "architecture.depth": 2,
    "architecture.drop_rate": 0.1,
    "architecture.drop_path_rate": 0.1,
    "augmentation.mixup": 0.8,
    "augmentation.random_erasing": 0.5,
    "augmentation.random_erasing_mode": "pixel",
    "schedule": {"name": "cosine", "warmup_epochs": 0.5},
    "drop_path_schedule": "linear_increase",
    "clip_grad_norm": 1.0,
    "epochs": 4,
}


def test_the_same_spec_gives_the_same_bits(tiny, tmp_path):
    chosen = spec(tiny, **EVERYTHING_RANDOM)
    one = run(chosen, tmp_path / "one")
    torch.randn(100)
    other = run(chosen, tmp_path / "other")
    assert weights(one) == weights(other)
    assert list(weights(one)) == [0, 1, 2, 3, 4]


def test_different_seeds_give_different_weights(tiny, tmp_path):
    first, second = plan(Blueprint.read(tiny)).models[:2]
    assert weights(run(first, tmp_path))[0] != weights(run(second, tmp_path))[0]


OPTIMIZERS = [
    "adamw",
    {"name": "sgd", "momentum": 0.9},
    "sgd",
    "lamb",
    "adan",
    "muon",
    {"name": "timm", "optimizer": "adabelief"},
    {"name": "sam", "base": {"name": "adan"}},
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_that_is_stopped_goes_on_with_the_same_bits(tiny, tmp_path, optimizer):
    """In its first epoch, before which nothing is kept, and in later ones, once more each time."""
    chosen = spec(tiny, **EVERYTHING_RANDOM, optimizer=optimizer)
    whole = run(chosen, tmp_path / "whole")
    for kill_at in [(1, 2), (3, 1), (4, 3)]:

        def kill(event, kill_at=kill_at):
            if isinstance(event, Stepped) and (event.epoch, event.step) == kill_at:
                raise Killed

        with pytest.raises(Killed):
            run(chosen, tmp_path / "broken", report=kill)
        torch.randn(7)
    assert weights(run(chosen, tmp_path / "broken")) == weights(whole)


AVERAGED = {"ema": {"decay": 0.8}, "checkpoint_weights": "ema"}


@pytest.mark.parametrize("which", ["trained", "ema"])
def test_the_average_of_a_run_that_is_stopped_goes_on_with_the_same_bits(tiny, tmp_path, which):
    chosen = spec(tiny, **EVERYTHING_RANDOM, **AVERAGED | {"checkpoint_weights": which})
    whole = run(chosen, tmp_path / "whole")

    def kill(event):
        if isinstance(event, Stepped) and (event.epoch, event.step) == (3, 1):
            raise Killed

    with pytest.raises(Killed):
        run(chosen, tmp_path / "broken", report=kill)
    broken = run(chosen, tmp_path / "broken")
    assert weights(broken) == weights(whole)
    for resumed, unbroken in zip(broken.epochs(), whole.epochs(), strict=True):
        beside = "val_ema_loss" if which == "trained" else "val_trained_loss"
        assert resumed.metrics[beside] == unbroken.metrics[beside]


def test_the_average_changes_nothing_of_the_training_and_either_can_be_the_checkpoint(
    tiny, tmp_path
):
    plain, beside, average = (
        run(spec(tiny, epochs=3, **changes), tmp_path)
        for changes in ({}, {"ema": {"decay": 0.8}}, AVERAGED)
    )
    assert len({plain.path, beside.path, average.path}) == 3
    for epoch in (1, 2, 3):
        ours, theirs = plain.weights(epoch), beside.weights(epoch)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(average.weights(0)["norm.weight"], plain.weights(0)["norm.weight"])
    for first, second in zip(beside.epochs(), average.epochs(), strict=True):
        assert first.metrics["val_loss"] == second.metrics["val_trained_loss"]
        assert first.metrics["test_ema_loss"] == second.metrics["test_loss"]
    assert average.epochs()[-1].metrics["val_loss"] != plain.epochs()[-1].metrics["val_loss"]


def test_a_change_of_software_during_training_is_written_down(tiny, tmp_path, monkeypatch):
    chosen = spec(tiny)

    def kill(event):
        if isinstance(event, EpochEnded) and event.epoch == 1:
            raise Killed

    with pytest.raises(Killed):
        run(chosen, tmp_path, report=kill)
    monkeypatch.setattr("vitarium.training.train_state.software", lambda options: {"torch": "9.9"})
    assert "torch" in run(chosen, tmp_path).result()["message"]
    assert "to 9.9" in run(chosen, tmp_path).result()["message"]


def test_a_finished_model_is_not_trained_again(tiny, tmp_path):
    chosen, events = spec(tiny), []
    run(chosen, tmp_path)
    run(chosen, tmp_path, report=events.append)
    assert events == []


def test_epochs_have_their_metrics(tiny, tmp_path):
    folder = run(spec(tiny), tmp_path)
    initial, *later = folder.epochs()
    assert set(initial.metrics) == {"val_loss", "val_accuracy", "test_loss", "test_accuracy"}
    for epoch in later:
        assert {"train_loss", "train_accuracy", "epoch_lr", "seconds", "images_per_second"} < set(
            epoch.metrics
        )
        assert epoch.metrics["epoch_lr"] == 0.003
        assert epoch.metrics["seconds"] > 0


def test_test_images_are_scored_where_weights_are_kept(tiny, tmp_path):
    epochs = run(spec(tiny, checkpoints=[1], epochs=3), tmp_path).epochs()
    assert [e.checkpoint is not None for e in epochs] == [False, True, False, True]
    assert ["test_loss" in e.metrics for e in epochs] == [False, True, False, True]


@pytest.mark.parametrize("changes", [{}, AVERAGED], ids=["trained", "average"])
def test_the_stored_model_scores_what_was_recorded(tiny, tmp_path, changes):
    from vitarium.data.load import load

    chosen = spec(tiny, **changes)
    folder = run(chosen, tmp_path)
    model = chosen.recipe.build(10)
    model.load_state_dict(folder.weights())
    data = load(chosen.recipe.data)
    pixels = (data.test.images / 255 - data.mean[0]) / data.std[0]
    with torch.no_grad():
        right = (model.eval()(pixels).argmax(1) == data.test.labels).double().mean().item()
    assert right == pytest.approx(folder.epochs()[-1].metrics["test_accuracy"])


def test_a_child_starts_from_its_parents_weights_with_a_new_head(tiny, tmp_path):
    models = plan(Blueprint.read(tiny)).models
    parent = run(models[0], tmp_path)
    child = next(model for model in models if model.parent == models[0].id)
    start = run(child, tmp_path, parent=parent.weights()).weights(0)
    for name, tensor in parent.weights().items():
        assert torch.equal(tensor, start[name]) != name.startswith("head.")


def test_weights_that_do_not_fit_are_refused_by_name(tiny, tmp_path):
    chosen = spec(tiny)
    parent = dict(chosen.recipe.build(10).state_dict())
    parent["pos_embed"] = torch.zeros(1, 9, 16)
    del parent["norm.weight"]
    parent["norm.extra"] = torch.zeros(1)
    with pytest.raises(IncompatibleWeights) as caught:
        run(chosen, tmp_path, parent=parent)
    for part in (
        "norm.weight is missing",
        "norm.extra has no place",
        "pos_embed is (1, 9, 16), not",
    ):
        assert part in str(caught.value)


def test_a_frozen_backbone_stays_as_it_was(tiny, tmp_path):
    folder = run(spec(tiny, trainable="head"), tmp_path)
    before, after = folder.weights(0), folder.weights()
    for name in before:
        assert torch.equal(before[name], after[name]) != name.startswith("head.")


@pytest.mark.parametrize("checkpoints", ["all", "last"])
def test_a_model_that_diverges_keeps_its_last_finite_weights(tiny, tmp_path, checkpoints):
    changes = {"optimizer": {"name": "sgd", "lr": 1e30}, "epochs": 5, "checkpoints": checkpoints}
    folder = run(spec(tiny, **changes), tmp_path)
    assert folder.status == "diverged"
    assert "epoch" in folder.result()["message"]
    last = folder.epochs()[-1].number
    assert last < 5
    assert all(torch.isfinite(tensor).all() for tensor in folder.weights(last).values())


def test_a_diverged_model_is_not_tried_again(tiny, tmp_path):
    chosen = spec(tiny, optimizer={"name": "sgd", "lr": 1e30})
    before = weights(run(chosen, tmp_path))
    assert weights(run(chosen, tmp_path)) == before


def test_contrastive_models_are_scored_by_nearest_neighbors(tiny, tmp_path):
    changes = {
        "objective": {"name": "simclr", "out_dim": 6},
        "head": {"name": "mlp", "hidden_dim": 8},
        "augmentation": {"name": "simclr", "color_jitter": 0, "hue": 0, "grayscale": 0, "blur": 0},
    }
    folder = run(spec(tiny, **changes), tmp_path)
    last = folder.epochs()[-1].metrics
    assert folder.about().num_outputs == 6
    assert 0 < last["val_knn_accuracy"] <= 1
    assert {"train_contrastive_accuracy", "train_loss", "test_knn_accuracy"} < set(last)
    assert folder.weights()["head.2.weight"].shape == (6, 8)


def test_more_than_all_images_in_a_batch_is_refused(tiny, tmp_path):
    with pytest.raises(InvalidData, match="a batch of 512 images"):
        run(spec(tiny, batch_size=512), tmp_path)


def test_training_leaves_the_callers_settings_alone(tiny, tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    run(spec(tiny), tmp_path, options=TrainOptions())
    assert torch.equal(torch.rand(2), expected)
    assert not torch.are_deterministic_algorithms_enabled()


def test_every_epoch_is_reported_once_it_is_on_disk(tiny, tmp_path):
    chosen = spec(tiny)
    folder = ModelFolder(tmp_path / chosen.id)

    def check(event):
        if isinstance(event, EpochEnded):
            assert folder.epochs()[-1].number == event.epoch

    train(chosen, folder, report=check)


def test_progress_brings_back_weights_and_momentum():
    def fresh():
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        return model, torch.optim.AdamW(model.parameters(), lr=0.1)

    def step(model, optimizer):
        optimizer.zero_grad()
        model(torch.ones(4, 3)).square().sum().backward()
        optimizer.step()

    model, optimizer = fresh()
    for _ in range(3):
        step(model, optimizer)
    taken = {name: tensor.clone() for name, tensor in take_progress(model, optimizer).items()}
    step(model, optimizer)
    again, its_optimizer = fresh()
    restore_progress(again, its_optimizer, taken)
    step(again, its_optimizer)
    assert torch.equal(model.weight, again.weight)


def test_bf16_trains_in_bfloat16_and_keeps_float32_weights(tiny, tmp_path):
    chosen = spec(tiny, epochs=4)
    plain = run(chosen, tmp_path / "fp32")
    rounded = run(chosen, tmp_path / "bf16", options=TrainOptions(precision="bf16"))
    assert {tensor.dtype for tensor in rounded.weights().values()} == {torch.float32}
    ours, reference = (f.epochs()[-1].metrics["train_loss"] for f in (rounded, plain))
    assert ours != reference
    assert ours == pytest.approx(reference, rel=0.05)
    assert rounded.about().software["precision"] == "bf16"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
@pytest.mark.parametrize("stacked", [False, True])
def test_compiled_training_is_the_same_training(tiny, tmp_path, stacked):
    chosen = spec(tiny)
    plain = run(chosen, tmp_path / "plain", options=TrainOptions(stacked=stacked))
    compiled = run(
        chosen, tmp_path / "compiled", options=TrainOptions(stacked=stacked, compiled=True)
    )
    for ours, reference in zip(compiled.epochs(), plain.epochs(), strict=True):
        assert ours.metrics["val_loss"] == pytest.approx(reference.metrics["val_loss"], rel=1e-3)
    assert compiled.about().software["compiled"] == "True"


def test_an_unknown_precision_is_refused():
    with pytest.raises(InvalidInput, match="unknown precision 'fp8'; known: fp32, tf32, bf16"):
        TrainOptions(precision="fp8")


def test_bf16_keeps_rounded_weights_and_trains_with_the_exact_ones(tiny, tmp_path):
    exact = run(spec(tiny, **EVERYTHING_RANDOM), tmp_path)
    chosen = spec(tiny, **EVERYTHING_RANDOM, checkpoint_precision="bf16")
    folder = ModelFolder(tmp_path / chosen.id)

    def stop(event):
        if isinstance(event, Stepped) and event.epoch == 3:
            raise Killed

    with pytest.raises(Killed):
        train(chosen, folder, report=stop)
    assert {t.dtype for t in folder.progress()[1].values()} == {torch.float32}
    train(chosen, folder)
    for epoch in range(5):
        rounded, whole = folder.weights(epoch), exact.weights(epoch)
        assert all(torch.equal(rounded[name], whole[name].bfloat16()) for name in whole)
    losses = [[e.metrics["train_loss"] for e in f.epochs()[1:]] for f in (folder, exact)]
    assert losses[0] == losses[1]
    assert folder.spec().id != exact.spec().id
    assert folder.spec().origin.checkpoint_precision == "bf16"
