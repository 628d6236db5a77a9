"""Spectral norm, stable rank and effective rank: closed forms, NumPy, and what leaves them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitarium.core.errors import NotApplicable
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import Weights

NAMES = ["spectral_norm", "stable_rank", "effective_rank"]


def of_matrix(name: str, matrix: torch.Tensor) -> float:
    return choose("measure", name)(Weights("a@1", {"layer.weight": matrix}))["layer.weight"]


def test_all_directions_of_an_orthogonal_matrix_count_alike():
    matrix = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(0)))[0]
    assert of_matrix("spectral_norm", matrix) == pytest.approx(1, rel=1e-6)
    assert of_matrix("stable_rank", matrix) == pytest.approx(12, rel=1e-5)
    assert of_matrix("effective_rank", matrix) == pytest.approx(12, rel=1e-5)


def test_a_product_of_two_vectors_has_rank_one():
    matrix = torch.outer(torch.arange(1.0, 6), torch.arange(1.0, 9))
    norm = matrix.norm().item()
    assert of_matrix("spectral_norm", matrix) == pytest.approx(norm, rel=1e-6)
    assert of_matrix("stable_rank", matrix) == pytest.approx(1, rel=1e-6)
    assert of_matrix("effective_rank", matrix) == pytest.approx(1, rel=1e-6)


def test_known_singular_values_give_known_ranks():
    matrix = torch.diag(torch.tensor([4.0, 2.0, 2.0, 0.0]))
    assert of_matrix("spectral_norm", matrix) == 4
    assert of_matrix("stable_rank", matrix) == (16 + 4 + 4) / 16
    # shares 1/2, 1/4, 1/4: entropy 1.5 bits
    assert of_matrix("effective_rank", matrix) == pytest.approx(2**1.5)


def by_numpy(name: str, matrix: np.ndarray) -> float:
    values = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    shares = values[values > 0] / values.sum()
    return {
        "spectral_norm": np.linalg.norm(matrix.astype(np.float64), 2),
        "stable_rank": np.linalg.norm(matrix.astype(np.float64)) ** 2 / values[0] ** 2,
        "effective_rank": np.exp(-(shares * np.log(shares)).sum()),
    }[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_trained_model_has_numpys_values_and_their_mean(name, subject):
    weights = Weights("a@1", subject.model.state_dict(), skeleton=lambda: subject.model)
    values = dict(choose("measure", name, heads=True)(weights))
    whole = values.pop("")
    assert len(values) == 2 + 2 * (4 + 3 + 3 * 2)
    expected = {}
    for part in values:
        tensor, *rest = part.split("/")
        matrix = weights[tensor].flatten(1)
        if rest:
            matrix = matrix.chunk(3)["qkv".index(rest[0])]
        if rest[1:]:
            matrix = matrix.chunk(2)[int(rest[1].removeprefix("head"))]
        expected[part] = by_numpy(name, matrix.numpy())
    assert values == pytest.approx(expected, rel=1e-9)
    layers = [value for part, value in expected.items() if "/" not in part]
    assert len(layers) == 10
    assert whole == pytest.approx(np.mean(layers), rel=1e-9)


def test_heads_are_given_on_request_alone(subject):
    weights = Weights("a@1", subject.model.state_dict(), skeleton=lambda: subject.model)
    without = choose("measure", "stable_rank")(weights)
    with_heads = choose("measure", "stable_rank", heads=True)(weights)
    assert not any("/head" in part for part in without)
    assert without.items() < with_heads.items()


def test_singular_values_are_computed_once_for_all_measures(subject, monkeypatch):
    weights = Weights("a@1", subject.model.state_dict(), skeleton=lambda: subject.model)
    choose("measure", "spectral_norm")(weights)
    monkeypatch.setattr(torch.linalg, "svdvals", lambda *args: pytest.fail("computed again"))
    for name in ("stable_rank", "effective_rank", "alpha", "alpha_hat"):
        assert choose("measure", name, **({"smallest": 0} if "alpha" in name else {}))(weights)


@settings(deadline=None, max_examples=20)
@given(
    rows=st.integers(2, 12),
    columns=st.integers(2, 12),
    seed=st.integers(0, 2**31),
    scale=st.floats(0.01, 100),
)
def test_order_of_rows_does_not_matter_and_ranks_have_no_scale(rows, columns, seed, scale):
    noise = torch.Generator().manual_seed(seed)
    matrix = torch.randn(rows, columns, generator=noise)
    shuffled = matrix[torch.randperm(rows, generator=noise)]
    for name in NAMES:
        value = of_matrix(name, matrix)
        assert of_matrix(name, shuffled) == pytest.approx(value, rel=1e-9)
        factor = scale if name == "spectral_norm" else 1
        assert of_matrix(name, matrix * scale) == pytest.approx(value * factor, rel=1e-5)
        if name != "spectral_norm":
            assert 1 - 1e-9 <= value <= min(rows, columns) + 1e-9


def test_a_matrix_of_zeros_has_a_norm_and_no_rank():
    zero, eye = torch.zeros(3, 3), torch.eye(3)
    weights = Weights("a@1", {"zero.weight": zero, "eye.weight": eye})
    assert choose("measure", "spectral_norm")(weights) == {
        "": 0.5,
        "zero.weight": 0,
        "eye.weight": 1,
    }
    for name in ("stable_rank", "effective_rank"):
        assert choose("measure", name)(weights) == pytest.approx({"": 3, "eye.weight": 3})
        with pytest.raises(NotApplicable, match="a@1 has no weight matrix that has this value"):
            choose("measure", name)(Weights("a@1", {"zero.weight": zero}))
