"""Paths that are left out: by validation images, checked against models that are built without."""

from itertools import chain, combinations

import pytest
import torch
from torch.nn import functional as F

from vitarium import Blueprint, compress, grow, measure, merge
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import choose
from vitarium.evaluation.loader import ModelLoader
from vitarium.evaluation.path_components import path_components
from vitarium.evaluation.scoring import Score
from vitarium.operators.compression.path_ensemble import dropped

QUICK = {"workers": 0, "progress": False}
SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "num_heads": 2, "depth": 2}
SUBSETS = list(chain.from_iterable(combinations(range(5), count) for count in range(1, 6)))


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    stage = {
        "architecture": {"name": "vit", "init_values": 0.5, **SIZES},
        "data": {"name": "digits", "train_limit": 200},
        "optimizer": {"name": "adamw", "lr": 0.003},
        "epochs": 3,
        "batch_size": 32,
        "checkpoints": "last",
    }
    blueprint = Blueprint.read({"name": "paths", "stages": {"pretrain": stage}})
    return grow(blueprint, tmp_path_factory.mktemp("paths"), **QUICK).zoo


@pytest.fixture(scope="module")
def trained(zoo):
    (id,) = (id for id in zoo.ids() if zoo.spec(id).stage == "pretrain")
    return id


@pytest.fixture(scope="module")
def components(zoo, trained):
    subject = ModelLoader(zoo).subject(zoo.at(trained), "val", None)
    return path_components(subject)


def kept_paths(zoo, id):
    return {int(n) for n in zoo.state_dict(id)["path_scales"].any(1).nonzero()}


@pytest.fixture(scope="module")
def by_model(zoo, trained, components):
    """Scores on validation images of a model with the scales of each of all subsets of paths."""
    section = choose("architecture", "path_ensemble", init_values=0.5, **SIZES)
    model = section(10).eval().requires_grad_(False)
    model.load_state_dict(zoo.state_dict(trained), strict=False)
    (batch,) = components.subject.examples.batches(1000)
    scores = {}
    for paths in SUBSETS:
        model.path_scales[:] = 0
        model.path_scales[list(paths)] = 1
        outputs = model(batch.images)
        right = (outputs.argmax(1) == batch.labels).double().mean()
        scores[paths] = Score(float(right), float(F.cross_entropy(outputs, batch.labels)))
    return scores


def test_sums_of_components_score_as_models_with_those_paths(components, by_model):
    for paths, expected in by_model.items():
        score = components.score(list(paths))
        assert score.accuracy == expected.accuracy
        assert score.loss == pytest.approx(expected.loss, rel=1e-4)


def test_paths_go_while_the_validation_loss_falls(zoo, trained, by_model):
    left = set(range(5))  # by models that are built with these paths
    while len(left) > 1:
        path = min(left, key=lambda path: by_model[tuple(sorted(left - {path}))].loss)
        if by_model[tuple(sorted(left - {path}))].loss >= by_model[tuple(sorted(left))].loss:
            break
        left.remove(path)
    id = merge(zoo, "path_ensemble", models=[trained]).id
    assert kept_paths(zoo, id) == left
    reached, full = by_model[tuple(sorted(left))], by_model[0, 1, 2, 3, 4]
    message = zoo.folder(id).result()["message"]
    assert f"{len(left)} of 5 paths: loss {reached.loss:.4f}" in message
    assert f"loss {full.loss:.4f}, accuracy {full.accuracy:.4f} with all" in message
    row = measure(zoo, "accuracy", models=[id], split="val").set_index("part").loc[""]
    assert row["value"] == pytest.approx(reached.accuracy)
    weights = zoo.state_dict(trained)
    assert all(torch.equal(weights[n], t) for n, t in zoo.state_dict(id).items() if n in weights)


def test_with_a_tolerance_paths_go_as_far_as_the_loss_may_rise(zoo, trained, by_model):
    for tolerance in (0.0, 0.5):
        id = merge(zoo, "path_ensemble", models=[trained], tolerance=tolerance).id
        kept, ceiling = kept_paths(zoo, id), by_model[0, 1, 2, 3, 4].loss + tolerance
        assert by_model[tuple(sorted(kept))].loss <= ceiling + 1e-6
        fewer = [by_model[tuple(sorted(kept - {path}))].loss for path in kept if len(kept) > 1]
        assert not fewer or min(fewer) > ceiling - 1e-6


def test_the_path_goes_without_which_the_loss_is_lowest():
    losses = {(0, 1, 2): 1.0, (1, 2): 0.9, (0, 2): 0.8, (0, 1): 0.8, (0,): 0.95, (1,): 0.85}

    def score(paths):
        return Score(0.5, losses[tuple(paths)])

    assert list(dropped(score, [0, 1, 2], None)) == [(2, Score(0.5, 0.8))]
    assert [path for path, _ in dropped(score, [0, 1, 2], 0.0)] == [2, 0]
    losses |= {(0, 1): 1.05, (0, 2): 1.1, (1, 2): 1.2}
    assert not list(dropped(score, [0, 1, 2], None))
    assert not list(dropped(score, [0, 1, 2], 0.04))


def test_without_dropping_it_is_the_model_and_a_depth_is_its_first_blocks(zoo, trained):
    images = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    model = zoo.load(trained).double()
    unpruned = zoo.load(merge(zoo, "path_ensemble", models=[trained], max_dropped=0).id).double()
    torch.testing.assert_close(unpruned(images), model(images), rtol=0, atol=1e-10)
    short = zoo.load(merge(zoo, "path_ensemble", models=[trained], max_dropped=0, depth=1).id)
    assert len(short.blocks) == 1
    assert short.path_scales.shape == (3, 16)
    unpruned.path_scales.data[3:] = 0  # of the second block
    torch.testing.assert_close(short.double()(images), unpruned(images), rtol=0, atol=1e-10)
    model.blocks = model.blocks[:1]
    torch.testing.assert_close(short(images), model(images), rtol=0, atol=1e-10)


def test_no_more_go_than_may_and_scales_are_kept_when_it_is_pruned_again(zoo, trained):
    first = merge(zoo, "path_ensemble", models=[trained], max_dropped=1, tolerance=9.0).id
    kept = kept_paths(zoo, first)
    assert len(kept) == 4
    second = merge(zoo, "path_ensemble", models=[first], max_dropped=1, tolerance=9.0).id
    assert len(kept_paths(zoo, second)) == 3
    assert kept_paths(zoo, second) < kept


def test_what_cannot_be_pruned_is_refused(zoo, trained):
    with pytest.raises(IncompatibleWeights, match="depth 3 is more than its 2 blocks"):
        merge(zoo, "path_ensemble", models=[trained], depth=3)
    twin = merge(zoo, "tome", models=[trained], r=1).id
    with pytest.raises(IncompatibleWeights, match="path_ensemble needs a plain vit, not tome"):
        merge(zoo, "path_ensemble", models=[twin])


def test_learned_scales_leave_what_was_pruned_at_0_and_test_images_confirm(zoo, trained):
    settings = {"max_dropped": 2, "tolerance": 9.0}
    pruned = compress(zoo, "path_ensemble", models=[trained], **settings, **QUICK)
    (start,) = pruned.students.values()
    assert pruned.growth is None
    recipe = {"adaptation": "scales"}
    done = compress(
        zoo, "path_ensemble", models=[trained], epochs=1, recipe=recipe, **settings, **QUICK
    )
    (student,) = done.students.values()
    assert zoo.spec(student).recipe.objective.name == "path_self_distillation"
    before, after = zoo.state_dict(start), zoo.state_dict(student)
    assert kept_paths(zoo, student) == kept_paths(zoo, start)
    assert (before["path_scales"] != after["path_scales"]).any()
    assert torch.equal(before["blocks.0.attn.qkv.weight"], after["blocks.0.attn.qkv.weight"])
    row = done.comparison.iloc[0]
    test = measure(zoo, "accuracy", models=[student]).set_index("part").loc[""]
    assert row["accuracy_after"] == pytest.approx(test["value"])


def test_measures_say_what_each_path_does(zoo, trained, components, by_model):
    table = measure(zoo, "accuracy_without_path", models=[trained], split="val")
    values = table.set_index("part")["value"]
    names = ["embed", "blocks.0.attn", "blocks.0.mlp", "blocks.1.attn", "blocks.1.mlp"]
    assert components.names == names
    for path, name in enumerate(names):
        others = tuple(sorted({*range(5)} - {path}))
        assert values[name] == pytest.approx(by_model[others].accuracy)
    assert values[""] == pytest.approx(by_model[0, 1, 2, 3, 4].accuracy)
    parts = measure(zoo, "path_contribution", models=[trained], split="val")
    parts = parts.set_index("part")["value"]
    assert set(parts.index) == {"", "constant", *names}
    assert parts.drop("").sum() == pytest.approx(parts[""])
    (batch,) = components.subject.examples.batches(1000)
    logits = components.subject.model(batch.images).double()
    beside = logits.gather(1, batch.labels[:, None]).squeeze(1) - logits.mean(1)
    assert parts[""] == pytest.approx(float(beside.mean()), rel=1e-4)


def test_paths_of_other_architectures_have_no_value(zoo, trained):
    twin = merge(zoo, "tome", models=[trained], r=1).id
    table = measure(zoo, ["path_contribution", "accuracy_without_path"], models=[twin])
    assert table["value"].isna().all()
    assert table["refused"].str.contains("of a plain vit or a path_ensemble, not").all()
