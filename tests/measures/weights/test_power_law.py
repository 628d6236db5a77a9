"""alpha and alpha_hat: the fits of `powerlaw` and WeightWatcher, and Pareto's own exponent."""

import warnings

import numpy as np
import powerlaw
import pytest
import scipy.stats
import torch

from vitarium.core.errors import NotApplicable
from vitarium.core.registry import choose
from vitarium.evaluation.inputs import Weights
from vitarium.measures.weights import power_law
from vitarium.measures.weights.power_law import fit


def eigenvalues(rows: int, columns: int, seed: int, heavy: float = 0.0) -> np.ndarray:
    """Of W^T W for a Gaussian W, or one with Student's t of `heavy` degrees of freedom."""
    noise = np.random.default_rng(seed)
    matrix = (
        noise.standard_t(heavy, (rows, columns)) if heavy else noise.normal(size=(rows, columns))
    )
    return np.linalg.svd(matrix / rows**0.5, compute_uv=False) ** 2


def slowly(values: np.ndarray) -> tuple[float, float, float]:
    """Clauset et al., one xmin after the other, straight from their formulas."""
    found = []
    for xmin in np.unique(values)[:-1]:
        tail = np.sort(values[values >= xmin])
        alpha = 1 + len(tail) / np.log(tail / xmin).sum()
        expected = 1 - (tail / xmin) ** (1 - alpha)
        distance = np.abs(expected - np.arange(len(tail)) / len(tail)).max()
        found.append((distance, alpha, xmin))
    distance, alpha, xmin = min(found)
    return alpha, xmin, distance


@pytest.mark.parametrize(("rows", "columns", "heavy"), [(64, 40, 0), (90, 60, 2.5), (48, 48, 3)])
def test_the_fit_is_that_of_powerlaw_and_of_a_slow_search(rows, columns, heavy):
    values = eigenvalues(rows, columns, seed=1, heavy=heavy)
    ours = fit(values)
    assert (ours.alpha, ours.xmin, ours.distance) == pytest.approx(slowly(values), rel=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # it would pass over exponents beyond 3
        limits = {"alpha": [1, 1000]}
        theirs = powerlaw.Fit(values, verbose=False, parameter_ranges=limits).power_law
    assert ours.alpha == pytest.approx(theirs.alpha, rel=1e-6)
    assert ours.xmin == pytest.approx(theirs.xmin, rel=1e-9)
    assert ours.distance == pytest.approx(theirs.D, rel=1e-6)


def test_equal_numbers_are_tried_once():
    values = np.repeat(eigenvalues(30, 20, seed=2, heavy=3), 2)
    ours = fit(values)
    assert (ours.alpha, ours.xmin, ours.distance) == pytest.approx(slowly(values), rel=1e-9)


def test_the_fit_finds_the_exponent_that_numbers_were_drawn_with():
    values = scipy.stats.pareto(b=1.5, scale=0.2).rvs(3000, random_state=np.random.default_rng(0))
    assert fit(values).alpha == pytest.approx(2.5, abs=0.15)


def test_searching_in_parts_changes_nothing(monkeypatch):
    values = eigenvalues(80, 70, seed=3, heavy=2.5)
    whole = fit(values)
    monkeypatch.setattr(power_law, "_CHUNK_NUMBERS", 500)
    assert fit(values) == whole


def test_alpha_has_no_scale():
    values = eigenvalues(80, 70, seed=3, heavy=2.5)
    assert fit(values * 37).alpha == pytest.approx(fit(values).alpha, rel=1e-9)


@pytest.fixture(scope="module")
def layers() -> torch.nn.Module:
    noise = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(60, 80), torch.nn.Linear(80, 50))
    for layer in model:
        tails = torch.randn(layer.weight.shape, generator=noise).pow(3)
        layer.weight.data = 0.2 * tails
    return model


def test_alpha_and_alpha_hat_are_weightwatchers(layers):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import weightwatcher

        watcher = weightwatcher.WeightWatcher(model=layers)
        theirs = watcher.analyze()
    summary = watcher.get_summary(theirs)
    weights = Weights("a@1", layers.state_dict(), skeleton=lambda: layers)
    for ours, column in (
        ("alpha", "alpha"),
        ("alpha_hat", "alpha_weighted"),
        ("stable_rank", "stable_rank"),
        ("spectral_norm", "sv_max"),
    ):
        values = choose("measure", ours)(weights)
        assert [values["0.weight"], values["1.weight"]] == pytest.approx(
            list(theirs[column]), rel=1e-6
        )
        if column in summary:
            assert values[""] == pytest.approx(summary[column], rel=1e-6)


def test_alpha_hat_weighs_with_the_largest_eigenvalue(layers):
    weights = Weights("a@1", layers.state_dict())
    alpha, hat, norm = (
        choose("measure", name)(weights) for name in ("alpha", "alpha_hat", "spectral_norm")
    )
    for part in ("0.weight", "1.weight"):
        assert hat[part] == pytest.approx(alpha[part] * np.log10(norm[part] ** 2))


def test_small_spectra_have_no_alpha():
    noise = torch.Generator().manual_seed(0)
    small = torch.randn(7, 30, generator=noise)
    large = torch.randn(20, 30, generator=noise)
    tensors = {"small.weight": small, "large.weight": large, "even.weight": torch.eye(9)}
    for name in ("alpha", "alpha_hat"):
        assert choose("measure", name)(Weights("a@1", tensors)).keys() == {"", "large.weight"}
        with pytest.raises(NotApplicable, match="a@1 has no weight matrix"):
            choose("measure", name, smallest=1e9)(Weights("a@1", tensors))
