"""Weight matching: it finds copies again, never does worse, and keeps the function."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import random_moves as drawn
from reference import weight_matching as reference
from vitarium import create_model, merge
from vitarium.architectures.symmetries.base import moved
from vitarium.architectures.symmetries.vit import vit_symmetries
from vitarium.core.errors import IncompatibleWeights
from vitarium.core.registry import choose, section
from vitarium.evaluation.inputs import Weights
from vitarium.operators.alignment._matching import Matching, products
from vitarium.operators.alignment._search import kind_of
from vitarium.operators.base import Ingredients

SIZE = {"img_size": 8, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3, "in_chans": 1}


def build(seed, **sizes):
    model = create_model("vit", num_classes=5, **SIZE | sizes)
    section("head", {"name": "mlp", "hidden_dim": 7})(model, 5)
    return drawn.scrambled(model, seed)


MODELS = [build(seed) for seed in range(2)]
SYMMETRIES = vit_symmetries(MODELS[0])
ONE, TWO = [{n: t.clone() for n, t in m.state_dict().items()} for m in MODELS]


def ingredients(one=ONE, two=TWO):
    models = [Weights("one", one), Weights("two", two)]
    return Ingredients(models, symmetries=lambda: SYMMETRIES)


def aligned(given, **settings):
    return dict(choose("operator", "weight_matching", **settings)(given))


def cosine(given, **settings):
    aligned(given, **settings)
    return given.log.metrics["cosine_after"]


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 2**31))
def test_a_permuted_copy_is_found_again_exactly(seed):
    moves = drawn.random_moves(SYMMETRIES, torch.Generator().manual_seed(seed))
    given = ingredients(two=moved(SYMMETRIES, ONE, moves))
    made = aligned(given)
    assert all(torch.equal(made[n], t) for n, t in ONE.items())
    assert given.log.metrics["cosine_after"] == pytest.approx(1, abs=1e-12)


def test_a_model_is_aligned_with_itself_as_it_is():
    made = aligned(ingredients(two=ONE))
    assert all(torch.equal(made[n], t) for n, t in ONE.items())


@torch.no_grad()
def test_the_function_stays():
    model, x = build(1), torch.randn(4, 1, 8, 8)
    before = model(x)
    made = aligned(ingredients())
    assert not all(torch.equal(made[n], t) for n, t in TWO.items())
    model.load_state_dict(made)
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_as_high_as_the_papers_algorithm(seed):
    """From the same start, of which the paper has one."""
    _, found = reference.weight_matching(SYMMETRIES, ONE, TWO, seed=seed)
    given = ingredients()
    aligned(given, restarts=8)
    assert given.log.metrics["cosine_after"] * scale() >= found[-1] * (1 - 1e-12)


def test_the_papers_algorithm_finds_nothing_to_gain_in_the_result():
    given = ingredients()
    _, found = reference.weight_matching(SYMMETRIES, ONE, aligned(given))
    assert found[-1] == pytest.approx(found[0], rel=1e-12)
    assert found[0] == pytest.approx(given.log.metrics["cosine_after"] * scale(), rel=1e-12)


def test_one_start_does_what_the_papers_algorithm_does():
    """Each goes its own random way, and both end where nothing can be gained."""
    for seed in range(3):
        given = ingredients()
        made = aligned(given, restarts=1, seed=seed)
        _, found = reference.weight_matching(SYMMETRIES, ONE, made, seed=seed)
        assert found[-1] == pytest.approx(found[0], rel=1e-12)


def scale():
    return Matching(SYMMETRIES, ONE, TWO, {}).scale


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 2**31))
def test_the_objective_never_falls(seed):
    kinds = dict.fromkeys(SYMMETRIES.groups, "permutation")
    order = torch.Generator().manual_seed(seed)
    start = drawn.random_moves(SYMMETRIES, order)
    objectives = []

    class Watched(Matching):
        def _do(self, moves, group):
            super()._do(moves, group)
            objectives.append(self.objective)

    matching = Watched(SYMMETRIES, ONE, TWO, kinds, start=start)
    objectives.append(matching.objective)
    sweeps = matching.ascend(100, 1e-12, order)
    assert 0 < sweeps < 100
    assert len(objectives) > sweeps
    assert objectives == sorted(objectives)
    # what it keeps of the moves is what it did
    again = Matching(SYMMETRIES, ONE, moved(SYMMETRIES, TWO, matching.moves), {})
    assert again.objective == pytest.approx(objectives[-1], rel=1e-12)


def test_the_objective_is_the_inner_product_of_all_weights():
    expected = sum((ONE[n].double() * TWO[n].double()).sum().item() for n in ONE)
    assert Matching(SYMMETRIES, ONE, TWO, {}).objective == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", ["stream", "attention_heads", "channels", "units"])
def test_what_is_not_to_be_moved_stays(kind):
    made = aligned(ingredients(), **{kind: False})
    groups = [n for n in SYMMETRIES.groups if kind_of(SYMMETRIES, n) == kind]
    assert groups
    free = [
        piece
        for piece in SYMMETRIES.pieces
        if {axis.group for axis in piece.axes} <= {None, *groups}
    ]
    assert all(torch.equal(p.of(made), p.of(TWO)) for p in free)
    assert any(not torch.equal(made[n], t) for n, t in TWO.items())


def test_what_kinds_of_units_there_are():
    found = {n: kind_of(SYMMETRIES, n) for n in SYMMETRIES.groups if "blocks.1" not in n}
    assert found == {
        "stream": "stream",
        "blocks.0.attn.heads": "attention_heads",
        "blocks.0.attn.qk": "channels",
        "blocks.0.attn.vo": "channels",
        "blocks.0.mlp": "units",
        "head.0.hidden": "units",
    }


def test_with_nothing_to_move_nothing_changes():
    fixed = dict.fromkeys(["stream", "attention_heads", "channels", "units"], False)
    weights = aligned(ingredients(), **fixed)
    assert all(torch.equal(weights[n], t) for n, t in TWO.items())


def test_more_starts_are_never_worse():
    found = [cosine(ingredients(), restarts=n) for n in (1, 2, 4, 8)]
    assert found == sorted(found)
    before = Matching(SYMMETRIES, ONE, TWO, {}).objective / scale()
    assert found[0] > before


def test_the_same_seed_gives_the_same_weights():
    one, two = [aligned(ingredients(), restarts=3, seed=4) for _ in range(2)]
    assert all(torch.equal(one[n], two[n]) for n in one)


def test_weights_keep_their_precision():
    """Nothing is rounded on the way: units are only exchanged."""
    doubles = [{n: t.double() + 1e-12 for n, t in model.items()} for model in (ONE, TWO)]
    made = aligned(ingredients(*doubles))
    for name, tensor in made.items():
        assert tensor.dtype == torch.float64
        assert torch.equal(tensor.flatten().sort()[0], doubles[1][name].flatten().sort()[0])


@settings(deadline=None, max_examples=10)
@given(st.sampled_from([(0,), (1,), (2,), (0, 1), (1, 2)]))
def test_products_of_units_are_sums_over_all_else(at):
    a, b = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    rest = [n for n in range(3) if n not in at]
    units = [part.permute(*at, *rest).flatten(0, len(at) - 1).flatten(1) for part in (a, b)]
    expected = torch.einsum("ik,jk->ij", *units)
    torch.testing.assert_close(products(a, b, at), expected)


def test_a_model_that_is_not_finite_is_named():
    bad = {n: t.clone() for n, t in TWO.items()}
    bad["blocks.0.mlp.fc1.bias"][2] = float("nan")
    with pytest.raises(IncompatibleWeights, match=r"two: blocks\.0\.mlp\.fc1\.bias has entries"):
        aligned(ingredients(two=bad))


def test_models_without_their_heads_are_refused():
    parts = [{n: t for n, t in m.items() if "head" not in n} for m in (ONE, TWO)]
    with pytest.raises(IncompatibleWeights, match=r"one: models are aligned with their heads"):
        aligned(ingredients(*parts))


@torch.no_grad()
def test_models_of_a_zoo_are_aligned_before_they_are_averaged(kept_zoo):
    zoo = kept_zoo
    ids = zoo.models().query("stage == 'pretrain'")["id"].tolist()
    turned = merge(zoo, "weight_matching", models=ids).id
    x = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(zoo.load(turned)(x), zoo.load(ids[1])(x), rtol=1e-4, atol=1e-5)
    soup = zoo.state_dict(merge(zoo, "uniform_soup", models=ids, align="weight_matching").id)
    other, first = zoo.state_dict(turned), zoo.state_dict(ids[0])
    for name, tensor in soup.items():
        torch.testing.assert_close(tensor, (first[name] + other[name]) / 2)
