"""Models of other architectures are refused by the factor, though their tensors have equal shapes."""

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from reference.imported_tables import imported, near
from vitarium import measure, merge
from vitarium.core.errors import IncompatibleWeights
from vitarium.lineage.load import load
from vitarium.lineage.methods.descent._alignment import align_units

SIZES = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "depth": 1, "num_heads": 2}
VIT = {"architecture": "vit"} | {f"architecture.{name}": value for name, value in SIZES.items()}
VARIANTS = {
    "num_heads": (4, r"num_heads \((?:2 and 4|4 and 2)\)"),
    "act_layer": ("quick_gelu", r"act_layer \((?:gelu and quick_gelu|quick_gelu and gelu)\)"),
    "norm_eps": (0.1, r"norm_eps \((?:1e-06 and 0\.1|0\.1 and 1e-06)\)"),
}
"""Values, and how the difference is said: in order of ids, which come of random weights."""


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    return VisionTransformer(**SIZES, num_classes=10).state_dict()


def pair(folder, weights, columns):
    zoo, ids = imported(
        folder, (weights, {"name": "a", **VIT}), (near(weights, 1), {"name": "b", **VIT, **columns})
    )
    return zoo, [ids["a"], ids["b"]]


@pytest.mark.parametrize("method", ["uniform_soup", "slerp", "weight_matching", "bezier"])
@pytest.mark.parametrize("setting", ["num_heads", "act_layer", "norm_eps"])
def test_they_are_neither_merged_nor_aligned(tmp_path, weights, setting, method):
    value, factor = VARIANTS[setting]
    zoo, ids = pair(tmp_path / "pair", weights, {f"architecture.{setting}": value})
    with pytest.raises(IncompatibleWeights, match=rf"of different architectures: .*{factor}; they"):
        merge(zoo, method, models=ids, **({"data": "digits"} if method == "bezier" else {}))
    assert len(zoo) == 2


@pytest.mark.parametrize("setting", ["num_heads", "act_layer", "norm_eps"])
def test_no_path_leads_between_them(tmp_path, weights, setting):
    value, factor = VARIANTS[setting]
    zoo, ids = pair(tmp_path / "pair", weights, {f"architecture.{setting}": value})
    paths = ("barrier", "loss_path", "mode_connectivity")
    on = {"data": "digits", "normalization": "data"}
    rows = measure(zoo, paths, models=ids, pairs="all", **on)
    assert set(rows["measure"]) == set(paths)
    assert rows["refused"].str.contains(factor).all()


def test_a_base_of_another_architecture_is_refused(tmp_path, weights):
    zoo, ids = pair(tmp_path / "pair", weights, {"architecture.num_heads": 4})
    with pytest.raises(
        IncompatibleWeights, match=r"num_heads \(2 and 4\); it cannot be their base"
    ):
        merge(zoo, "wise_ft", models=ids[:1], base=ids[1])


def test_a_head_that_is_kept_has_to_be_of_a_model_of_that_architecture(tmp_path, weights):
    zoo, ids = imported(
        tmp_path / "heads",
        (weights, {"name": "a", **VIT}),
        (near(weights, 1), {"name": "b", **VIT}),
        (near(weights, 2), {"name": "c", **VIT, "architecture.num_heads": 4}),
    )
    with pytest.raises(IncompatibleWeights, match=r"num_heads \(2 and 4\)"):
        merge(zoo, "uniform_soup", models=[ids["a"], ids["b"]], heads=ids["c"])


def test_heads_that_compute_otherwise_are_kept_apart_or_refused(tmp_path, weights):
    trunk = {name: tensor for name, tensor in weights.items() if not name.startswith("head")}
    models = []
    for number, activation in enumerate(("relu", "gelu")):
        head = {"head.0.weight": torch.randn(8, 16), "head.0.bias": torch.randn(8)}
        head |= {"head.2.weight": torch.randn(10, 8), "head.2.bias": torch.randn(10)}
        columns = {"head": "mlp", "head.hidden_dim": 8, "head.activation": activation}
        models.append((near(trunk | head, number), {"name": activation, **VIT, **columns}))
    zoo, ids = imported(tmp_path / "heads", *models)
    chosen = [ids["relu"], ids["gelu"]]
    for heads in ("merge", "average"):
        with pytest.raises(IncompatibleWeights, match=r"head\.activation \(.*gelu"):
            merge(zoo, "uniform_soup", models=chosen, heads=heads)
    images = torch.randn(2, 1, 8, 8)
    separate = [merge(zoo, "uniform_soup", models=chosen, heads=id).load()(images) for id in chosen]
    ensemble = merge(zoo, "uniform_soup", models=chosen, heads="ensemble").load()(images)
    torch.testing.assert_close(ensemble, (separate[0] + separate[1]) / 2)


@pytest.mark.parametrize(
    "columns",
    [
        {"architecture.drop_path_rate": 0.1},
        {"architecture": "vit_tiny_patch16_224"},  # timm's, of the same sizes
        {"head": "linear", "head.seed": 3},
    ],
)
def test_what_changes_no_function_is_merged(tmp_path, weights, columns):
    zoo, ids = pair(tmp_path / "pair", weights, columns)
    mean = merge(zoo, "uniform_soup", models=ids)
    for name, tensor in mean.state_dict().items():
        ends = [zoo.state_dict(id)[name].double() for id in ids]
        torch.testing.assert_close(tensor.double(), sum(ends) / 2)
    for name in ("architecture.drop_path_rate", "head.seed"):
        assert name not in columns or name not in mean.factors


def test_models_without_an_architecture_are_compared_by_shapes(tmp_path, weights):
    zoo, ids = imported(
        tmp_path / "tensors", *((near(weights, n), {"name": str(n)}) for n in (0, 1))
    )
    assert (
        merge(zoo, "uniform_soup", models=list(ids.values())).state_dict().keys() == weights.keys()
    )


def test_lineage_matches_units_of_such_models_by_shapes_and_names_the_factor(tmp_path, weights):
    zoo, _ = pair(tmp_path / "pair", weights, {"architecture.num_heads": 4})
    (model_set,) = load(zoo).model_sets
    (note,) = align_units(model_set, [[0], [1]]).notes
    assert "num_heads (" in note
    assert "by shapes alone" in note
