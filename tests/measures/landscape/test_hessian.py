"""Products with the Hessian."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from vitarium import create_model
from vitarium.core.errors import NotApplicable
from vitarium.evaluation.losses import gradient, parameters
from vitarium.measures.landscape._hessian import Curvature, Hessian


@pytest.fixture
def smallest(subject):
    """A ViT of 348 parameters in float64: small enough to write its Hessian down."""
    torch.manual_seed(1)
    model = create_model(
        "vit",
        num_classes=10,
        img_size=8,
        patch_size=4,
        in_chans=1,
        embed_dim=4,
        depth=1,
        num_heads=2,
        mlp_ratio=1,
    )
    return replace(
        subject, model=model.double().eval(), examples=_float64(subject.examples.first(20))
    )


def _float64(examples):
    """The same examples, in double precision."""

    class Double:
        outputs = examples.outputs

        def batches(self, size):
            for batch in examples.batches(size):
                yield replace(batch, images=batch.images.double())

        def first(self, count):
            return self

        def __len__(self):
            return len(examples)

    return Double()


def test_of_a_vit_has_the_products_that_torch_finds(smallest):
    own = parameters(smallest.model)
    batch = next(smallest.examples.batches(20))
    sizes = [tensor.numel() for tensor in own.values()]

    def value(vector):
        parts = vector.split(sizes)
        point = {name: part.view_as(own[name]) for name, part in zip(own, parts, strict=True)}
        return F.cross_entropy(
            functional_call(smallest.model, point, (batch.images,)), batch.labels
        )

    point = torch.cat([tensor.flatten() for tensor in own.values()])
    # a wrong entry anywhere changes its row's products with vectors that have no zero
    vectors = torch.randn(sum(sizes), 16, dtype=torch.float64)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        products = [torch.autograd.functional.hvp(value, point, v)[1] for v in vectors.T]
    hessian = Hessian(smallest, Curvature(batch_size=7))
    torch.testing.assert_close(hessian @ vectors, torch.stack(products, 1))


def test_is_how_the_gradient_changes(smallest):
    """Every parameter's block against differences of gradients, norms' scales among them."""
    hessian = Hessian(smallest, Curvature())
    torch.manual_seed(2)
    vector = torch.randn(hessian.shape[0], dtype=torch.float64)
    step = 1e-5
    slopes = []
    for sign in (1, -1):
        moved = deepcopy(smallest.model).requires_grad_(False)
        for parameter, part in zip(moved.parameters(), hessian.split(vector), strict=True):
            parameter += sign * step * part
        _, found = gradient(moved, smallest.examples)
        slopes.append(torch.cat([slope.flatten() for slope in found.values()]))
    differences = hessian.split((slopes[0] - slopes[1]) / (2 * step))
    for name, product, expected in zip(
        hessian.names, hessian.split(hessian @ vector), differences, strict=True
    ):
        assert (product - expected).norm() < 1e-6 * (1 + expected.norm()), name


def test_of_softmax_regression_has_a_closed_form(linear, softmax_regression):
    torch.manual_seed(3)
    vectors = torch.randn(650, 3)
    expected = softmax_regression.hessian(linear) @ vectors.double()
    product = Hessian(linear, Curvature(num_images=359, batch_size=100)) @ vectors
    torch.testing.assert_close(product.double(), expected, rtol=1e-3, atol=1e-5)


def test_is_that_of_curvlinops_where_no_norm_is(linear):
    """With a LayerNorm theirs is wrong in torch 2.15: forward over backward goes wrong there."""
    from curvlinops import HessianLinearOperator

    torch.manual_seed(4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.GELU(), nn.Linear(6, 10)).eval()
    subject = replace(linear, model=model)
    batches = [(b.images, b.labels) for b in subject.examples.first(50).batches(20)]
    theirs = HessianLinearOperator(
        model, nn.CrossEntropyLoss(), list(model.parameters()), batches, check_deterministic=False
    )
    ours = Hessian(subject, Curvature(num_images=50))
    vector = torch.randn(ours.shape[0])
    torch.testing.assert_close(ours @ vector, (theirs @ vector).detach(), rtol=1e-3, atol=1e-5)


def test_a_parameter_without_use_is_flat(linear):
    linear.model.spare = nn.Parameter(torch.ones(3))
    hessian = Hessian(linear, Curvature(num_images=10))
    product = hessian.split(hessian @ torch.ones(hessian.shape[0]))
    assert torch.equal(product[hessian.names.index("spare")], torch.zeros(3))


def test_a_function_that_is_differentiated_once_alone_is_named(smallest):
    smallest.model.head = nn.Sequential(nn.Hardsigmoid(), smallest.model.head)
    hessian = Hessian(smallest, Curvature())
    with pytest.raises(NotApplicable, match=r"no second derivative: .*hardsigmoid"):
        hessian @ torch.ones(hessian.shape[0])
