"""MoTHer finds trees that fit what it presumes, and says what weights do not tell."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import adjusted_rand_score

from vitarium.core.config import InvalidConfig
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import choose, get
from vitarium.evaluation.inputs import Weights
from vitarium.lineage.base import ModelSet


def parents(forest) -> dict[str, str | None]:
    return {model: next(iter(of), None) for model, of in forest.parents.items()}


def recover(grown, trees=None, **options):
    return choose("lineage", "mother", **options)(grown.model_set, trees)


def share_right(forest, grown) -> float:
    return np.mean([grown.parents[child] == parent for child, parent in parents(forest).items()])


def by_formula(model_set: ModelSet, sign: int, penalty: float) -> np.ndarray:
    """The costs of edges, entry by entry: from the paper's formulas, with scipy's kurtosis."""
    vectors = [
        {n: m[n].double().flatten().numpy() for n in model_set.tensors} for m in model_set.models
    ]
    count = len(model_set)
    distances = np.array(
        [[np.mean([np.linalg.norm(a[n] - b[n]) for n in a]) for b in vectors] for a in vectors]
    )
    kurtosis = [stats.kurtosis(v["blocks.0.attn.proj.weight"]) for v in vectors]
    mean = distances.sum() / (count * (count - 1))
    costs = distances.copy()
    for parent in range(count):
        for child in range(count):
            if sign * kurtosis[child] > sign * kurtosis[parent]:
                costs[parent, child] += penalty * mean
    return costs


STAGES = [
    ("specialization", "falls", (0.4, 0.5)),
    ("generalization", "grows", (0.4, 0.6)),
]


@pytest.mark.parametrize(("direction", "kurtosis", "steps"), STAGES)
@pytest.mark.parametrize("is_direction_set", [True, False])
def test_trees_of_random_steps_are_found(
    direction, kurtosis, steps, is_direction_set, lineage_trees
):
    for seed in range(3):
        grown = lineage_trees.grow(seed, trees=3, fans=(4, 2), kurtosis=kurtosis, steps=steps)
        forest = recover(grown, direction=direction if is_direction_set else "estimate")
        assert parents(forest) == grown.parents
        assert adjusted_rand_score(grown.families, forest.families) == 1
        assert set(forest.roots) == {name for name, parent in grown.parents.items() if not parent}


@pytest.mark.parametrize(("direction", "kurtosis", "steps"), STAGES)
def test_with_the_wrong_sign_no_root_is_found(direction, kurtosis, steps, lineage_trees):
    grown = lineage_trees.grow(0, trees=3, fans=(3,), kurtosis=kurtosis, steps=steps)
    wrong = {"specialization": "generalization", "generalization": "specialization"}[direction]
    forest = recover(grown, direction=wrong)
    assert all(grown.parents[root] is not None for root in forest.roots)
    assert adjusted_rand_score(grown.families, forest.families) == 1


@pytest.mark.parametrize(("direction", "kurtosis", "steps"), STAGES)
def test_a_forest_says_which_sign_was_estimated(direction, kurtosis, steps, lineage_trees):
    grown = lineage_trees.grow(0, trees=2, fans=(4,), kurtosis=kurtosis, steps=steps)
    verb = {"falls": "fall", "grows": "grow"}[kurtosis]
    assert f"kurtosis is taken to {verb} from parent to child" in recover(grown).notes[0]
    assert recover(grown, direction=direction).notes == []


def test_a_chain_whose_medoid_is_in_its_middle_is_directed_by_cost(lineage_trees):
    grown = lineage_trees.grow(1, fans=(1, 1, 1, 1), steps=(0.25,) * 4)
    assert parents(recover(grown)) == grown.parents


@settings(deadline=None, max_examples=10)
@given(
    seed=st.integers(0, 2**31), sign=st.sampled_from([1, -1]), penalty=st.sampled_from([0, 0.3, 2])
)
def test_trees_are_the_least_costly_of_all_by_the_formulas(
    seed, sign, penalty, lineage_trees, arborescences
):
    grown = lineage_trees.grow(seed, fans=(2, 1), steps=(0.1, 0.1))
    direction = "specialization" if sign > 0 else "generalization"
    forest = recover(grown, 1, direction=direction, penalty=penalty)
    costs = by_formula(grown.model_set, sign, penalty)
    indices = {name: index for index, name in enumerate(grown.model_set.names)}
    paid = sum(costs[indices[edge.parent], indices[edge.child]] for edge in forest.edges)
    assert paid == pytest.approx(min(cost for _, _, cost in arborescences.every(costs)), rel=1e-6)


@pytest.mark.parametrize("distance", ["mean_absolute", "largest"])
def test_other_distances_find_trees_too(distance, lineage_trees):
    grown = lineage_trees.grow(2, trees=2, fans=(3, 2), steps=(0.5, 0.4))
    forest = recover(grown, 2, distance=distance)
    assert share_right(forest, grown) >= (1 if distance == "mean_absolute" else 0.8)
    assert adjusted_rand_score(grown.families, forest.families) == 1


def test_changes_of_low_rank_are_traced_by_their_rank():
    """Of large rank-1 steps, by rank; l2 takes siblings with small ones for parent and child."""
    noise = torch.Generator().manual_seed(0)
    name = "blocks.0.attn.proj.weight"

    def step(size: float) -> torch.Tensor:
        return size * torch.randn(24, 1, generator=noise) @ torch.randn(1, 24, generator=noise)

    heavy = torch.randn(24, 24, generator=noise) ** 3
    tensors = {"root": heavy}
    for child in range(3):
        tensors[f"child {child}"] = heavy + step(0.4)
        for grandchild in range(2):
            tensors[f"child {child}.{grandchild}"] = tensors[f"child {child}"] + step(0.4)
    model_set = ModelSet([Weights(n, {name: t}) for n, t in tensors.items()], [name])
    parent_of = parents(
        choose("lineage", "mother", distance="rank", direction="specialization")(model_set, 1)
    )
    undirected = {frozenset((child, parent)) for child, parent in parent_of.items() if parent}
    true = {frozenset((n, n[:-2])) for n in tensors if "." in n}
    assert undirected == true | {frozenset(("root", f"child {child}")) for child in range(3)}


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**31))
def test_order_and_names_of_models_mean_nothing(seed, lineage_trees):
    grown = lineage_trees.grow(seed % 20, trees=2, fans=(3, 1))
    rng = np.random.default_rng(seed)
    names = {
        name: f"{number:03}"
        for name, number in zip(grown.parents, rng.permutation(100), strict=False)
    }
    models = [Weights(names[m.name], dict(m)) for m in grown.model_set.models]
    shuffled = ModelSet(
        [models[index] for index in rng.permutation(len(models))], grown.model_set.tensors
    )
    forest, again = recover(grown), choose("lineage", "mother")(shuffled, None)
    assert list(again.models) == shuffled.names
    assert next(iter(again.families)) == 0
    expected = {(names[e.parent], names[e.child]): e.confidence for e in forest.edges}
    confidences = {(e.parent, e.child): e.confidence for e in again.edges}
    assert confidences == pytest.approx(expected, rel=1e-6)
    assert again.roots == pytest.approx({names[r]: c for r, c in forest.roots.items()}, rel=1e-6)


def test_models_with_the_same_weights_are_tied_and_their_edges_unsure(lineage_trees):
    grown = lineage_trees.grow(0, fans=(3, 1))
    root = next(name for name, parent in grown.parents.items() if parent is None)
    original = next(model for model in grown.model_set.models if model.name == root)
    twin = Weights("twin", dict(original))
    for models in ([*grown.model_set.models, twin], [twin, *grown.model_set.models]):
        forest = choose("lineage", "mother")(ModelSet(models, grown.model_set.tensors), None)
        assert forest.tied == [[root, "twin"]]
        # the first by name, whatever the order
        assert forest.roots.keys() == {root}
        assert 0.4 < forest.roots[root] <= 0.5
        to_twin = forest.parents["twin"][root]
        assert to_twin.kind == "copy"
        assert to_twin.confidence <= 0.5
        rest = [
            edge
            for edge in forest.edges
            if edge.child != "twin" and grown.parents[edge.child] == root
        ]
        assert all(edge.kind == "trained" and edge.confidence <= 0.5 for edge in rest)


def test_where_all_have_the_same_weights_all_is_tied(lineage_trees):
    model = lineage_trees.grow(0, fans=()).model_set.models[0]
    model_set = ModelSet([Weights(name, dict(model)) for name in "cab"], list(model))
    forest = choose("lineage", "mother")(model_set, None)
    assert forest.tied == [["a", "b", "c"]]
    assert forest.roots == {"a": pytest.approx(1 / 3)}
    assert {edge.kind for edge in forest.edges} == {"copy"}


def test_clear_trees_are_believed_more_than_unclear_ones(lineage_trees):
    clear = recover(lineage_trees.grow(0, fans=(4, 2), steps=(0.4, 0.3)))
    unclear = recover(lineage_trees.grow(0, fans=(4, 2), steps=(0.3, 0.3)), penalty=0)
    mean = [np.mean([edge.confidence for edge in forest.edges]) for forest in (clear, unclear)]
    assert mean[0] > 0.7 > mean[1]
    for forest in (clear, unclear):
        assert all(0 <= edge.confidence <= 1 for edge in forest.edges)


def test_one_model_is_a_root(lineage_trees):
    forest = recover(lineage_trees.grow(0, fans=()))
    assert (list(forest.families), forest.edges, forest.roots) == ([0], [], {"tree 0": 1})


def test_more_trees_than_models_are_refused(lineage_trees):
    with pytest.raises(InvalidInput, match="7 models cannot be 8 trees"):
        recover(lineage_trees.grow(0, fans=(3, 1)), 8)


# Whose kurtosis


def with_tensors(shapes: dict[str, tuple[int, ...]]) -> ModelSet:
    noise = torch.Generator().manual_seed(0)
    base = {n: torch.randn(s, generator=noise) for n, s in shapes.items()}
    models = [
        Weights(
            f"m{k}",
            {n: t + 0.1 * k * torch.randn(t.shape, generator=noise) for n, t in base.items()},
        )
        for k in range(4)
    ]
    return ModelSet(models, list(shapes))


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ({"attn.proj.weight": (6, 6)}, []),
        ({"fc.weight": (6, 6)}, ["square stand in"]),
        ({"fc.weight": (6, 4)}, ["matrices stand in"]),
    ],
)
def test_it_is_said_which_layers_stand_in(shapes, says):
    forest = choose("lineage", "mother", direction="specialization")(with_tensors(shapes), 1)
    assert len(forest.notes) == len(says)
    assert all(phrase in note for phrase, note in zip(says, forest.notes, strict=True))


def test_without_a_matrix_there_is_a_clear_message():
    with pytest.raises(InvalidInput, match="no weight matrix in common, whose kurtosis"):
        choose("lineage", "mother")(with_tensors({"norm.weight": (6,)}), 1)


def test_kurtosis_is_scipys(lineage_trees):
    model_set = lineage_trees.grow(0, fans=(2,)).model_set
    for name, kurtosis in model_set.statistics.moments["kurtosis"].items():
        expected = [stats.kurtosis(m[name].double().flatten().numpy()) for m in model_set.models]
        assert kurtosis == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("second", "root"), [(0.5, "a"), (2.0, "b")])
def test_kurtosis_is_summed_over_layers(second, root):
    """In the first layer that of `a` is higher by 1, in the second that of `b`, by more or less."""
    values = {"a": (1.0, 0.0), "b": (0.0, second)}
    names = [f"blocks.{layer}.attn.proj.weight" for layer in range(2)]
    models = [
        Weights(model, {n: of_kurtosis(k) for n, k in zip(names, of_layers, strict=True)})
        for model, of_layers in values.items()
    ]
    forest = choose("lineage", "mother", direction="specialization")(ModelSet(models, names), 1)
    assert forest.roots.keys() == {root}


def of_kurtosis(excess: float) -> torch.Tensor:
    """A matrix of numbers 0 and, as many of each, -1 and 1: its kurtosis is 1 / share of these."""
    num_extremes = round(40 * 40 / (excess + 3) / 2)
    values = torch.zeros(1600)
    values[:num_extremes], values[-num_extremes:] = 1, -1
    return values.reshape(40, 40)


def test_a_constant_layer_is_left_out_of_the_kurtosis(lineage_trees):
    grown = lineage_trees.grow(0, fans=(3, 2))
    models = [
        Weights(m.name, dict(m) | {"blocks.1.attn.proj.weight": torch.zeros(4, 4)})
        for m in grown.model_set.models
    ]
    model_set = ModelSet(models, list(models[0]))
    assert parents(choose("lineage", "mother")(model_set, None)) == grown.parents


def test_settings_are_checked():
    with pytest.raises(InvalidConfig, match="direction"):
        choose("lineage", "mother", direction="up")
    with pytest.raises(InvalidConfig, match="penalty"):
        choose("lineage", "mother", penalty=-1)
    assert "2405.18432" in get("lineage", "mother").facts["paper"]
