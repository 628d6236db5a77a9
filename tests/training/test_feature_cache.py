"""Linear probes: features are computed once, and the bits are those without a cache."""

import pytest
import torch

from training.test_train import Killed, run, spec, weights
from vitarium.training import EpochEnded, TrainOptions, train_state
from vitarium.training._feature_cache import FeatureCache, caches_features

PROBE = {"adaptation": "head", "epochs": 4, "batch_size": 16, "augmentation": "standard"}


@pytest.fixture
def passes(monkeypatch):
    """Sizes of the batches whose features were computed."""
    sizes = []
    original = FeatureCache._features

    def counted(self, images):
        sizes.append(len(images))
        return original(self, images)

    monkeypatch.setattr(FeatureCache, "_features", counted)
    return sizes


def test_features_are_computed_in_the_first_epoch_and_bits_stay(
    tiny, tmp_path, monkeypatch, passes
):
    chosen = spec(tiny, **PROBE)
    epochs = []

    def report(event):
        if isinstance(event, EpochEnded):
            epochs.append((event.epoch, len(passes)))

    cached = run(chosen, tmp_path / "cached", report=report)
    computed = dict(epochs)
    assert computed[1] > computed[0]
    assert computed[4] - computed[2] <= 2  # images that the last, incomplete batch left out
    monkeypatch.setattr(train_state, "caches_features", lambda recipe, options: False)
    plain = run(chosen, tmp_path / "plain")
    assert weights(cached) == weights(plain)
    for epoch, reference in zip(cached.epochs(), plain.epochs(), strict=True):
        for name in ("val_loss", "val_accuracy"):
            assert epoch.metrics[name] == reference.metrics[name]


def test_a_resumed_probe_has_the_bits_of_an_unbroken_one(tiny, tmp_path):
    chosen = spec(tiny, **PROBE)
    unbroken = run(chosen, tmp_path / "unbroken")

    def stop(event):
        if isinstance(event, EpochEnded) and event.epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        run(chosen, tmp_path / "resumed", report=stop)
    assert weights(run(chosen, tmp_path / "resumed")) == weights(unbroken)


def test_images_that_never_come_again_are_not_remembered(tiny, tmp_path, passes):
    noise = {"name": "standard", "random_erasing": 1.0, "random_erasing_mode": "pixel"}
    with_noise = spec(tiny, **PROBE | {"augmentation": noise})
    run(with_noise, tmp_path)
    training = [size for size in passes if size == 16]
    # in two epochs at most, and twice for the trial of the order
    assert len(training) <= 2 * (64 // 16) + 2


def test_only_probes_that_are_trained_singly_are_cached(tiny):
    options = TrainOptions()
    assert caches_features(spec(tiny, **PROBE).recipe, options)
    assert not caches_features(spec(tiny, **PROBE).recipe, TrainOptions(stacked=True))
    for adaptation in ("full", "norms"):
        changed = spec(tiny, **PROBE | {"adaptation": adaptation})
        assert not caches_features(changed.recipe, options)


def test_a_model_whose_bits_depend_on_the_place_of_an_image_is_called_each_time():
    class Uneven(torch.nn.Module):
        pretrained_cfg = None

        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(4, 2)
            self.calls = 0

        def forward(self, images):
            self.calls += 1
            rows = images.flatten(1)[:, :4] + torch.arange(len(images)).unsqueeze(1) * 1e-6
            return self.head(rows)

    model = Uneven()
    cache, images = FeatureCache(model, 8), torch.ones(3, 1, 2, 2)
    expected = model(images)
    for _ in range(3):
        assert torch.equal(cache(images), expected)
    assert model.calls == 1 + 2 + 3
