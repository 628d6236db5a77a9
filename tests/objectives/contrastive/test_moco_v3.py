"""MoCo v3: its loss by brute force, published counts, and what does not learn."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vitarium import Blueprint, create_model, plan
from vitarium.architectures.patch_tokens import sin_cos_positions
from vitarium.core import seeds
from vitarium.core.config import InvalidConfig
from vitarium.core.registry import choose, section
from vitarium.data.batch import Batch
from vitarium.objectives._projectors import normalized_projector
from vitarium.objectives._similarities import info_nce
from vitarium.objectives.companions import Progress
from vitarium.objectives.contrastive._momentum import MomentumCompanions, prepare
from vitarium.training import train
from vitarium.zoo import ModelFolder

SETTINGS = {"projector_hidden_dim": 24, "out_dim": 8, "momentum": 0.5}


def objective(**settings):
    return section("objective", {"name": "moco_v3", **SETTINGS, **settings})


@pytest.fixture
def model():
    with seeds.seeded(0):
        model = create_model("vit", img_size=16, patch_size=8, embed_dim=24, depth=1, num_heads=2)
        choose("head", "none")(model, 3)
        prepare(objective().config, model, True)
    return model


@pytest.fixture
def companions(model):
    with seeds.seeded(1):
        return MomentumCompanions(objective().config, model)


@pytest.fixture
def batch():
    images = torch.randn(12, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(6) % 3
    return Batch(images, labels, F.one_hot(labels).float())


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_projector_and_predictor_have_the_published_numbers_of_parameters():
    with torch.device("meta"):
        assert count(normalized_projector(768, 4096, 4096, 256)) == 20_987_904
        assert count(normalized_projector(256, 4096, 256)) == 2_105_344


def test_info_nce_is_its_definition():
    stream = torch.Generator().manual_seed(0)
    queries, keys = F.normalize(torch.randn(2, 7, 5, dtype=torch.float64, generator=stream), dim=-1)
    similarities = np.exp(queries.numpy() @ keys.numpy().T / 0.2)
    expected = -np.mean([math.log(similarities[i, i] / similarities[i].sum()) for i in range(7)])
    assert info_nce(queries, keys, 0.2).item() == pytest.approx(expected, rel=1e-12)


def test_the_loss_is_that_of_both_directions(model, companions, batch):
    def batch_normalized(values):
        deviations = values - values.mean(0)
        return deviations / (deviations.pow(2).mean(0) + 1e-5).sqrt()

    def projected(layers, values):
        *hidden, last = [m for m in layers if isinstance(m, torch.nn.Linear)]
        for layer in hidden:
            values = batch_normalized(values @ layer.weight.double().T).relu()
        return batch_normalized(values @ last.weight.double().T)

    def log_shares(queries, keys):
        return (F.normalize(queries, dim=1) @ F.normalize(keys, dim=1).T / 0.2).log_softmax(1)

    # a freshly made key encoder is the model, and batch normalization starts with weights of 1
    views = [model(batch.images[half]).detach().double() for half in (slice(6), slice(6, 12))]
    keys = [projected(companions.projector, view) for view in views]
    queries = [projected(companions.predictor, key) for key in keys]
    expected = sum(
        -2 * 0.2 * log_shares(queries[view], keys[1 - view]).diag().mean() for view in (0, 1)
    )
    value = objective()(model, batch, companions).value.item()
    assert value == pytest.approx(expected.item(), rel=1e-4)


def test_the_loss_is_symmetric_in_the_views(model, companions, batch):
    swapped = Batch(batch.images.roll(6, 0), batch.labels, batch.targets)
    values = [objective()(model, each, companions).value.item() for each in (batch, swapped)]
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_keys_have_no_gradient(model, companions, batch):
    objective()(model, batch, companions).value.backward()
    for name, parameter in companions.named_parameters():
        is_key = name.startswith("key_")
        assert parameter.requires_grad != is_key, name
        assert (parameter.grad is None) == is_key, name


def test_the_key_encoder_follows_by_a_cosine_and_its_statistics_are_its_own(
    model, companions, batch
):
    objective()(model, batch, companions)
    statistics = companions.key_projector.module[1].running_mean.clone()
    assert not torch.equal(statistics, torch.zeros_like(statistics))
    with torch.no_grad():
        before = [p.clone() for p in companions.key_encoder.parameters()]
        for parameter in model.parameters():
            parameter += 1
        companions.after_step(model, {}, Progress(epoch=1, epochs=1, step=0, steps=4))
    momentum = 1 - 0.5 * (1 - 0.5) * (1 + math.cos(math.pi / 4))  # of step 1 of 4
    for own, old, new in zip(
        companions.key_encoder.parameters(), before, model.parameters(), strict=True
    ):
        torch.testing.assert_close(own, momentum * old + (1 - momentum) * new)
    assert torch.equal(companions.key_projector.module[1].running_mean, statistics)


def test_the_patch_embedding_is_drawn_within_its_bound(model):
    weight = model.patch_embed.proj.weight
    bound = math.sqrt(6 / (3 * 8 * 8 + 24))
    assert 0.98 * bound < weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert (model.patch_embed.proj.bias == 0).all()
    assert torch.equal(model.pos_embed[0, 1:], sin_cos_positions((2, 2), 24))


def trained(tiny, tmp_path, **settings):
    """Weights before and after training, of two models."""
    stage = tiny["stages"]["pretrain"] | {"objective": {"name": "moco_v3", **SETTINGS, **settings}}
    weights = []
    for spec in plan(Blueprint.read(tiny | {"stages": {"pretrain": stage | {"epochs": 1}}})).models:
        folder = ModelFolder(tmp_path / spec.id)
        assert train(spec, folder) == "finished"
        weights.append([folder.weights(epoch) for epoch in (0, 1)])
    return weights


def test_what_is_frozen_keeps_its_bits_over_training(tiny, tmp_path):
    frozen = ("patch_embed.proj.weight", "patch_embed.proj.bias", "pos_embed")
    models = trained(tiny, tmp_path)
    for start, end in models:
        for name, value in end.items():
            assert torch.equal(value, start[name]) == (name in frozen), name
    assert not torch.equal(models[0][0][frozen[0]], models[1][0][frozen[0]])  # other seeds


def test_both_can_be_switched_off(tiny, tmp_path):
    for start, end in trained(tiny, tmp_path, frozen_patch_embed=False, fixed_positions=False):
        for name, value in end.items():
            assert not torch.equal(value, start[name]), name


def test_a_model_that_goes_on_keeps_its_patch_embedding(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.requires_grad_(True)
    prepare(objective().config, model, False)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not model.patch_embed.proj.weight.requires_grad
    assert not model.pos_embed.requires_grad


@pytest.mark.parametrize("name", ["simclr", "moco_v3", "supcon", "softcon"])
def test_a_batch_of_one_image_is_refused(tiny, name):
    tiny["stages"]["pretrain"] |= {"objective": name, "batch_size": 1}
    with pytest.raises(InvalidConfig, match="compares the images of a batch: give 2 at least"):
        plan(Blueprint.read(tiny))
