"""CLIP and SigLIP against brute forces in float64, on two views and on two modalities."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import vitarium
from vitarium import Blueprint, create_model, grow, plan
from vitarium.core import registry, seeds
from vitarium.core.config import InvalidConfig
from vitarium.core.registry import choose, section
from vitarium.data.batch import Batch
from vitarium.data.load import load
from vitarium.engine.check import ModelCheck
from vitarium.objectives.companions import Progress
from vitarium.objectives.paired.clip import clip_loss
from vitarium.objectives.paired.siglip import siglip_loss
from vitarium.training import stack_key
from vitarium.training.parameter_groups import parameter_groups


def units(count, width=6, seed=0):
    stream = torch.Generator().manual_seed(seed)
    values = torch.randn(2, count, width, dtype=torch.float64, generator=stream)
    return F.normalize(values, dim=-1).unbind(0)


def clip_brute_force(first: np.ndarray, second: np.ndarray, scale: float) -> float:
    count, total = len(first), 0.0
    for i in range(count):
        pair = math.exp(scale * first[i] @ second[i])
        row = sum(math.exp(scale * first[i] @ second[j]) for j in range(count))
        column = sum(math.exp(scale * first[j] @ second[i]) for j in range(count))
        total -= 0.5 * (math.log(pair / row) + math.log(pair / column))
    return total / count


def siglip_brute_force(first, second, scale, offset, positives) -> float:
    count, total = len(first), 0.0
    for i in range(count):
        for j in range(count):
            sign = 1 if positives[i][j] else -1
            total += math.log1p(math.exp(-sign * (scale * first[i] @ second[j] + offset)))
    return total / count


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_clip_is_its_definition(scale):
    first, second = units(7)
    expected = clip_brute_force(first.numpy(), second.numpy(), scale)
    assert clip_loss(first, second, scale).item() == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("labels", [None, [0, 1, 0, 2, 2, 2, 3]])
def test_siglip_is_its_definition(labels):
    first, second = units(7)
    same = None if labels is None else torch.tensor(labels)[:, None] == torch.tensor(labels)
    positives = np.eye(7, dtype=bool) if same is None else same.numpy()
    expected = siglip_brute_force(first.numpy(), second.numpy(), 10.0, -3.0, positives)
    value = siglip_loss(first, second, 10.0, -3.0, same).item()
    assert value == pytest.approx(expected, rel=1e-12)


def at_zero(count, offset):
    """The loss where all similarities are 0."""
    return (count - 1) * math.log1p(math.exp(offset)) + math.log1p(math.exp(-offset))


@pytest.mark.parametrize(
    ("count", "offset", "published"),
    [(64, -10, 10.003), (1024, -10, 10.05), (32_768, -10, 11.5), (64, 0, 64 * math.log(2))],
)
def test_similarities_of_zero_give_the_published_values(count, offset, published):
    assert at_zero(count, offset) == pytest.approx(published, rel=1.5e-3)
    few = min(count, 1024)
    orthogonal = torch.zeros(few, 2, dtype=torch.float64), torch.zeros(few, 2).double()
    value = siglip_loss(*orthogonal, 10.0, offset).item()
    assert value == pytest.approx(at_zero(few, offset), rel=1e-12)


@pytest.mark.parametrize("labels", [None, [0, 1, 0, 2, 2, 2, 3]])
@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_in_chunks_it_is_the_same_loss_with_the_same_gradient(labels, chunk):
    same = None if labels is None else torch.tensor(labels)[:, None] == torch.tensor(labels)
    first, second = (side.requires_grad_() for side in units(7))
    values = [siglip_loss(first, second, 10.0, -3.0, same, size) for size in (None, chunk)]
    assert values[1].item() == pytest.approx(values[0].item(), rel=1e-14)
    gradients = [torch.autograd.grad(value, (first, second)) for value in values]
    for whole, in_chunks in zip(*gradients, strict=True):
        torch.testing.assert_close(in_chunks, whole, rtol=1e-12, atol=1e-14)


def test_pairs_of_equal_labels_are_the_plain_ones_where_all_differ():
    first, second = units(5)
    positives = torch.eye(5, dtype=torch.bool)
    value = siglip_loss(first, second, 10.0, -10.0, positives).item()
    assert value == pytest.approx(siglip_loss(first, second, 10.0, -10.0).item(), rel=1e-13)


@pytest.mark.parametrize("loss", [clip_loss, lambda u, v, s: siglip_loss(u, v, s, -10.0)])
def test_both_are_symmetric_and_do_not_see_a_common_rotation(loss):
    first, second = units(7)
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))
    value = loss(first, second, 10.0).item()
    assert loss(first @ rotation, second @ rotation, 10.0).item() == pytest.approx(value, rel=1e-12)
    assert loss(second, first, 10.0).item() == pytest.approx(value, rel=1e-12)


def test_a_constant_on_all_similarities_changes_siglip_alone():
    first, second = units(7)
    added = [F.pad(side, (0, 1), value=1.0) for side in (first, second)]  # similarities + 1
    clip = clip_loss(*added, 2.0).item()
    assert clip == pytest.approx(clip_loss(first, second, 2.0).item(), rel=1e-12)
    before, after = (siglip_loss(*pair, 2.0, 0.0) for pair in ((first, second), added))
    assert abs(before.item() - after.item()) > 0.1


def test_twins_in_the_batch_are_false_negatives_of_clip():
    apart = torch.eye(4, dtype=torch.float64)
    twins = apart.repeat_interleave(2, 0)
    assert clip_loss(apart, apart, 100.0).item() == pytest.approx(0, abs=1e-12)
    assert clip_loss(twins, twins, 100.0).item() == pytest.approx(math.log(2), rel=1e-12)


def test_siglips_gradient_of_a_similarity_depends_on_it_alone():
    def gradient(similarities):
        values = torch.tensor(similarities, dtype=torch.float64, requires_grad=True)
        siglip_loss(values, torch.eye(2, dtype=torch.float64), 1.0, 0.0).backward()
        return values.grad

    first, second = gradient([[0.3, 0.1], [0.7, -0.2]]), gradient([[0.3, 0.9], [-0.5, 0.4]])
    assert first[0, 0] == second[0, 0]
    assert first[0, 1] != second[0, 1]


def objective(name="siglip", **settings):
    return section("objective", {"name": name, "out_dim": 8, **settings})


def with_companions(chosen, channels=3):
    with seeds.seeded(0):
        model = create_model(
            "vit", img_size=16, patch_size=8, embed_dim=24, depth=1, num_heads=2, in_chans=channels
        )
        choose("head", "none")(model, 3)
        return model, chosen.facts["companions"](chosen.config, model, 3)


def batch(channels=3):
    stream = torch.Generator().manual_seed(0)
    labels = torch.arange(6) % 3
    images = torch.randn(12, channels, 16, 16, generator=stream)
    return Batch(images, labels, F.one_hot(labels).float())


@pytest.mark.parametrize("hidden", [None, 10])
def test_two_modalities_share_the_blocks_and_have_patches_of_their_own(hidden):
    chosen = objective(second_modality_channels=1, projector_hidden_dim=hidden)
    model, companions = with_companions(chosen)
    images = batch(4).images
    first, second = companions.pairs(model, images)
    as_first = F.normalize(companions.projector(model(images[:6, :3])), dim=1)
    torch.testing.assert_close(first, as_first)
    # the model with the other patch embedding in its place, on the second view's last channel
    own = model.patch_embed.proj
    model.patch_embed.proj = companions.patch_embed
    as_second = F.normalize(companions.second_projector(model(images[6:, 3:])), dim=1)
    model.patch_embed.proj = own
    torch.testing.assert_close(second, as_second)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_all_that_learns_has_a_gradient_with_two_modalities(name):
    chosen = objective(name, second_modality_channels=2)
    model, companions = with_companions(chosen, 1)
    chosen(model, batch(3), companions).value.backward()
    for module in (model, companions):
        for parameter, weight in module.named_parameters():
            assert weight.grad is not None, parameter


def test_equal_labels_can_be_pairs():
    model, companions = with_companions(objective())
    first, second = (side.detach() for side in companions.pairs(model, batch().images))
    labels = batch().labels
    for equal, positives in (("negative", np.eye(6)), ("positive", labels[:, None] == labels)):
        value = objective(equal_labels=equal)(model, batch(), companions).value.item()
        sides = first.double().numpy(), second.double().numpy()
        expected = siglip_brute_force(*sides, 10.0, -10.0, positives.tolist())
        assert value == pytest.approx(expected, rel=1e-5)


def test_the_scale_is_at_most_100_and_comes_back():
    chosen = objective("clip", initial_scale=99.0)
    model, companions = with_companions(chosen)
    with torch.no_grad():
        companions.log_scale += 1
        assert companions.scale == 100
        companions.after_step(model, {}, Progress(epoch=1, epochs=1, step=0, steps=1))
    assert companions.log_scale.item() == pytest.approx(math.log(100))
    with pytest.raises(InvalidConfig, match="initial_scale: 101 is not less than or equal to 100"):
        objective("clip", initial_scale=101)


def recipe(tiny, name, **changes):
    tiny["stages"]["pretrain"] |= {"objective": {"name": name, "out_dim": 8}} | changes
    return plan(Blueprint.read(tiny)).models[0]


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_scale_and_offset_are_not_decayed(tiny, name):
    spec = recipe(tiny, name)  # AdamW, with weight decay
    chosen = spec.recipe.objective
    model, companions = with_companions(chosen)
    decayed, undecayed = parameter_groups(model, spec.recipe, companions)
    names = {"log_scale"} | ({"offset"} if name == "siglip" else set())
    excluded = {id(parameter) for parameter in undecayed["params"]}
    assert undecayed["weight_decay"] == 0
    assert "weight_decay" not in decayed
    assert excluded == {id(p) for n, p in companions.named_parameters() if n in names}
    assert stack_key(spec) is None
    without = recipe(tiny, name, optimizer={"name": "sgd", "lr": 0.1})
    assert stack_key(without) is not None


def test_images_of_other_channels_are_refused_before_training(tiny, tmp_path):
    chosen = {"name": "clip", "out_dim": 8, "second_modality_channels": 1}
    tiny["stages"] = {"pretrain": tiny["stages"]["pretrain"] | {"objective": chosen}}
    message = "have 1 channels, and not the 1 of the model and the 1 of its objective"
    with pytest.raises(InvalidConfig, match=message):
        ModelCheck().check_plan(plan(Blueprint.read(tiny)))
    with pytest.raises(InvalidConfig, match=message):
        grow(tiny, tmp_path / "zoo", workers=0)


def test_colors_of_two_modalities_are_refused_before_training(tiny):
    chosen = {"name": "clip", "second_modality_channels": 3}
    augmentation = {"name": "simclr", "hue": 0, "grayscale": 0}
    tiny["stages"]["pretrain"] |= {"objective": chosen, "augmentation": augmentation}
    with pytest.raises(InvalidConfig, match="color_jitter needs gray images or RGB, not 4"):
        plan(Blueprint.read(tiny))


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_a_batch_of_one_image_is_refused(tiny, name):
    with pytest.raises(InvalidConfig, match="compares the images of a batch: give 2 at least"):
        recipe(tiny, name, batch_size=1)


@pytest.fixture
def two_modalities(monkeypatch):
    """A data set of four channels: RGB, and one that is its brightness, upside down."""
    monkeypatch.setitem(registry._plugins, "dataset", dict(registry._plugins["dataset"]))

    @vitarium.dataset(name="modalities_of_tests")
    def modalities(split):
        if split != "train":
            return None
        stream = np.random.default_rng(0)
        labels = np.arange(96) % 4
        colors = stream.integers(0, 128, (96, 3, 8, 8)) + 30 * labels[:, None, None, None]
        images = np.concatenate([colors, colors.mean(1, keepdims=True)[:, :, ::-1]], 1)
        return torch.from_numpy(images.astype(np.uint8)), labels

    return "modalities_of_tests"


def test_a_data_set_of_four_channels_trains_a_model_of_three(tiny, tmp_path, two_modalities):
    architecture = tiny["stages"]["pretrain"]["architecture"] | {"in_chans": 3}
    stage = tiny["stages"]["pretrain"] | {
        "architecture": architecture,
        "data": two_modalities,
        "objective": {"name": "clip", "out_dim": 8, "second_modality_channels": 1},
        "augmentation": {"name": "modality_masking", "modalities": [3, 1]},
        "epochs": 1,
    }
    zoo = grow(tiny | {"stages": {"pretrain": stage}}, tmp_path / "zoo", workers=0).zoo
    row = zoo.models().iloc[0]
    assert row["status"] == "finished"
    assert 0 <= row["test_probe_accuracy"] <= 1
    # whoever loads its images sees those of the model: the first three channels
    images = zoo.data(row["id"], split="test")
    dataset = load(section("dataset", two_modalities))
    pixels = dataset.test.images[0][:3].double() / 255
    mean, std = (torch.tensor(values[:3]).view(3, 1, 1) for values in (dataset.mean, dataset.std))
    torch.testing.assert_close(images[0][0].double(), (pixels - mean) / std, rtol=1e-4, atol=1e-5)
