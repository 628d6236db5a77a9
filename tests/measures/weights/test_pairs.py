"""weight_l2 and weight_cosine of all pairs: right, exact where it matters, read little."""

import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitarium.core.errors import NotApplicable
from vitarium.core.files import write
from vitarium.core.registry import choose, get
from vitarium.evaluation.inputs import Weights
from vitarium.measures.weights import _products as engine
from vitarium.measures.weights._products import gathered, products
from vitarium.zoo._format import packing
from vitarium.zoo.checkpoint import Checkpoint

SHAPES = {
    "embed": (1, 5, 6),
    "a.weight": (9, 6),
    "a.bias": (9,),
    "scale": (),
    "head.weight": (4, 6),
}


def population(count: int, seed: int = 0, shapes=SHAPES) -> list[Weights]:
    noise = torch.Generator().manual_seed(seed)
    return [
        Weights(f"m{number}@1", {n: torch.randn(s, generator=noise) for n, s in shapes.items()})
        for number in range(count)
    ]


def vector(model: Weights, *names: str) -> np.ndarray:
    return torch.cat([model[name].flatten() for name in names]).double().numpy()


def matrix(models, names, value) -> np.ndarray:
    vectors = [vector(model, *names) for model in models]
    return np.array([[value(a, b) for b in vectors] for a in vectors])


def distance(a, b):
    return np.linalg.norm(a - b)


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def relative(a, b):
    return np.linalg.norm(a - b) * 2 / (np.linalg.norm(a) + np.linalg.norm(b))


VALUES = [
    ("weight_l2", {}, distance),
    ("weight_l2", {"relative": True}, relative),
    ("weight_cosine", {}, cosine),
]


@pytest.mark.parametrize("scope", ["trunk", "all"])
@pytest.mark.parametrize(("name", "options", "value"), VALUES)
def test_all_pairs_are_as_by_brute_force(name, options, value, scope):
    models = population(7)
    found = choose("measure", name, scope=scope, parts="tensors", **options)(models)
    names = [n for n in SHAPES if scope == "all" or n != "head.weight"]
    assert found.keys() == {*names, ""}
    for part, values in found.items():
        expected = matrix(models, [part] if part else names, value)
        assert values.dtype == torch.float64
        # the distance of a model to itself is exact, that of the reference is not
        assert values.numpy() == pytest.approx(expected, rel=1e-9, abs=1e-12), part


@pytest.mark.parametrize("step", [1e-2, 1e-4, 1e-6])
def test_near_siblings_of_far_families_keep_their_digits(step):
    noise = torch.Generator().manual_seed(0)
    parents = [3 * torch.randn(40, 500, generator=noise) for _ in range(3)]
    tensors = [p + step * torch.randn(40, 500, generator=noise) for p in parents for _ in range(3)]
    models = [Weights(f"m{number}", {"w": tensor}) for number, tensor in enumerate(tensors)]
    found = choose("measure", "weight_l2")(models)[""].numpy()
    expected = matrix(models, ["w"], distance)
    tolerance = max(1e-9, 1e-13 / step**2)
    assert found == pytest.approx(expected, rel=tolerance, abs=1e-12)


def test_copies_are_at_distance_zero_exactly():
    first, second = population(2)
    models = [first, second, Weights("copy of 0", dict(first)), Weights("copy of 1", dict(second))]
    distances = choose("measure", "weight_l2")(models)[""]
    assert distances[0, 2] == distances[1, 3] == distances[2, 2] == 0
    assert distances[0, 1] == distances[2, 3] == distances[0, 3] > 0
    assert choose("measure", "weight_cosine")(models)[""][0, 2] == pytest.approx(1, abs=1e-15)


@settings(deadline=None, max_examples=20)
@given(
    count=st.integers(1, 6),
    size=st.integers(1, 50),
    scale=st.floats(0.01, 100),
    seed=st.integers(0, 2**31),
)
def test_l2_is_a_metric_and_cosine_has_no_scale(count, size, scale, seed):
    models = population(count, seed, {"w": (size, 3)})
    distances = choose("measure", "weight_l2")(models)[""]
    cosines = choose("measure", "weight_cosine")(models)[""]
    assert distances.equal(distances.T)
    assert (distances.diagonal() == 0).all()
    for middle in range(count):
        detour = distances[:, [middle]] + distances[[middle]]
        assert (distances <= detour * (1 + 1e-9)).all()
    scaled = [Weights(m.name, {"w": m["w"] * scale * (k + 1)}) for k, m in enumerate(models)]
    assert torch.allclose(choose("measure", "weight_cosine")(scaled)[""], cosines, atol=1e-6)
    assert (cosines.abs() <= 1).all()


def test_order_of_models_does_not_matter():
    models = population(5)
    order = [3, 0, 4, 1, 2]
    found = choose("measure", "weight_l2")(models)[""][order][:, order]
    shuffled = choose("measure", "weight_l2")([models[place] for place in order])[""]
    assert torch.allclose(shuffled, found, rtol=1e-12, atol=0)


def reason(name, one, other, **options):
    chosen = choose("measure", name, **options)
    return get("measure", name).facts["reason"](chosen.config, one, other)


@pytest.mark.parametrize("name", ["weight_l2", "weight_cosine"])
def test_a_pair_that_does_not_fit_is_nan_and_told_why(name):
    one, two = population(2)
    wide = population(1, 1, SHAPES | {"a.weight": (9, 7)})[0]
    more = population(1, 2, SHAPES | {"b.weight": (2, 2)})[0]
    odd_head = population(1, 3, SHAPES | {"head.weight": (5, 6)})[0]
    models = [one, two, wide, more, odd_head]
    found = choose("measure", name, parts="tensors")(models)
    fits = ~found[""].isnan()
    expected = torch.zeros(5, 5, dtype=torch.bool)
    for group in ([0, 1, 4], [2], [3]):
        expected[np.ix_(group, group)] = True
    assert fits.equal(expected)
    assert not found["a.weight"][0, 3].isnan()
    assert found["a.weight"][0, 2].isnan()
    assert not found["b.weight"][3, 3].isnan()
    assert found["b.weight"].isnan().sum() == 24
    assert "head.weight" not in found
    with_heads = choose("measure", name, scope="all")(models)
    assert with_heads[""][0, 4].isnan()
    assert not with_heads[""][0, 1].isnan()
    assert reason(name, one, wide) == "a.weight is (9, 6) in m0@1 and (9, 7) in m0@1"
    assert reason(name, two, more) == "m0@1 has b.weight, which m1@1 does not have"
    assert reason(name, one, odd_head, scope="all").startswith("head.weight is (4, 6)")


def test_a_model_with_a_bad_weight_is_named_and_the_others_are_compared():
    models = population(3)
    bad = Weights("bad@2", dict(models[2]) | {"a.bias": torch.tensor([torch.inf] + 8 * [1.0])})
    found = choose("measure", "weight_l2", parts="tensors")([*models, bad])
    assert found[""][3].isnan().all()
    assert found[""][:3, :3].isfinite().all()
    assert found["a.bias"][3].isnan().all()
    assert found["a.weight"][3].isfinite().all()
    assert reason("weight_l2", models[0], bad) == "bad@2: a.bias has entries that are not finite"
    assert reason("weight_l2", models[0], models[1]) is None


def test_a_model_of_zeros_has_a_distance_and_no_cosine():
    one = population(1)[0]
    zero = Weights("zero@0", {name: torch.zeros(shape) for name, shape in SHAPES.items()})
    assert choose("measure", "weight_l2")([one, zero])[""].isfinite().all()
    assert choose("measure", "weight_cosine")([one, zero])[""][0, 1].isnan()
    assert reason("weight_cosine", one, zero) == "m0@1 or zero@0 is zero"


def test_numbers_of_tensors_are_given_on_request():
    assert choose("measure", "weight_l2")(population(3)).keys() == {""}
    found = choose("measure", "weight_l2", parts="tensors")(population(3))
    assert found.keys() == {"", *(name for name in SHAPES if not name.startswith("head"))}


# Changes since the parent


def family(parent: Weights, count: int, step: float, seed: int) -> list[Weights]:
    noise = torch.Generator().manual_seed(seed)
    return [
        Weights(
            f"child {number} of {parent.name}",
            {n: t + step * torch.randn(t.shape, generator=noise) for n, t in parent.items()},
            parent=lambda: Weights(parent.name, dict(parent)),
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("step", [1.0, 1e-3])
def test_changes_are_compared_between_children_of_one_parent(step):
    mother, father = population(2)
    models = [*family(mother, 3, step, 1), *family(father, 2, step, 2), mother]
    found = choose("measure", "weight_cosine", of="changes")(models)
    trunk = [name for name in SHAPES if name != "head.weight"]
    for part, values in found.items():
        names = [part] if part else trunk
        for some, parent in (([0, 1, 2], mother), ([3, 4], father)):
            changes = [vector(models[k], *names) - vector(parent, *names) for k in some]
            expected = [[cosine(a, b) for b in changes] for a in changes]
            ours = values[np.ix_(some, some)].numpy()
            assert ours == pytest.approx(np.array(expected), abs=1e-8)
        assert values[:3, 3:].isnan().all()
        assert values[5].isnan().all()
    why = reason("weight_cosine", models[0], models[3], of="changes")
    assert why == f"{models[0].name} was trained from m0@1, and {models[3].name} from m1@1"
    why = reason("weight_cosine", models[0], mother, of="changes")
    assert why == "m0@1 has no parent whose weights are known"


def test_a_child_that_did_not_change_has_no_direction():
    parent = population(1)[0]
    moved, same = family(parent, 1, 0.1, 1)[0], family(parent, 1, 0.0, 1)[0]
    found = choose("measure", "weight_cosine", of="changes")([moved, same])
    assert found[""][0, 0] == pytest.approx(1)
    assert found[""][0, 1].isnan()
    why = reason("weight_cosine", moved, same, of="changes")
    assert why.endswith("is as its parent")


def test_a_parent_of_another_shape_is_named():
    wide = population(1, 1, SHAPES | {"a.weight": (9, 7)})[0]
    models = [Weights(m.name, dict(m), parent=lambda: wide) for m in population(2)]
    assert choose("measure", "weight_cosine", of="changes")(models)[""].isnan().all()
    assert "a.weight is (9, 6)" in reason("weight_cosine", *models, of="changes")


def test_models_without_parents_cannot_be_compared_by_changes():
    with pytest.raises(NotApplicable, match="none of the models has a parent"):
        choose("measure", "weight_cosine", of="changes")(population(2))


# Reading


@pytest.fixture
def small_blocks(monkeypatch):
    """As if models were large: blocks of a few rows."""
    monkeypatch.setattr(engine, "CHUNK_BYTES", 600)
    monkeypatch.setattr(engine, "RUN_BYTES", 48)
    monkeypatch.setattr(engine, "_COLUMNS", 5)


def test_blocks_of_rows_give_the_same(small_blocks):
    models = population(6)
    for name, options, value in VALUES:
        expected = matrix(models, [n for n in SHAPES if n != "head.weight"], value)
        found = choose("measure", name, **options)(models)[""].numpy()
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_one_pass_does_for_both_measures(kept_zoo, monkeypatch):
    models = [Weights(id, kept_zoo.checkpoint(id)) for id in kept_zoo.ids()]
    reads = Counter()
    read = Checkpoint.__getitem__

    def counted(checkpoint, name):
        reads[checkpoint.path, name] += 1
        return read(checkpoint, name)

    monkeypatch.setattr(Checkpoint, "__getitem__", counted)
    found = choose("measure", "weight_l2", parts="tensors")(models)
    choose("measure", "weight_cosine", scope="all")(models)
    assert set(reads.values()) == {1}
    assert len(reads) == sum(len(model) for model in models)
    expected = matrix(models, [part for part in found if part], distance)
    assert found[""].numpy() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_blocks_of_a_large_tensor_read_each_run_of_a_file_at_most_twice(tmp_path, monkeypatch):
    noise = torch.Generator().manual_seed(0)
    tensor = torch.randn(1500, 384, generator=noise)
    models = []
    for number in range(3):
        path = tmp_path / f"{number}.safetensors"
        write(path, packing.plain({"w": tensor + number}, {})[0])
        models.append(Weights(f"m{number}", Checkpoint(path, None)))
    monkeypatch.setattr(engine, "CHUNK_BYTES", 1000)
    runs = Counter()
    run = Checkpoint.run

    def counted(checkpoint, name, number):
        runs[checkpoint.path, number] += 1
        return run(checkpoint, name, number)

    monkeypatch.setattr(Checkpoint, "run", counted)
    found = choose("measure", "weight_l2")(models)[""]
    assert found[0, 2] == pytest.approx(2 * math.sqrt(tensor.numel()), rel=1e-5)
    assert len(runs) == 3 * 3
    assert max(runs.values()) <= 2


def test_products_are_remembered_for_the_same_models_alone():
    models = population(3)
    assert products(models) is products(models)
    assert products(models[:2]) is not products(models)
    assert products(models[:2]).tensors["scale"].shape == (2, 2)


def test_weights_of_half_precision_are_compared_as_they_are():
    models = population(3)
    half = [Weights(m.name, {n: t.bfloat16() for n, t in m.items()}) for m in models]
    found = choose("measure", "weight_l2")(half)[""].numpy()
    names = [n for n in SHAPES if n != "head.weight"]
    assert found == pytest.approx(matrix(half, names, distance), rel=1e-9, abs=1e-12)


# What else is gathered in the same pass


class Extremes:
    """The least and the largest number: a summary that is easily known."""

    def of(self, numbers):
        return [numbers.min(), numbers.max()]

    def joined(self, parts):
        return np.stack([parts[..., 0].min(0), parts[..., 1].max(0)], -1)


def test_a_summary_is_of_all_numbers_however_they_are_read(small_blocks):
    models = [*population(5), *population(1, 7)]
    models.append(Weights("copy", dict(models[0])))
    steps = []
    progress = SimpleNamespace(step=lambda *step: steps.append(step))
    grams, extremes = gathered(models, ["a.weight", "embed", "scale"], Extremes(), progress)
    for name in ("a.weight", "embed", "scale"):
        numbers = np.array([vector(model, name) for model in models])
        assert (extremes[name] == np.stack([numbers.min(1), numbers.max(1)], 1)).all()
        assert grams[name] == pytest.approx(numbers @ numbers.T, rel=1e-12, abs=1e-12)
    assert grams.keys() == extremes.keys() == {"a.weight", "embed", "scale"}
    assert steps == [("reading weights", done, 3) for done in range(4)]


def test_a_summary_of_a_tensor_that_a_model_does_not_have_is_nan():
    one, two = population(2)
    wide = population(1, 1, SHAPES | {"a.weight": (9, 7)})[0]
    bare = Weights("bare", {"embed": one["embed"]})
    grams, found = gathered([one, bare, wide, two], ["a.weight", "embed"], Extremes())
    assert np.isnan(found["a.weight"]).all(1).tolist() == [False, True, False, False]
    assert found["a.weight"][2].tolist() == [wide["a.weight"].min(), wide["a.weight"].max()]
    assert np.isnan(grams["a.weight"][2, [0, 1, 3]]).all()
    assert np.isfinite(found["embed"]).all()


def test_a_product_with_an_infinite_number_is_nan():
    one, two = population(2)
    bad = Weights("bad", dict(two) | {"a.bias": torch.tensor([torch.inf] + 8 * [1.0])})
    gram = products([one, bad]).tensors["a.bias"]
    assert gram.isnan().tolist() == [[False, True], [True, True]]
