"""Fisher merging against one gradient after the other, and against softmax regression."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from reference import merging_with_data
from vitarium import create_model, merge
from vitarium.core.errors import NotApplicable, VitariumError
from vitarium.core.registry import choose
from vitarium.evaluation.loader import ModelLoader
from vitarium.operators.data_based.fisher import FisherMerging, diagonal_fisher


@pytest.fixture(scope="module")
def reference():
    return merging_with_data


@pytest.fixture(scope="module")
def shown(reference):
    return reference.examples().first(12)


def images_of(shown):
    return torch.cat([batch.images for batch in shown.batches()])


def transformer(seed):
    torch.manual_seed(seed)
    sizes = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 8, "num_heads": 2}
    model = create_model("vit", num_classes=10, depth=2, **sizes).eval().requires_grad_(False)
    for weight in model.parameters():  # so that classes differ in how probable they are
        weight += torch.randn(weight.shape) * 0.2
    return model


def regression(seed, scale=0.1):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval().requires_grad_(False)
    for weight in model.parameters():
        nn.init.normal_(weight, std=scale)
    return model


def subject_of(reference, model, shown):
    return reference.ingredients([model], shown).subject(0)


def merged(reference, models, shown, **values):
    made = choose("operator", "fisher_merging", **values)(reference.ingredients(models, shown))
    return dict(made)


@pytest.mark.parametrize("labels", ["expected", "true"])
def test_the_fisher_information_is_that_of_one_gradient_after_the_other(reference, shown, labels):
    model = transformer(1)
    config = FisherMerging(labels=labels, tolerance=0)
    found = diagonal_fisher(config, subject_of(reference, model, shown))
    given_ = shown.labels if labels == "true" else None
    expected = reference.diagonal_fisher(model, images_of(shown), given_)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=1e-4, atol=1e-9), name
        assert tensor.sum() > 0


def test_of_softmax_regression_it_has_a_closed_form(reference, shown):
    model = regression(1)
    found = diagonal_fisher(FisherMerging(tolerance=0), subject_of(reference, model, shown))
    of = reference.fisher_of_softmax_regression(model[1].weight, model[1].bias, images_of(shown))
    assert torch.allclose(found["1.weight"], of[0], rtol=1e-4, atol=1e-9)
    assert torch.allclose(found["1.bias"], of[1], rtol=1e-4)


@pytest.mark.parametrize("tolerance", [1e-3, 0.1])
def test_what_is_missing_is_at_most_the_tolerance(reference, shown, tolerance):
    own = subject_of(reference, regression(1, scale=1.5), shown)
    exact, found = (
        diagonal_fisher(FisherMerging(tolerance=share), own)["1.bias"] for share in (0, tolerance)
    )
    # Of biases it is the diagonal of the outputs' own.
    assert (1 - tolerance) * exact.sum() <= found.sum() < (1 - 1e-6) * exact.sum()
    assert (found <= exact + 1e-9).all()


@pytest.mark.parametrize("labels", ["expected", "sampled", "true"])
def test_the_size_of_batches_changes_nothing(reference, shown, labels):
    own = subject_of(reference, transformer(1), shown)
    one, many = (
        diagonal_fisher(FisherMerging(labels=labels, batch_size=size), own) for size in (1, 16)
    )
    for name, tensor in one.items():
        assert torch.allclose(many[name], tensor, rtol=1e-4, atol=1e-9), name


def test_sampled_labels_give_the_expected_ones_in_the_mean(reference, shown):
    own = subject_of(reference, regression(1, scale=0.3), shown)
    exact = diagonal_fisher(FisherMerging(tolerance=0), own)["1.bias"]
    seeds = range(100)
    drawn = [diagonal_fisher(FisherMerging(labels="sampled", seed=s), own)["1.bias"] for s in seeds]
    assert not torch.equal(drawn[0], drawn[1])
    error = torch.stack(drawn).std(0) / len(drawn) ** 0.5
    assert ((torch.stack(drawn).mean(0) - exact).abs() < 4.5 * error).all()


def test_the_result_is_the_mean_weighted_by_it(reference, shown):
    models = [regression(seed, scale=0.1 * seed) for seed in (1, 2, 3)]
    made = merged(reference, models, shown, floor=1e-12, tolerance=0)
    totals, weights = 0, 0
    for model in models:
        weight = model[1].weight.double()
        of, _ = reference.fisher_of_softmax_regression(weight, model[1].bias, images_of(shown))
        totals, weights = totals + of.clamp(min=1e-12) * weight, weights + of.clamp(min=1e-12)
    assert torch.allclose(made["1.weight"], totals / weights, rtol=1e-4, atol=1e-6)


def test_the_floor_makes_it_the_plain_mean_where_models_do_not_care(reference, shown):
    models = [regression(seed) for seed in (1, 2)]
    made = merged(reference, models, shown, floor=1e6)
    assert torch.allclose(
        made["1.weight"], (models[0][1].weight + models[1][1].weight).double() / 2
    )


def test_with_equal_norms_no_model_counts_for_more_than_another(reference, shown):
    models = [regression(1, scale=0.01), regression(2, scale=1.5)]
    of = [subject_of(reference, model, shown) for model in models]
    found = [diagonal_fisher(FisherMerging(), one)["1.bias"] for one in of]
    norms = [
        torch.cat([t.clamp(min=1e-6).flatten() for t in diagonal_fisher(FisherMerging(), one).values()]).norm()
        for one in of
    ]  # fmt: skip
    assert norms[0] > 2 * norms[1]
    weights = [(one / norm) for one, norm in zip(found, norms, strict=True)]
    biases = [model[1].bias.double() for model in models]
    expected = (weights[0] * biases[0] + weights[1] * biases[1]) / (weights[0] + weights[1])
    made = merged(reference, models, shown, equal_norms=True)["1.bias"]
    assert torch.allclose(made, expected, rtol=1e-6)


@settings(deadline=None, max_examples=4)
@given(st.integers(0, 100), st.integers(2, 4))
def test_copies_of_one_model_give_that_model(reference, shown, seed, count):
    model = transformer(seed)
    made = merged(reference, [model] * count, shown.first(8), labels="sampled")
    assert all(torch.equal(made[n].float(), t) for n, t in model.state_dict().items())


@settings(deadline=None, max_examples=4)
@given(st.integers(0, 100))
def test_the_order_does_not_count(reference, shown, seed):
    models = [regression(seed + number) for number in range(3)]
    one, other = (merged(reference, order, shown) for order in (models, models[::-1]))
    assert all(torch.allclose(other[n], t, rtol=1e-12, atol=1e-15) for n, t in one.items())


def test_entries_that_are_not_finite_are_refused(reference, shown):
    models = [regression(1), regression(2)]
    models[1][1].bias[3] = torch.nan
    with pytest.raises(VitariumError, match=r"m1: 1\.bias has entries that are not finite"):
        merged(reference, models, shown)


def test_a_model_without_classes_is_refused(reference, shown):
    own = replace(subject_of(reference, regression(1), shown), is_classifier=False)
    with pytest.raises(NotApplicable, match="not the 10 classes"):
        diagonal_fisher(FisherMerging(), own)


def test_each_model_of_a_zoo_is_shown_its_own_images(grown_zoo, reference):
    ids = grown_zoo.models().query("stage == 'pretrain'")["id"].tolist()
    child = grown_zoo.models().query("stage == 'finetune'")["id"].iloc[0]
    few = {"num_images": 12, "floor": 1e-12, "tolerance": 0}
    merged_weights = grown_zoo.state_dict(
        merge(grown_zoo, "fisher_merging", models=[ids[0], child], **few).id
    )
    totals, weights = 0, 0
    sources = ModelLoader(grown_zoo, data=None, device="cpu", data_dir=None)
    for id in (ids[0], child):
        shown = sources.examples(id, "train")
        of = reference.diagonal_fisher(grown_zoo.load(id).eval(), images_of(shown.first(12)))
        of = of["head.bias"].clamp(min=1e-12)
        totals = totals + of * grown_zoo.state_dict(id)["head.bias"]
        weights = weights + of
    assert torch.allclose(merged_weights["head.bias"].double(), totals / weights, atol=1e-5)
