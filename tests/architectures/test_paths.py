"""Residual paths: their components add up, to the stream and to the logits."""

from itertools import combinations

import pytest
import torch
from torch import nn

from vitarium.architectures.paths import (
    classified,
    contributions,
    path_names,
    pooled_paths,
    recording_paths,
)
from vitarium.core import seeds
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import choose

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 12, "depth": 3, "num_heads": 2}
KINDS = [
    ("vit", {}),
    ("vit", {"init_values": 0.1, "global_pool": "avg", "class_token": False}),
    ("path_ensemble", {}),
    ("path_ensemble", {"attention": "cosine", "global_pool": "avg", "reg_tokens": 2}),
    ("uneven_vit", {"hidden": (3, 5, 7), "head_dim": 5}),
]


def built(name, **settings):
    with seeds.seeded(0):
        model = choose("architecture", name, **SIZES, **settings)(4).double().eval()
        for parameter in model.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    return model.requires_grad_(False)


@pytest.fixture
def images():
    return torch.randn(5, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def components(model, images):
    with recording_paths(model) as recorded:
        outputs = model(images)
    return list(recorded), outputs


@pytest.mark.parametrize(("name", "settings"), KINDS)
def test_components_add_up_to_what_the_last_norm_sees(name, settings, images):
    model, seen = built(name, **settings), {}
    model.norm.register_forward_pre_hook(lambda _, inputs: seen.update(stream=inputs[0]))
    recorded, _ = components(model, images)
    assert len(recorded) == len(path_names(model)) == 7
    torch.testing.assert_close(sum(recorded), seen["stream"], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "settings"), KINDS)
def test_contributions_and_the_constant_add_up_to_the_logits(name, settings, images):
    model = built(name, **settings)
    recorded, outputs = components(model, images)
    pooled = pooled_paths(model, recorded)
    torch.testing.assert_close(classified(model, pooled.sum(1)), outputs, rtol=0, atol=1e-10)
    by_path, constant = contributions(model, pooled)
    torch.testing.assert_close(by_path.sum(1) + constant, outputs, rtol=0, atol=1e-10)


class Linear(nn.Module):
    """A linear branch of tokens."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix = matrix

    def forward(self, x, **kwargs):
        return x @ self.matrix.T


def test_of_linear_branches_components_are_sums_over_all_paths_through_them(images):
    """z = prod_k (I + B_k) x is the sum over 2^n paths; component k has those that end with B_k."""
    model, generator = built("vit"), torch.Generator().manual_seed(2)
    matrices = [torch.randn(12, 12, dtype=torch.float64, generator=generator) for _ in range(6)]
    for number, block in enumerate(model.blocks):
        block.norm1, block.norm2 = nn.Identity(), nn.Identity()
        block.attn, block.mlp = Linear(matrices[2 * number]), Linear(matrices[2 * number + 1])
    recorded, _ = components(model, images)
    expected = [torch.zeros_like(recorded[0]) for _ in recorded]
    paths = [path for count in range(7) for path in combinations(range(6), count)]
    assert len(paths) == 2**6
    for path in paths:
        tokens = recorded[0]
        for number in path:
            tokens = tokens @ matrices[number].T
        expected[path[-1] + 1 if path else 0] += tokens
    for component, of_paths in zip(recorded, expected, strict=True):
        torch.testing.assert_close(component, of_paths, rtol=1e-10, atol=1e-10)


def test_with_scales_of_1_it_is_the_vit(images):
    vit = built("vit", init_values=0.1)
    ensemble = choose("architecture", "path_ensemble", **SIZES, init_values=0.1)(4).double().eval()
    missing = ensemble.load_state_dict(vit.state_dict(), strict=False)
    assert missing.missing_keys == ["path_scales"]
    assert not missing.unexpected_keys
    torch.testing.assert_close(ensemble(images), vit(images), rtol=0, atol=1e-12)


def test_with_the_embedding_alone_it_is_the_classifier_of_that(images):
    model = built("path_ensemble")
    model.path_scales.data[:] = 0
    model.path_scales.data[0] = 1
    embedded = model._pos_embed(model.patch_embed(images))[:, 0]
    expected = model.head(model.norm(embedded))
    torch.testing.assert_close(model(images), expected, rtol=0, atol=1e-12)


def test_scales_of_0_stay_and_others_learn(images):
    model = built("path_ensemble").requires_grad_(True)
    model.path_scales.data[2] = 0
    model.path_scales.data[4, 5] = 0
    model(images).square().sum().backward()
    is_zero = model.path_scales == 0
    assert int(is_zero.sum()) == 13
    assert (model.path_scales.grad[is_zero] == 0).all()
    assert (model.path_scales.grad[~is_zero] != 0).all()


def test_other_architectures_and_heads_are_refused(images):
    for name in ("jumbo", "distilled_vit"):
        small = {"class_token": False, "global_pool": "avg"} if name == "jumbo" else {}
        model = choose("architecture", name, **{**SIZES, "depth": 1}, **small)(4)
        with pytest.raises(InvalidInput, match="of a plain vit or a path_ensemble, not"):
            path_names(model)
    model = built("vit")
    model.head = nn.Sequential(model.head)
    recorded, _ = components(model, images)
    with pytest.raises(InvalidInput, match="only a linear head"):
        contributions(model, pooled_paths(model, recorded))
