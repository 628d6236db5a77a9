"""The Hessian's eigenvalues at the ends of its spectrum."""

from dataclasses import replace

import pytest
import torch

from vitarium import create_model
from vitarium.core.errors import NotApplicable
from vitarium.core.registry import choose
from vitarium.measures.landscape._hessian import Curvature, Hessian


def values(subject, **settings):
    settings = {"num_images": 359, "batch_size": 359} | settings
    return choose("measure", "hessian_eigenvalues", **settings)(subject)


def test_are_those_of_the_closed_form(linear, softmax_regression):
    exact = torch.linalg.eigvalsh(softmax_regression.hessian(linear)).flip(0)
    assert values(linear, count=3, tolerance=1e-4) == {
        "": pytest.approx(exact[0].item(), rel=1e-3),
        "1": pytest.approx(exact[0].item(), rel=1e-3),
        "2": pytest.approx(exact[1].item(), rel=1e-3),
        "3": pytest.approx(exact[2].item(), rel=1e-3),
    }


def test_both_ends_of_the_spectrum_of_a_vit(small_vit):
    """Its loss is not convex: there are negative eigenvalues, too."""
    hessian = Hessian(small_vit, Curvature(num_images=40, batch_size=40))
    whole = (hessian @ torch.eye(hessian.shape[0])).double()
    exact = torch.linalg.eigvalsh((whole + whole.T) / 2)
    assert exact[0] < -0.01
    keys = {"largest": -exact, "smallest": exact, "magnitude": -exact.abs()}
    for end, key in keys.items():
        eigenvalues = values(small_vit, num_images=40, batch_size=40, count=2, end=end)
        first, second = exact[key.argsort()[:2]].tolist()
        assert eigenvalues == pytest.approx({"": first, "1": first, "2": second}, rel=1e-2), end


@pytest.fixture
def small_vit(subject):
    torch.manual_seed(1)
    sizes = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 4, "mlp_ratio": 1}
    model = create_model("vit", num_classes=10, depth=1, num_heads=2, **sizes)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter.data)
    return replace(subject, model=model.eval())


def test_a_start_from_another_seed_finds_the_same(linear):
    assert values(linear, seed=1)[""] == pytest.approx(values(linear)[""], rel=1e-3)


def test_what_does_not_converge_is_said(subject):
    with pytest.raises(NotApplicable, match=r"aaaaaaaaaaaa@1: the 9 .* not converge; .* \(1\)"):
        values(subject, num_images=100, count=9, restarts=1, tolerance=1e-6)


def test_a_loss_without_curvature_has_eigenvalues_of_zero(linear):
    """Every image is of the first class, surely: the probabilities no longer change."""
    linear.model[1].weight.zero_()
    linear.model[1].bias[0] = 1e4
    assert values(linear, count=2) == {"": 0, "1": 0, "2": 0}


def test_a_model_that_is_not_finite_has_none(linear):
    linear.model[1].weight[0, 0] = torch.nan
    with pytest.raises(NotApplicable, match=r"cccccccccccc@1: .* entries are not finite"):
        values(linear)


def test_more_eigenvalues_than_parameters_are_refused(linear):
    with pytest.raises(NotApplicable, match="cccccccccccc@1 has 650 parameters"):
        values(linear, count=650)
