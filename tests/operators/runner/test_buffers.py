"""What is no weight, what is not finite, and what is stored: of merged models."""

import re

import pytest
import timm
import torch
from torch.optim.swa_utils import update_bn

from reference.imported_tables import imported, near
from vitarium import merge
from vitarium.core.config import NoConfig
from vitarium.core.errors import IncompatibleWeights, InvalidInput
from vitarium.core.registry import section
from vitarium.evaluation.batch_statistics import BATCH_SIZE, NUM_IMAGES
from vitarium.evaluation.loader import ModelLoader
from vitarium.operators._runner.buffers import widest
from vitarium.operators.base import operator

XCIT = {"img_size": 16, "depth": 1, "embed_dim": 16, "num_heads": 2, "in_chans": 1}
COLUMNS = {"architecture": "xcit_nano_12_p16_224"}
COLUMNS |= {"mean": "[0.5]", "std": "[0.5]"}  # of images, without which nothing runs
COLUMNS |= {f"architecture.{name}": value for name, value in XCIT.items()}
STATISTICS = ("running_mean", "running_var")


def xcit(seed):
    """Weights, and statistics that are far from those of other seeds."""
    torch.manual_seed(seed)
    weights = timm.create_model("xcit_nano_12_p16_224", num_classes=10, **XCIT).state_dict()
    for name, tensor in weights.items():
        if name.endswith(STATISTICS):
            weights[name] = torch.rand_like(tensor) * (seed + 1) + 0.1 * seed
        elif name.endswith("num_batches_tracked"):
            weights[name] = torch.tensor(seed)
    return weights


@pytest.fixture
def family(tmp_path):
    base = xcit(5)
    children = []
    for seed in (0, 1):
        statistics = {n: t for n, t in xcit(seed).items() if "running" in n or "num_b" in n}
        children.append({**near(base, seed), **statistics})
    return imported(
        tmp_path / "family",
        (base, {"name": "base", **COLUMNS}),
        *(
            (w, {"name": n, "parent": "base", **COLUMNS})
            for n, w in zip("ab", children, strict=True)
        ),
    )


def expected(models, shares):
    """Of the mixture of what the models saw: E[v + m^2] - E[m]^2, in float64."""
    statistics = {}
    for name in (n for n in models[0] if n.endswith("running_mean")):
        variance = name.replace("running_mean", "running_var")
        means = [model[name].double() for model in models]
        mean = sum(s * m for s, m in zip(shares, means, strict=True))
        squares = [m[variance].double() + m[name].double() ** 2 for m in models]
        statistics[name] = mean
        statistics[variance] = sum(s * q for s, q in zip(shares, squares, strict=True)) - mean**2
    return statistics


@pytest.mark.parametrize(
    ("method", "settings", "names", "shares"),
    [
        ("uniform_soup", {}, "ab", (0.5, 0.5)),
        ("interpolation", {"t": 0.25}, "ab", (0.75, 0.25)),
        ("interpolation", {"t": 1.5}, "ab", (0, 1)),
        ("slerp", {"t": 0.25}, "ab", (0.75, 0.25)),
        ("multi_slerp", {}, "ab", (0.5, 0.5)),
        ("wise_ft", {"alpha": 0.25}, "a", (0.75, 0.25)),
        ("task_arithmetic", {"scaling_factor": 3.0}, "ab", (0.5, 0.5)),
        ("ties", {}, "ab", (0.5, 0.5)),
        ("dare", {"drop_rate": 0.9}, "ab", (0.5, 0.5)),
        ("della", {}, "ab", (0.5, 0.5)),
        ("model_stock", {}, "ab", (0.5, 0.5)),
    ],
)
def test_statistics_are_averaged_as_such_and_never_extrapolated(
    family, method, settings, names, shares
):
    zoo, ids = family
    merged = merge(zoo, method, models=[ids[name] for name in names], **settings)
    of_mean = [*(["base"] if method == "wise_ft" else []), *names]
    weights = merged.state_dict()
    for name, tensor in expected([zoo.state_dict(ids[n]) for n in of_mean], shares).items():
        torch.testing.assert_close(weights[name].double(), tensor, rtol=1e-5, atol=1e-6)
        assert (tensor >= 0).all() or name.endswith("mean")
    assert torch.isfinite(merged.load()(torch.randn(2, 1, 16, 16))).all()


def test_models_may_count_differently_in_the_statistics_too(family):
    zoo, ids = family
    merged = merge(zoo, "ties", models=[ids["a"], ids["b"]], weights={ids["b"]: 3.0})
    weights = merged.state_dict()
    models = [zoo.state_dict(ids[name]) for name in "ab"]
    for name, tensor in expected(models, (0.25, 0.75)).items():
        torch.testing.assert_close(weights[name].double(), tensor, rtol=1e-5, atol=1e-6)


def digits(zoo, model, split):
    return ModelLoader(zoo, data=section("dataset", "digits")).examples(model, split)


@pytest.mark.parametrize(
    ("method", "split", "settings"),
    [
        ("learned_soup", "val", {"epochs": 1}),
        ("bezier", "train", {"steps": 2}),
        ("fisher_merging", "train", {"num_images": 8}),
    ],
)
def test_methods_that_look_at_images_count_the_statistics_on_them(family, method, split, settings):
    """By hand: torch's own recount."""
    zoo, ids = family
    merged = merge(zoo, method, models=[ids["a"], ids["b"]], data="digits", **settings)
    model, examples = merged.load(), digits(zoo, ids["a"], split)
    counted = {n: t.clone() for n, t in model.state_dict().items() if n.endswith(STATISTICS)}
    update_bn([b.images for b in examples.first(NUM_IMAGES).batches(BATCH_SIZE)], model)
    for name, tensor in counted.items():
        torch.testing.assert_close(tensor, model.state_dict()[name], rtol=1e-3, atol=1e-4)


def test_statistics_are_not_counted_for_models_of_different_normalizations(tmp_path):
    columns = [{"name": n, **COLUMNS, "mean": mean} for n, mean in (("a", "[0.5]"), ("b", "[0.1]"))]
    zoo, ids = imported(tmp_path / "far", *zip((xcit(0), xcit(1)), columns, strict=True))
    message = "fisher_merging counts statistics of batch normalizations on images, but"
    settings = {"data": "digits", "num_images": 8}
    with pytest.raises(InvalidInput, match=message) as refused:
        merge(zoo, "fisher_merging", models=[ids["a"], ids["b"]], **settings)
    for name, mean in (("a", "0.5"), ("b", "0.1")):
        assert re.search(rf"{ids[name]} .*with mean/std {mean}/0.5", str(refused.value))
    assert set(zoo.ids()) == set(ids.values())
    alone = merge(zoo, "uniform_soup", models=[ids["a"], ids["b"]])  # it looks at no images
    assert torch.isfinite(alone.load()(torch.randn(2, 1, 16, 16))).all()


@pytest.mark.parametrize("method", ["greedy_soup", "learned_soup"])
def test_the_accuracy_of_a_soup_is_that_of_the_model_that_is_stored(family, method):
    zoo, ids = family
    merged = merge(zoo, method, models=[ids["a"], ids["b"]], data="digits")
    examples, model = digits(zoo, ids["a"], "val"), merged.load()
    right = sum((model(b.images).argmax(1) == b.labels).sum().item() for b in examples.batches())
    accuracy = merged.metrics["val_accuracy"].item()
    assert accuracy == pytest.approx(right / len(examples), abs=1.5 / len(examples))


def test_a_point_at_the_end_of_a_curve_is_that_model(family):
    zoo, ids = family
    merged = merge(zoo, "bezier", models=[ids["a"], ids["b"]], data="digits", t=1.0, steps=1)
    last = zoo.state_dict(ids["b"])
    assert all(torch.equal(tensor, last[name]) for name, tensor in merged.state_dict().items())


@pytest.fixture
def too_large(own_registry):
    @operator("too_large", title="Too large", models=(1, None))
    def too_large(config: NoConfig, ingredients):
        """Finite in float64 alone."""
        for name, tensors in ingredients.tensors():
            yield name, 1e200 * torch.ones_like(tensors[0]).double()


def test_what_is_not_finite_is_refused_and_nothing_is_left(too_large, grown_zoo, siblings):
    before = grown_zoo.ids()
    with pytest.raises(
        IncompatibleWeights, match=r"too_large gives cls_token .*not finite.*float32"
    ):
        merge(grown_zoo, "too_large", models=siblings)
    assert grown_zoo.ids() == before


def test_the_dtype_is_the_widest_in_whatever_order_the_models_come(tmp_path):
    plain = {"layer.weight": torch.randn(3, 2), "layer.bias": torch.randn(3)}
    dtypes = (torch.bfloat16, torch.float32, torch.float64)
    models = [{n: t.to(dtype) for n, t in plain.items()} for dtype in dtypes]
    zoo, ids = imported(tmp_path / "dtypes", *((w, {"name": str(n)}) for n, w in enumerate(models)))
    for chosen, widest_dtype in (
        ("01", torch.float32),
        ("10", torch.float32),
        ("20", torch.float64),
    ):
        merged = merge(zoo, "interpolation", models=[ids[n] for n in chosen], t=0.5).state_dict()
        pair = [models[int(n)]["layer.weight"].double() for n in chosen]
        assert merged["layer.weight"].dtype == widest_dtype
        assert torch.equal(merged["layer.weight"], (sum(pair) / 2).to(widest_dtype))


@pytest.mark.parametrize(
    ("dtype", "base_dtype", "widest_dtype"),
    [
        (torch.float16, torch.float32, torch.float32),
        (torch.float32, torch.float16, torch.float32),
        (torch.float16, torch.bfloat16, torch.float32),
        (torch.float16, torch.float16, torch.float16),
    ],
)
def test_the_base_is_an_ingredient_for_the_dtype(tmp_path, dtype, base_dtype, widest_dtype):
    base = {"layer.weight": torch.randn(3, 2).to(base_dtype)}
    child = {"layer.weight": torch.randn(3, 2).to(dtype)}
    zoo, ids = imported(
        tmp_path / "family", (base, {"name": "base"}), (child, {"name": "child", "parent": "base"})
    )
    merged = merge(zoo, "wise_ft", models=[ids["child"]], alpha=0.25).state_dict()
    mean = 0.75 * base["layer.weight"].double() + 0.25 * child["layer.weight"].double()
    assert merged["layer.weight"].dtype == widest_dtype
    torch.testing.assert_close(merged["layer.weight"], mean.to(widest_dtype))


def test_of_floats_of_a_byte_there_is_no_wider_one_but_float32():
    assert widest([torch.float8_e5m2, torch.float8_e5m2]) == torch.float8_e5m2
    assert widest([torch.float8_e5m2, torch.float8_e4m3fn]) == torch.float32
    assert widest([torch.float16, torch.bfloat16]) == torch.float32
