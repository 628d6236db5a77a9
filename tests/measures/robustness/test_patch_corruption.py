"""Natural corruption of patches."""

import pytest
import torch

from vitarium.core.config import InvalidConfig
from vitarium.core.registry import choose
from vitarium.measures.robustness._corruption_functions import corrupted
from vitarium.measures.robustness._patches import patch_grid
from vitarium.measures.robustness._perturbation import pixel_batches, streams
from vitarium.measures.robustness.patch_corruption import PatchCorruption, patches_corrupted


def measured(subject, **settings):
    return choose("measure", "patch_corruption", **settings)(subject)


def test_only_the_chosen_patches_change_and_as_the_whole_image_would(subject, examples):
    config = PatchCorruption(num_patches=3, corruption="contrast")
    grid = patch_grid(subject)
    batch = next(pixel_batches(examples, 20))
    changed = patches_corrupted(config, grid, batch)
    mask = grid.pixels(grid.chosen(config, batch.indices))
    everywhere = corrupted(batch.pixels, "contrast", 5, streams(0, "x", batch.indices))
    assert torch.equal(changed[~mask], batch.pixels[~mask])
    assert torch.equal(changed[mask], everywhere[mask])
    assert mask.sum((1, 2, 3)).tolist() == [12] * 20


def test_with_every_patch_it_is_the_corruption_of_the_image(subject):
    settings = {"num_images": 120, "seed": 4}
    patches = measured(subject, num_patches=16, corruption="gaussian_noise", **settings)
    image = choose("measure", "corruptions", names=["gaussian_noise"], severities=[5], **settings)(
        subject
    )
    assert patches["accuracy"] == pytest.approx(1 - image["gaussian_noise"])
    assert patches["clean"] == pytest.approx(1 - image["clean"])


def test_more_patches_fool_more(subject):
    few, many = (measured(subject, num_patches=count, corruption="contrast") for count in (1, 12))
    assert few[""] < many[""]
    assert few["clean"] == many["clean"]


def test_a_temperature_changes_what_is_right_before_and_after(subject):
    assert measured(subject, temperature=4.0)["clean"] < measured(subject)["clean"]
    assert measured(subject, temperature=1) == measured(subject)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_patches": 0},
        {"placement": "left"},
        {"size": 0},
        {"temperature": 0},
        {"severity": 6},
        {"corruption": "fog"},
    ],
)
def test_wrong_settings_are_named(wrong):
    with pytest.raises(InvalidConfig, match=next(iter(wrong))):
        choose("measure", "patch_corruption", **wrong)
