"""Activation matching: units that hold the same are matched, whatever their order."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import random_moves as drawn
from vitarium import create_model, merge
from vitarium.architectures.symmetries.base import moved
from vitarium.architectures.symmetries.vit import vit_symmetries
from vitarium.core.registry import choose, get, section
from vitarium.data.batch import Batch
from vitarium.evaluation.inputs import Weights
from vitarium.operators.alignment._activations import probes, unit_scores
from vitarium.operators.base import Ingredients

SIZE = {"img_size": 28, "embed_dim": 12, "depth": 2, "num_heads": 3, "in_chans": 1}
WAYS = ["correlation", "covariance", "product"]


class Images:
    """As many of the training split as are asked for."""

    def __init__(self, count=24):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(count, 1, 28, 28, generator=generator)

    def __len__(self):
        return len(self.images)

    def first(self, count):
        return Images(min(count, len(self)))

    def batches(self, size):
        for images in self.images.split(size):
            yield Batch(images, torch.zeros(len(images), dtype=torch.int64), None)


def build(seed):
    model = create_model("dinov2", num_classes=5, swiglu=True, **SIZE)
    section("head", {"name": "mlp", "hidden_dim": 7})(model, 5)
    return drawn.scrambled(model, seed)


SYMMETRIES = vit_symmetries(build(0))
ONE, TWO = [{n: t.clone() for n, t in build(s).state_dict().items()} for s in range(2)]


def ingredients(one=ONE, two=TWO):
    return Ingredients(
        [Weights("one", one), Weights("two", two)],
        symmetries=lambda: SYMMETRIES,
        model=lambda: build(0),
        examples=lambda number=None: Images(),
    )


def aligned(given, **settings):
    return dict(choose("operator", "activation_matching", **settings)(given))


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 2**31), st.sampled_from(WAYS))
def test_a_permuted_copy_is_found_again(seed, by):
    moves = drawn.random_moves(SYMMETRIES, torch.Generator().manual_seed(seed))
    made = aligned(ingredients(two=moved(SYMMETRIES, ONE, moves)), by=by)
    assert all(torch.equal(made[n], t) for n, t in ONE.items())


def test_units_of_nested_models_are_found_again_in_their_segments():
    sizes = {
        "patch_size": 14,
        "embed_dims": (4, 8, 12),
        "heads": (1, 3),
        "depths": (2,),
        "mlp_ratios": (1.0, 4.0),
    }

    def nested():
        return drawn.scrambled(create_model("supernet", num_classes=5, **SIZE, **sizes), 0)

    symmetries = get("architecture", "supernet").facts["symmetries"](nested())
    one = nested().state_dict()
    moves = drawn.random_moves(symmetries, torch.Generator().manual_seed(0))
    two = moved(symmetries, one, moves)
    assert not torch.equal(one["blocks.0.mlp.fc2.weight"], two["blocks.0.mlp.fc2.weight"])
    pair = Ingredients(
        [Weights("one", one), Weights("two", two)],
        symmetries=lambda: symmetries,
        model=nested,
        examples=lambda number=None: Images(),
    )
    matched = aligned(pair)
    assert all(torch.equal(matched[n], t) for n, t in one.items())


@pytest.mark.parametrize("by", WAYS)
@torch.no_grad()
def test_the_function_stays(by):
    given, model = ingredients(), build(1)
    x = Images(4).images
    before = model(x)
    made = aligned(given, by=by)
    assert not all(torch.equal(made[n], t) for n, t in TWO.items())
    model.load_state_dict(made)
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-4)


def test_scores_are_those_of_numpy():
    models, name = [build(0), build(1)], "blocks.1.mlp"
    held = [[], []]
    for model, seen in zip(models, held, strict=True):
        model.blocks[1].mlp.fc2.register_forward_pre_hook(
            lambda _, inputs, seen=seen: seen.append(inputs[0].detach().flatten(0, 1))
        )
    found = {by: scores(models, by)[name] for by in WAYS}
    one, two = (torch.cat(seen).chunk(3)[0].double().numpy().T for seen in held)
    units = len(one)
    whole = np.corrcoef(one, two)[:units, units:]
    np.testing.assert_allclose(found["correlation"], whole, atol=1e-5)
    covariance = np.cov(one, two, ddof=0)[:units, units:]
    np.testing.assert_allclose(found["covariance"], covariance, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["product"], one @ two.T / one.shape[1], rtol=1e-4, atol=1e-5)


def test_scores_of_channels_are_of_every_pair_of_heads():
    models, held = [build(0), build(1)], [[], []]
    for model, seen in zip(models, held, strict=True):
        model.blocks[0].attn.qkv.register_forward_hook(
            lambda _, inputs, output, seen=seen: seen.append(output.detach().flatten(0, 1))
        )
    found = scores(models, "correlation")["blocks.0.attn.qk"]
    assert found.shape == (3, 4, 3, 4)
    # [samples, 3, heads, channels]: head 2, channel 1 of the first, head 0, channel 3 of the other
    one, two = (torch.cat(seen).double().reshape(-1, 3, 3, 4).numpy() for seen in held)
    pairs = [np.corrcoef(one[:, part, 2, 1], two[:, part, 0, 3])[0, 1] for part in (0, 1)]
    assert found[2, 1, 0, 3].item() == pytest.approx(sum(pairs), abs=1e-5)


def scores(models, by, batch_size=5):
    return unit_scores(ingredients(), models, (Images(), Images()), by, batch_size)


def test_batches_change_nothing():
    models = [build(0), build(1)]
    one, other = scores(models, "correlation"), scores(models, "correlation", 24)
    for name, expected in other.items():
        torch.testing.assert_close(one[name], expected, rtol=1e-3, atol=1e-4)


def test_a_unit_that_never_changes_is_like_no_other():
    model = build(0)
    with torch.no_grad():
        model.head[0].weight[2] = 0
        model.head[0].bias[2] = 3.0
    found = scores([model, build(1)], "correlation")["head.0.hidden"]
    assert (found[2] == 0).all()
    assert (found[:2] != 0).any()


def test_units_are_seen_where_they_are_read():
    found = {
        name: {(place.layer, place.end) for place in each}
        for name, each in probes(SYMMETRIES, build(0)).items()
    }
    blocks = [f"blocks.{n}" for n in (0, 1)]
    readers = [f"{block}.{layer}" for block in blocks for layer in ("attn.qkv", "mlp.fc1")]
    assert found["stream"] == {(layer, "input") for layer in [*readers, "head.0"]}
    assert found["blocks.0.attn.qk"] == {("blocks.0.attn.qkv", "output")}
    assert found["blocks.0.attn.vo"] == {("blocks.0.attn.proj", "input")}
    assert found["blocks.0.mlp"] == {("blocks.0.mlp.fc2", "input")}
    assert found["head.0.hidden"] == {("head.2", "input")}


def test_what_is_not_to_be_moved_stays():
    made = aligned(ingredients(), stream=False, units=False)
    for name in ("pos_embed", "blocks.0.mlp.fc1.weight", "head.0.weight"):
        assert torch.equal(made[name], TWO[name])
    assert not torch.equal(made["blocks.0.attn.qkv.weight"], TWO["blocks.0.attn.qkv.weight"])


def test_it_tells_how_much_closer_the_weights_are():
    given = ingredients()
    made = aligned(given)
    products = {n: (ONE[n].double() * made[n].double()).sum() for n in ONE}
    norms = [sum(t.double().square().sum() for t in m.values()).sqrt() for m in (ONE, TWO)]
    expected = sum(products.values()) / (norms[0] * norms[1])
    assert given.log.metrics["cosine_after"] == pytest.approx(expected.item())
    assert "cosine with one: before" in given.log.lines[0]


@torch.no_grad()
def test_an_aligned_model_of_a_zoo_computes_what_it_did(kept_zoo):
    ids = kept_zoo.models().query("stage == 'pretrain'")["id"].tolist()
    aligned_id = merge(kept_zoo, "activation_matching", models=ids, num_images=32).id
    x = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(
        kept_zoo.load(aligned_id)(x), kept_zoo.load(ids[1])(x), rtol=1e-4, atol=1e-5
    )
