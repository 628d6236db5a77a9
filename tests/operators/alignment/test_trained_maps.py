"""Maps of units that can be trained."""

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn

from vitarium import create_model
from vitarium.architectures.symmetries._folding import folded
from vitarium.architectures.symmetries.base import moved
from vitarium.architectures.symmetries.vit import vit_symmetries
from vitarium.operators.alignment._trained_maps import (
    Exchange,
    Invertible,
    Rotation,
    mean_free,
    nearest_permutation,
    rearranged,
)


def changed(one, scale=0.3):
    """As after some training."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        one.free += scale * torch.randn(one.free.shape, generator=generator)
    return one


@pytest.fixture
def small_vit():
    torch.manual_seed(0)
    sizes = {"img_size": 8, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3}
    model = create_model("vit", num_classes=5, **sizes).double().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    return model


def maps_of(symmetries, kind):
    found = {}
    for name, group in symmetries.groups.items():
        places = symmetries.groups[group.inside].size if group.inside else None
        if kind == "permutation" or group.maps == "permutation":
            found[name] = Exchange(group.size, places)
        elif group.maps == "orthogonal":
            found[name] = Rotation(group.size, places, keeps_mean=True)
        else:
            found[name] = kind(group.size, places)
        changed(found[name])
    return {name: one.double() for name, one in found.items()}


@pytest.mark.parametrize("one", [Rotation(5, 2), Invertible(5, 2), Exchange(5, 2)])
def test_all_begin_as_the_identity(one):
    expected = torch.eye(5).expand(2, 5, 5)
    for matrices in one():
        torch.testing.assert_close(matrices, expected)


@pytest.mark.parametrize("places", [None, 3])
def test_a_rotation_is_orthogonal_and_may_keep_the_mean(places):
    found = changed(Rotation(6, places, keeps_mean=True)).exact()
    ones = torch.ones(6, dtype=torch.float64)
    torch.testing.assert_close(found @ found.mT, torch.eye(6).double().expand(found.shape))
    torch.testing.assert_close(found @ ones, ones.expand(found.shape[:-1]))
    assert (found - torch.eye(6)).abs().max() > 0.1


def test_small_rotations_go_along_the_free_numbers():
    """Cayley: (I + S)^-1 (I - S) = I - 2 S + 2 S^2 - ..., S the skew-symmetric part."""
    one = changed(Rotation(4).double(), 1e-4)
    skew = (one.free - one.free.T).detach() / 4  # of 4 units
    expected = torch.eye(4) - 2 * skew + 2 * skew @ skew
    torch.testing.assert_close(one.exact(), expected.double(), rtol=0, atol=1e-10)


def test_rotations_train_to_the_nearest_orthogonal_matrix():
    """That is the polar factor U V' of a matrix with determinant above 0."""
    torch.manual_seed(2)
    target = torch.eye(4).double() + 0.4 * torch.randn(4, 4, dtype=torch.float64)
    assert torch.det(target) > 0
    one = Rotation(4).double()
    optimizer = torch.optim.LBFGS(one.parameters(), max_iter=100, tolerance_grad=1e-12)

    def loss():
        optimizer.zero_grad()
        value = (one()[0] - target).square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    u, _, v = torch.linalg.svd(target)
    torch.testing.assert_close(one.exact(), u @ v, rtol=0, atol=1e-4)


def test_what_reads_invertible_maps_gets_the_inverse():
    written, read = changed(Invertible(4, 2).double())()
    torch.testing.assert_close(read.mT @ written, torch.eye(4).double().expand(2, 4, 4))


def test_an_exchange_is_the_nearest_permutation_and_lets_gradients_through():
    one = changed(Exchange(5))
    places = torch.arange(5)
    _, columns = linear_sum_assignment(-one.free.detach())
    assert one.exact().tolist() == columns.tolist()
    matrix, _ = one()
    assert matrix.detach()[places, one.exact()].tolist() == pytest.approx([1] * 5)
    weights = torch.arange(25.0).view(5, 5)
    (matrix * weights).sum().backward()
    assert torch.equal(one.free.grad, weights)


def test_the_nearest_permutation_is_nearest_of_all():
    matrices = torch.rand(4, 3, 3, generator=torch.Generator().manual_seed(3))
    everything = torch.tensor([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])
    for matrix, found in zip(matrices, nearest_permutation(matrices), strict=True):
        off = [(nn.functional.one_hot(p, 3) - matrix).norm().item() for p in everything]
        assert found.tolist() == everything[off.index(min(off))].tolist()


def test_the_basis_is_orthonormal_and_has_mean_zero():
    basis = mean_free(7)
    torch.testing.assert_close(basis.T @ basis, torch.eye(6).double())
    torch.testing.assert_close(basis.sum(0), torch.zeros(6).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["permutation", Rotation, Invertible])
def test_weights_are_rearranged_as_exact_moves_rearrange_them(small_vit, kind):
    symmetries = vit_symmetries(small_vit)
    weights = (
        small_vit.state_dict()
        if kind == "permutation"
        else folded(symmetries, small_vit.state_dict())
    )
    maps = maps_of(symmetries, kind)
    rearranged_weights = rearranged(
        symmetries, weights, {name: one() for name, one in maps.items()}
    )
    expected = moved(symmetries, weights, {name: one.exact() for name, one in maps.items()})
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    before = small_vit(images)
    for name, tensor in expected.items():
        torch.testing.assert_close(rearranged_weights[name], tensor, rtol=0, atol=1e-9)
    small_vit.load_state_dict(rearranged_weights)
    torch.testing.assert_close(small_vit(images), before, rtol=0, atol=1e-9)


def test_every_map_gets_a_gradient(small_vit):
    symmetries = vit_symmetries(small_vit)
    maps = maps_of(symmetries, Invertible)
    weights = folded(symmetries, small_vit.state_dict())
    point = rearranged(symmetries, weights, {name: one() for name, one in maps.items()})
    middle = {name: (tensor + weights[name]) / 2 for name, tensor in point.items()}
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    torch.func.functional_call(small_vit, middle, (images,)).square().sum().backward()
    for one in maps.values():
        assert one.free.grad.abs().max() > 0
