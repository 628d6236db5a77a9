"""Distances over layers are those of float64 brute force, however they are read."""

import itertools

import numpy as np
import pytest
import torch

from vitarium.core.errors import InvalidInput
from vitarium.core.files import write
from vitarium.evaluation.inputs import Weights
from vitarium.lineage.base import ModelSet
from vitarium.lineage.methods import _layer_distances as layer_distances
from vitarium.lineage.methods._layer_distances import l2, largest, layers, mean_absolute, rank
from vitarium.zoo._format import packing
from vitarium.zoo.checkpoint import Checkpoint

SHAPES = {
    "blocks.0.attn.qkv.weight": (12, 4),
    "blocks.0.attn.proj.weight": (4, 4),
    "blocks.0.mlp.fc1.weight": (8, 4),
    "norm.weight": (4,),
    "scale": (),
}


def drawn(count: int, seed: int = 0, shapes=SHAPES) -> ModelSet:
    noise = torch.Generator().manual_seed(seed)
    models = [
        Weights(f"m{k}", {n: torch.randn(s, generator=noise) for n, s in shapes.items()})
        for k in range(count)
    ]
    return ModelSet(models, list(shapes))


def squares(model: Weights) -> list[np.ndarray]:
    """Query, key, value and output."""
    qkv = model["blocks.0.attn.qkv.weight"].double().numpy()
    return [*np.split(qkv, 3), model["blocks.0.attn.proj.weight"].double().numpy()]


def table(model_set: ModelSet, value) -> np.ndarray:
    return np.array(
        [[value(first, second) for second in model_set.models] for first in model_set.models]
    )


def absolute(first: Weights, second: Weights) -> list[np.ndarray]:
    return [abs(a - b) for a, b in zip(squares(first), squares(second), strict=True)]


def largest_by_brute_force(model_set: ModelSet) -> np.ndarray:
    pairs = list(itertools.combinations(model_set.models, 2))
    every = [absolute(*pair) for pair in pairs]
    least = [min(pair[layer].min() for pair in every) for layer in range(4)]
    max_difference = [max(pair[layer].max() for pair in every) for layer in range(4)]

    def value(first, second):
        if first is second:
            return 0
        normalized = [
            (a - low) / (high - low)
            for a, low, high in zip(absolute(first, second), least, max_difference, strict=True)
        ]
        return max(layer.max() for layer in normalized)

    return table(model_set, value)


def test_l2_is_the_mean_over_tensors():
    model_set = drawn(5)
    expected = table(
        model_set,
        lambda a, b: np.mean([np.linalg.norm(a[n].double() - b[n].double()) for n in SHAPES]),
    )
    assert l2(model_set) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.fixture(params=["at once", "a row at a time"])
def read(request, monkeypatch):
    if request.param != "at once":
        monkeypatch.setattr(layer_distances, "CHUNK_BYTES", 1)


@pytest.mark.usefixtures("read")
def test_mean_absolute_is_the_sum_over_square_matrices_query_key_and_value_apart():
    model_set = drawn(5)
    expected = table(model_set, lambda a, b: sum(layer.mean() for layer in absolute(a, b)))
    assert mean_absolute(model_set) == pytest.approx(expected, rel=1e-9)


@pytest.mark.usefixtures("read")
def test_largest_is_normalised_by_layer_over_all_pairs():
    model_set = drawn(5)
    assert largest(model_set) == pytest.approx(largest_by_brute_force(model_set), rel=1e-9)
    assert largest(model_set).max() == 1


def test_largest_depends_on_who_else_is_there():
    model_set = drawn(5)
    assert largest(model_set.subset([0, 1, 2]))[0, 1] != largest(model_set)[0, 1]


def test_rank_is_that_of_the_difference_summed_over_square_matrices():
    model_set = drawn(1, 1)
    noise = torch.Generator().manual_seed(0)
    models = list(model_set.models)
    for number, ranks in enumerate([(1, 0), (2, 1), (3, 4)]):
        tensors = dict(model_set.models[0])
        for name, r in zip(
            ("blocks.0.attn.qkv.weight", "blocks.0.attn.proj.weight"), ranks, strict=True
        ):
            rows = SHAPES[name][0]
            change = torch.zeros(rows, 4)
            change[-4:] = torch.randn(4, r, generator=noise) @ torch.randn(r, 4, generator=noise)
            tensors[name] = tensors[name] + 0.01 * change  # of the value alone
        models.append(Weights(f"lora{number}", tensors))
    model_set = ModelSet(models, model_set.tensors)
    distances = rank(model_set)
    assert distances[0].tolist() == [0, 1, 3, 7]
    assert distances[1, 2] == 3 + 1
    assert (distances == distances.T).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rank_leaves_out_what_rounding_makes(dtype):
    noise = torch.Generator().manual_seed(0)
    base = torch.randn(64, 64, generator=noise)
    change = torch.randn(64, 3, generator=noise) @ torch.randn(3, 64, generator=noise)
    models = [
        Weights("base", {"w": base.to(dtype)}),
        Weights("lora", {"w": (base + 0.5 * change).to(dtype)}),
    ]
    model_set = ModelSet(models, ["w"])
    assert rank(model_set)[0, 1] == 3
    assert rank(model_set, tolerance=1e-9)[0, 1] > 50
    assert rank(model_set, tolerance=0.99)[0, 1] == 1


def test_copies_are_at_distance_zero():
    model_set = drawn(3)
    models = [*model_set.models, Weights("copy", dict(model_set.models[0]))]
    model_set = ModelSet(models, model_set.tensors)
    for distance in (l2, mean_absolute, largest, rank):
        distances = distance(model_set)
        assert distances[0, 3] == 0
        assert distances[0, 1] == distances[3, 1] > 0
        assert (distances.diagonal() == 0).all()


def test_one_model_has_no_distance_to_others():
    for distance in (l2, mean_absolute, largest, rank):
        assert distance(drawn(1)).tolist() == [[0]]


def test_without_a_square_matrix_all_matrices_count():
    model_set = drawn(
        3, shapes={"fc1.weight": (8, 4), "fc1.bias": (8,), "conv.weight": (2, 3, 4, 4)}
    )
    assert [(layer.tensor, layer.start, layer.stop) for layer in layers(model_set)] == [
        ("fc1.weight", 0, 8)
    ]
    expected = table(model_set, lambda a, b: abs(a["fc1.weight"] - b["fc1.weight"]).mean().item())
    assert mean_absolute(model_set) == pytest.approx(expected, rel=1e-6)


def test_a_tall_matrix_is_three_only_by_its_name():
    model_set = drawn(2, shapes={"self_attention.in_proj_weight": (6, 2), "fc.weight": (6, 2)})
    assert [layer.tensor for layer in layers(model_set)] == ["self_attention.in_proj_weight"] * 3


def test_without_a_matrix_there_is_a_clear_message():
    model_set = drawn(2, shapes={"norm.weight": (4,)})
    for distance in (mean_absolute, largest, rank):
        with pytest.raises(InvalidInput, match="choose the distance l2"):
            distance(model_set)


def test_checkpoints_on_disk_are_read_by_rows_and_reported(tmp_path, steps):
    model_set = drawn(3)
    models = []
    for model in model_set.models:
        path = tmp_path / f"{model.name}.safetensors"
        write(path, packing.plain(dict(model), {})[0])
        models.append(Weights(model.name, Checkpoint(path, None)))
    stored = ModelSet(models, model_set.tensors, steps)
    assert largest(stored) == pytest.approx(largest(model_set))
    assert [done for _, done, of in steps] == [0, 1, 2, 3]
    assert {of for _, _, of in steps} == {4}
    assert mean_absolute(stored) == pytest.approx(mean_absolute(model_set))
    assert rank(stored).tolist() == rank(model_set).tolist()
