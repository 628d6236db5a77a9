"""Comparing two models over loaders, where other packages are right and where they fail."""

import pytest
import torch
from cka import compute_cka
from torch.utils.data import DataLoader, TensorDataset
from torch_cka import CKA

from vitarium.core.errors import InvalidInput, NotApplicable, UnknownName
from vitarium.evaluation.compare import compare

BLOCKS = ["blocks.0", "blocks.1"]


@pytest.fixture
def images(subject):
    return torch.cat([batch.images for batch in subject.examples.batches()])


def loader(images, size, **settings):
    return DataLoader(TensorDataset(images, torch.zeros(len(images))), batch_size=size, **settings)


@pytest.fixture
def similarity(subject, other, images):
    return compare(subject.model, other.model, images[:64], tokens="patches", batch_size=32)


def test_every_layer_is_compared_with_every_other(similarity):
    assert list(similarity.index) == list(similarity.columns) == BLOCKS
    assert similarity.to_numpy().max() < 1


@pytest.mark.filterwarnings("ignore")
def test_it_is_what_other_packages_give_where_they_are_right(subject, other, images):
    models, data = (subject.model, other.model), loader(images[:64], 32)
    layers = ["blocks.0.attn", "blocks.1.mlp"]  # torch-cka's order is that in which they run
    # The packages compare all tokens; so ours takes the class token for a patch here.
    for model in models:
        model.num_prefix_tokens = 0
    found = compare(*models, data, layers=layers, tokens="patches", batch_size=32)
    theirs = compute_cka(*models, data, layers=layers, device="cpu", progress=False)[0]
    assert torch.allclose(torch.tensor(found.to_numpy()).float(), theirs, atol=1e-4)
    oldest = CKA(*models, model1_layers=layers, model2_layers=layers)
    oldest.compare(data)
    assert torch.allclose(torch.tensor(found.to_numpy()).float(), oldest.hsic_matrix, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("left", [1, 2, 3])
def test_a_last_batch_of_one_to_three_images_changes_nothing(
    subject, other, images, similarity, left
):
    """Where torch-cka divides by zero, and pytorch-cka gives up."""
    models, data = (subject.model, other.model), loader(images[: 64 + left], 32)
    found = compare(*models, data, tokens="patches", batch_size=32)
    assert found.equals(similarity)
    with pytest.raises((AssertionError, ZeroDivisionError)):
        CKA(*models, model1_layers=BLOCKS, model2_layers=BLOCKS).compare(data)
    with pytest.raises(ValueError, match=f"got {left}"):
        compute_cka(*models, data, layers=BLOCKS, device="cpu", progress=False)


@pytest.mark.parametrize("size", [5, 32, 64])
def test_batches_of_a_loader_are_cut_anew(subject, other, images, similarity, size):
    found = compare(
        subject.model, other.model, loader(images[:64], size), tokens="patches", batch_size=32
    )
    assert found.equals(similarity)


def test_a_loader_that_shuffles_or_can_be_read_once_shows_both_models_the_same(subject, images):
    model = subject.model
    for data in (loader(images, 64, shuffle=True), iter(images.split(50))):
        found = compare(model, _copy(model), data, batch_size=64)
        assert found.to_numpy().diagonal() == pytest.approx([1, 1], abs=1e-5)


def test_a_model_with_itself_runs_once(subject, images):
    runs = []
    subject.model.register_forward_hook(lambda *_: runs.append(1))
    found = compare(subject.model, subject.model, images, batch_size=359)
    assert len(runs) == 1
    assert found.to_numpy().diagonal() == pytest.approx([1, 1], abs=1e-6)


def test_models_may_see_the_same_images_in_their_own_batches(subject, other, images, similarity):
    found = compare(
        subject.model,
        other.model,
        loader(images[:64], 7),
        (tensor for tensor in images[:64].split(10)),
        tokens="patches",
        batch_size=32,
    )
    assert found.equals(similarity)


@pytest.mark.parametrize(("one", "two"), [(64, 96), (96, 64), (64, 66), (3, 64)])
def test_loaders_of_different_length_are_refused(subject, other, images, one, two):
    """Others stop at the shorter one, and say nothing."""
    with pytest.raises(InvalidInput, match=f"would see {one} images, the other {two}"):
        compare(
            subject.model, other.model, loader(images[:one], 32), loader(images[:two], 16),
            batch_size=32,
        )  # fmt: skip


def test_a_layer_that_gives_a_tuple_is_compared_by_its_first(subject, other, images, similarity):
    """torch-cka has no number for it: a tuple has no `flatten`."""
    block = subject.model.blocks[0]
    plain = block.forward
    block.forward = lambda x, **settings: (plain(x, **settings), None)
    after = subject.model.blocks[1]
    after.register_forward_pre_hook(lambda _, inputs: inputs[0])
    found = compare(subject.model, other.model, images[:64], tokens="patches", batch_size=32)
    assert found.equals(similarity)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float16, 2e-3), (torch.bfloat16, 2e-2), (torch.float64, 1e-4)],
)
def test_a_model_of_another_precision_runs_in_it(subject, other, images, dtype, tolerance):
    settings = {"tokens": "patches", "batch_size": 32}
    expected = compare(subject.model, other.model, images[:64], **settings)
    changed = _copy(subject.model).to(dtype)
    for data in (images[:64], images[:64].double(), loader(images[:64].half(), 32)):
        similarities = compare(changed, other.model, data, **settings)
        assert (similarities - expected).abs().to_numpy().max() < tolerance
    assert {parameter.dtype for parameter in changed.parameters()} == {dtype}


def test_inputs_that_cannot_be_compared_are_refused(subject, other, images):
    models = subject.model, other.model
    with pytest.raises(InvalidInput, match=r"expected, not \[359, 64\]"):
        compare(*models, images.flatten(1))
    with pytest.raises(InvalidInput, match="expected, not dict"):
        compare(*models, [{"pixels": images}])
    with pytest.raises(InvalidInput, match=r"\[1, 8, 8\] and \[1, 4, 4\] in one batch"):
        compare(*models, [images, images[:, :, :4, :4]])
    with pytest.raises(InvalidInput, match="'agreement' does not compare features"):
        compare(*models, images, measure="agreement")
    with pytest.raises(InvalidInput, match="batch_size: 3 is not greater than or equal to 4"):
        compare(*models, images, batch_size=3)
    with pytest.raises(UnknownName, match="unknown layer"):
        compare(*models, images, layers=["blocks.7"])
    with pytest.raises(NotApplicable, match="too few images"):
        compare(*models, images[:3])


def _copy(model):
    from copy import deepcopy

    return deepcopy(model)
