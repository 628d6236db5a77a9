"""The share of position in features, against regression on indicators, and by construction."""

import numpy as np
import pytest
import torch

from vitarium.core.errors import NotApplicable
from vitarium.core.registry import choose
from vitarium.measures.attention.position_artifacts import Variance


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def share(features, batch=5):
    variance = Variance()
    for part in features.split(batch):
        variance.add(part)
    return variance.of_position("blocks.0")


def by_regression(features):
    """Residuals of least squares on indicators of position, of image, and of both."""
    n, positions, channels = features.shape
    y = features.double().numpy().reshape(n * positions, channels)
    image = np.kron(np.eye(n), np.ones((positions, 1)))
    position = np.kron(np.ones((n, 1)), np.eye(positions))

    def left(*columns):
        x = np.hstack([np.ones((n * positions, 1)), *columns])
        return ((y - x @ np.linalg.lstsq(x, y, rcond=None)[0]) ** 2).sum()

    explained = left(image) - left(image, position)
    chance = left(image, position) / (n - 1)
    return (explained - chance) / left()


def test_it_is_what_regression_on_positions_explains_beyond_chance():
    features = drawn(12, 9, 4) + drawn(1, 9, 4, seed=1) + 2 * drawn(12, 1, 4, seed=2) + 100
    assert share(features) == pytest.approx(by_regression(features), abs=1e-9)


def test_features_that_are_position_alone_are_all_position():
    assert share(drawn(1, 16, 8).expand(10, -1, -1)) == pytest.approx(1)


@pytest.mark.parametrize("of_image", [0.0, 3.0])
@pytest.mark.parametrize("n", [2, 3, 20])
def test_where_position_says_nothing_it_is_about_zero_for_any_number_of_images(n, of_image):
    """The plain share of variance would be 1/2 for two images, by chance alone."""
    found = [
        share(drawn(n, 16, 8, seed=s) + of_image * drawn(n, 1, 8, seed=s + 500)) for s in range(60)
    ]
    assert abs(sum(found)) / len(found) < 0.02


def test_the_share_of_position_does_not_depend_on_the_number_of_images():
    """One part position to three parts noise: a quarter."""
    for n in (4, 100):
        found = [
            share(drawn(n, 64, 16, seed=s) * 3**0.5 + drawn(1, 64, 16, seed=s + 500))
            for s in range(20)
        ]
        assert sum(found) / len(found) == pytest.approx(0.25, abs=0.02)


def test_every_block_has_a_share_and_the_model_the_last_blocks(subject):
    values = choose("measure", "position_artifacts", num_images=100)(subject)
    assert list(values) == ["", "blocks.0", "blocks.1"]
    assert values[""] == values["blocks.1"]
    seen = []
    hook = subject.model.blocks[0].register_forward_hook(lambda _, __, out: seen.append(out))
    for batch in subject.examples.first(100).batches():
        subject.model(batch.images)
    hook.remove()
    assert values["blocks.0"] == pytest.approx(by_regression(torch.cat(seen)[:, 1:]), abs=1e-5)
    assert 0 < values["blocks.0"] < 1


def test_position_embeddings_raise_the_share(subject):
    measure = choose("measure", "position_artifacts", num_images=60)
    before = measure(subject)["blocks.0"]
    subject.model.pos_embed.data.mul_(20)
    assert measure(subject)["blocks.0"] > before + 0.1


def test_one_patch_or_equal_features_have_no_share():
    with pytest.raises(NotApplicable, match="one patch alone"):
        share(drawn(5, 1, 3))
    with pytest.raises(NotApplicable, match="same features everywhere"):
        share(torch.ones(5, 4, 3))
