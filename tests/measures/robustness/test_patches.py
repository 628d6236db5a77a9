"""Which pixels a patch has, and which patches are chosen."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from vitarium.core.errors import NotApplicable
from vitarium.measures.robustness._patches import PatchGrid, PatchSettings, patch_grid


def test_the_grid_is_the_models_own(subject):
    assert patch_grid(subject) == PatchGrid(height=2, width=2, rows=4, columns=4)
    assert patch_grid(subject, 4) == PatchGrid(height=4, width=4, rows=2, columns=2)


def test_a_patch_is_a_token(subject, examples):
    """Changing the pixels of a patch changes the embedding of that one alone."""
    grid = patch_grid(subject)
    chosen = torch.zeros(1, 16, dtype=torch.bool)
    chosen[0, 6] = True
    images = next(examples.batches(1)).images
    changed = torch.where(grid.pixels(chosen), images + 1, images)
    embedded = [subject.model.patch_embed(one) for one in (images, changed)]
    differs = (embedded[0] != embedded[1]).any(-1)
    assert torch.equal(differs, chosen)


def test_patches_that_are_not_square_fill_rows_first():
    grid = PatchGrid(height=1, width=2, rows=2, columns=2)
    mask = grid.pixels(torch.tensor([[False, True, False, False]]))
    assert mask.int().tolist() == [[[[0, 0, 1, 1], [0, 0, 0, 0]]]]


@pytest.mark.parametrize("placement", ["random", "center"])
@pytest.mark.parametrize("count", [1, 5, 16])
def test_so_many_patches_are_chosen(placement, count):
    grid = PatchGrid(2, 2, 4, 4)
    chosen = grid.chosen(PatchSettings(num_patches=count, placement=placement), range(9))
    assert chosen.sum(1).tolist() == [count] * 9


def test_the_middle_is_what_is_nearest_to_it():
    grid = PatchGrid(2, 2, 5, 5)
    settings = PatchSettings(num_patches=5, placement="center")
    cross = grid.chosen(settings, range(2)).view(2, 5, 5)
    assert cross[1].nonzero().tolist() == [[1, 2], [2, 1], [2, 2], [2, 3], [3, 2]]


def test_random_patches_depend_on_the_seed_and_the_place_alone():
    grid = PatchGrid(2, 2, 8, 8)
    chosen = grid.chosen(PatchSettings(), range(200))
    assert torch.equal(grid.chosen(PatchSettings(), [7, 150]), chosen[[7, 150]])
    assert not torch.equal(grid.chosen(PatchSettings(seed=1), range(200)), chosen)
    assert len(set(chosen.int().argmax(1).tolist())) > 50


def test_more_patches_than_there_are_is_an_error():
    settings = PatchSettings(num_patches=17)
    with pytest.raises(NotApplicable, match="num_patches is 17, and there are 16 patches of 2"):
        PatchGrid(2, 2, 4, 4).chosen(settings, range(1))


def test_models_without_patches_are_refused(subject):
    flat = replace(subject, model=nn.Linear(2, 2))
    with pytest.raises(NotApplicable, match="aaaaaaaaaaaa@1: Linear has no patch_embed"):
        patch_grid(flat)


def test_patches_that_leave_a_rest_are_refused(subject):
    with pytest.raises(NotApplicable, match="patches of 3 by 3 pixels do not fill images of 8"):
        patch_grid(subject, 3)


def test_patches_of_a_convolutions_output_are_refused(subject):
    """timm's hybrid embeddings have a patch size of 1: of features, not of pixels."""
    subject.model.patch_embed = SimpleNamespaceModule(patch_size=(1, 1), grid_size=(2, 2))
    with pytest.raises(NotApplicable, match="its patches are not parts of the image"):
        patch_grid(subject)


class SimpleNamespaceModule(nn.Module, SimpleNamespace):
    def __init__(self, **values):
        nn.Module.__init__(self)
        self.__dict__.update(values)
