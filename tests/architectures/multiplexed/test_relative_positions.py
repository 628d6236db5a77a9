"""Relative positions: a loop over pairs of tokens says the same, whatever the settings."""

from copy import deepcopy
from itertools import product

import pytest
import torch
from torch.func import functional_call, vmap

from reference import relative_positions as reference
from vitarium.architectures.multiplexed._relative_positions import (
    RelativePositionConfig,
    RelativePositions,
)
from vitarium.core.config import InvalidConfig
from vitarium.core.devices import meta_device

METHODS = ("product", "euclidean", "quantized", "cross")
SUBSETS = [("q",), ("k",), ("v",), ("q", "k"), ("q", "v"), ("k", "v"), ("q", "k", "v")]
SETTINGS = [
    {"method": method, "mode": mode, "on": on, "shared_heads": shared}
    for method, mode, on, shared in product(METHODS, ("contextual", "bias"), SUBSETS, (True, False))
    if mode == "contextual" or "v" not in on
]
EVERYTHING = [
    {"method": method, "on": ("q", "k", "v"), "shared_heads": shared}
    for method, shared in product(METHODS, (True, False))
] + [{"method": method, "mode": "bias", "on": ("q", "k")} for method in METHODS]
GRID = (2, 5)
HEADS, HEAD_DIM = 2, 3


def build(settings, *, grid=GRID, prefix_tokens=0, seed=0):
    config = RelativePositionConfig.read(settings)
    made = RelativePositions(
        config, num_heads=HEADS, head_dim=HEAD_DIM, grid=grid, prefix_tokens=prefix_tokens
    ).double()
    noise = torch.Generator().manual_seed(seed)
    for table in made.parameters():
        table.data.copy_(torch.randn(table.shape, generator=noise, dtype=torch.float64))
    return made


def tables(made):
    """The tables of q, k, v, as the reference wants them."""
    own = dict(made.named_parameters())
    names = {"q": "query", "k": "key", "v": "value"}
    return {
        on: [table for name, table in own.items() if name.split("_")[0] == whole]
        for on, whole in names.items()
    }


def both(made, inputs):
    query, key, values, probabilities = inputs
    return made.logits(query, key), made.values(values, probabilities)


@pytest.mark.parametrize("prefix_tokens", [0, 2])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_every_setting_is_the_loop_over_pairs_of_tokens(settings, prefix_tokens):
    made = build(settings, grid=(2, 3), prefix_tokens=prefix_tokens)
    inputs = reference.random_inputs(6 + prefix_tokens)
    with torch.no_grad():
        expected = reference.encoded(made.config, tables(made), (2, 3), prefix_tokens, *inputs)
        for ours, theirs in zip(both(made, inputs), expected, strict=True):
            assert (ours - theirs).abs().max() < 1e-12


@pytest.mark.parametrize("settings", EVERYTHING, ids=str)
def test_long_rows_are_the_loop_over_pairs_too(settings):
    made = build(settings, grid=(2, 9))
    inputs = reference.random_inputs(18, batch=1)
    with torch.no_grad():
        expected = reference.encoded(made.config, tables(made), (2, 9), 0, *inputs)
        for ours, theirs in zip(both(made, inputs), expected, strict=True):
            assert (ours - theirs).abs().max() < 1e-12


@pytest.mark.parametrize("settings", EVERYTHING, ids=str)
def test_gradients_are_those_of_the_loop(settings):
    made = build(settings, grid=(2, 2), prefix_tokens=1)
    inputs = [one.requires_grad_() for one in reference.random_inputs(5)]
    sources = [*inputs, *made.parameters()]
    of_values, _, _, of_logits = reference.random_inputs(5, seed=1)

    def gradients(found):
        loss = (found[0] * of_logits).sum() + (found[1] * of_values).sum()
        return torch.autograd.grad(loss, sources, materialize_grads=True, allow_unused=True)

    ours = gradients(both(made, inputs))
    theirs = gradients(reference.encoded(made.config, tables(made), (2, 2), 1, *inputs))
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() < 1e-12


@pytest.mark.parametrize("settings", EVERYTHING, ids=str)
def test_tables_start_at_zero_and_change_nothing_then(settings):
    config = RelativePositionConfig.read(settings)
    made = RelativePositions(config, num_heads=HEADS, head_dim=HEAD_DIM, grid=GRID).double()
    query, key, values, probabilities = reference.random_inputs(10)
    logits, found = both(made, (query, key, values, probabilities))
    assert torch.equal(logits, query @ key.mT)
    assert torch.equal(found, values)


def test_the_defaults_are_mini_deits():
    made = RelativePositions(RelativePositionConfig(), num_heads=6, head_dim=64, grid=(14, 14))
    assert {name: tuple(t.shape) for name, t in made.state_dict().items()} == {"key": (1, 64, 49)}
    assert not list(made.buffers())


@pytest.mark.parametrize(
    ("settings", "prefix_tokens", "shapes"),
    [
        ({"on": ["v", "q"]}, 1, {"query": (1, 3, 50), "value": (1, 3, 50)}),
        ({"shared_heads": False}, 3, {"key": (2, 3, 50)}),
        ({"method": "euclidean"}, 0, {"key": (1, 3, 7)}),
        ({"method": "quantized", "mode": "bias"}, 1, {"key": (1, 8)}),
        ({"method": "cross"}, 1, {"key_rows": (1, 3, 8), "key_columns": (1, 3, 8)}),
        ({"mode": "bias", "shared_heads": False}, 0, {"key": (2, 49)}),
        ({"ratio": 1.0}, 0, {"key": (1, 3, 25)}),
    ],
    ids=str,
)
def test_tables_have_the_numbers_of_buckets_that_the_authors_have(settings, prefix_tokens, shapes):
    made = build(settings, prefix_tokens=prefix_tokens)
    assert {name: tuple(table.shape) for name, table in made.named_parameters()} == shapes


@pytest.mark.parametrize("method", METHODS)
def test_what_was_trained_on_a_grid_serves_another(method):
    small, large = build({"method": method}), build({"method": method}, grid=(4, 7), seed=1)
    large.load_state_dict(small.state_dict())
    query = torch.ones(1, HEADS, 1, HEAD_DIM, dtype=torch.float64)
    few, many = (
        made.logits(query.expand(-1, -1, n, -1), torch.zeros(1, HEADS, n, HEAD_DIM).double())
        for made, n in ((small, 10), (large, 28))
    )
    assert torch.equal(few[..., :5, :5], many[..., :5, :5])
    assert torch.equal(few[..., :5, 5:], many[..., :5, 7:12])


@pytest.mark.parametrize("prefix_tokens", [1, 3])
def test_prefix_tokens_share_one_bucket(prefix_tokens):
    made = build({"mode": "bias"}, prefix_tokens=prefix_tokens)
    n = 10 + prefix_tokens
    zeros = torch.zeros(1, HEADS, n, HEAD_DIM, dtype=torch.float64)
    found = made.logits(zeros, zeros)
    own = made.key[0, -1]
    assert (found[..., :prefix_tokens, :] == own).all()
    assert (found[..., :prefix_tokens] == own).all()
    assert (found[..., prefix_tokens:, prefix_tokens:] != own).all()


@pytest.mark.parametrize("settings", EVERYTHING, ids=str)
def test_stacked_models_encode_like_each_alone(settings):
    models = [build(settings, prefix_tokens=1, seed=seed) for seed in range(3)]
    weights = {
        name: torch.stack([dict(model.named_parameters())[name] for model in models]).detach()
        for name, _ in models[0].named_parameters()
    }
    each = [reference.random_inputs(11, seed=seed) for seed in range(3)]
    inputs = [torch.stack(same) for same in zip(*each, strict=True)]

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.positions = deepcopy(models[0])

        def forward(self, *inputs):
            return both(self.positions, inputs)

    def one(weights, *inputs):
        named = {f"positions.{name}": weight for name, weight in weights.items()}
        return functional_call(template, named, inputs)

    template = Both()
    stacked = vmap(one)(weights, *inputs)
    for number, model in enumerate(models):
        for ours, alone in zip(stacked, both(model, each[number]), strict=True):
            assert (ours[number] - alone).abs().max() < 1e-12


@pytest.mark.parametrize("settings", EVERYTHING, ids=str)
def test_mixed_precision_keeps_the_type_and_comes_near(settings):
    made = build(settings, prefix_tokens=1)
    exact = both(made, reference.random_inputs(11))
    short = [one.bfloat16() for one in reference.random_inputs(11)]
    made.float()
    with torch.autocast("cpu", torch.bfloat16):
        found = both(made, short)
    sum(one.float().sum() for one in found).backward()
    for ours, theirs in zip(found, exact, strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours - theirs).abs().max() < 0.05 * theirs.abs().max()
    assert all(table.grad.isfinite().all() for table in made.parameters())


def test_copies_share_the_buckets():
    made = build({})
    assert deepcopy(made).buckets is made.buckets
    assert build({}, seed=1).buckets is made.buckets


def test_models_can_be_made_without_memory_and_get_it_later():
    with meta_device():
        made = RelativePositions(
            RelativePositionConfig(), num_heads=HEADS, head_dim=HEAD_DIM, grid=GRID
        )
        shapes = both(made, [torch.empty(2, HEADS, 10, n) for n in (3, 3, 3, 10)])
    assert shapes[0].shape == (2, HEADS, 10, 10)
    made = made.to_empty(device="cpu").double()
    made.load_state_dict(build({}).state_dict())
    inputs = reference.random_inputs(10)
    assert torch.equal(both(made, inputs)[0], both(build({}), inputs)[0])


def test_the_order_of_what_is_encoded_does_not_matter():
    first, second = (RelativePositionConfig.read({"on": on}) for on in (["v", "q"], ["q", "v"]))
    assert first == second


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"on": []}, "name at least one of q, k, v"),
        ({"on": ["k", "k"]}, "twice"),
        ({"on": ["keys"]}, "'q', 'k' or 'v'"),
        ({"mode": "bias", "on": ["k", "v"]}, "cannot be on values"),
        ({"method": "manhattan"}, "'product'"),
        ({"mode": "both"}, "'contextual' or 'bias'"),
        ({"ratio": 0}, "ratio"),
        ({"ratio": float("inf")}, "ratio"),
        ({"heads": 2}, "unknown factor 'heads'"),
    ],
    ids=str,
)
def test_bad_settings_are_refused(settings, says):
    with pytest.raises(InvalidConfig, match=says):
        RelativePositionConfig.read(settings)
