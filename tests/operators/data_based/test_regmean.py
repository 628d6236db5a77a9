"""RegMean against its closed form, and against what it promises: the models' own outputs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from reference import merging_with_data
from vitarium import create_model, merge
from vitarium.core.errors import VitariumError
from vitarium.core.registry import choose

BOTH = ["regmean", "regmean_plus_plus"]


@pytest.fixture(scope="module")
def reference():
    return merging_with_data


@pytest.fixture(scope="module")
def shown(reference):
    return reference.examples().first(200)


def images_of(shown):
    return torch.cat([batch.images for batch in shown.batches()])


def halves(number, shown):
    """Images of the first model, and those of the others."""
    return shown.partition(120)[min(number, 1)]


def perceptron(seed):
    torch.manual_seed(seed)
    layers = [nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10)]
    model = nn.Sequential(*layers).eval().requires_grad_(False)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.3)
    return model


def transformer(seed):
    torch.manual_seed(seed)
    sizes = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 8, "num_heads": 2}
    model = create_model("vit", num_classes=10, depth=2, **sizes).eval().requires_grad_(False)
    for weight in model.parameters():
        weight += torch.randn(weight.shape) * 0.2
    return model


def merged(name, reference, models, shown, split_of=halves, **values):
    given_ = reference.ingredients(models, shown, split_of)
    return dict(choose("operator", name, **values)(given_))


def test_layers_have_the_papers_closed_form(reference, shown):
    models = [perceptron(seed) for seed in (1, 2, 3)]
    made = merged("regmean", reference, models, shown, off_diagonal=0.8, ridge=1e-3)
    pixels = [images_of(halves(number, shown)).flatten(1) for number in range(3)]
    hidden = [model[:3](x) for model, x in zip(models, pixels, strict=True)]
    for name, place, inputs in (("1.weight", 1, pixels), ("3.weight", 3, hidden)):
        weights = [model[place].weight.T for model in models]
        expected = reference.regression_mean(weights, inputs, 0.8, 1e-3).T
        assert torch.allclose(made[name], expected, rtol=1e-5, atol=1e-6), name


def test_of_the_plus_plus_later_layers_see_what_merged_ones_give(reference, shown):
    models = [perceptron(seed) for seed in (1, 2)]
    made = merged("regmean_plus_plus", reference, models, shown)
    plain = merged("regmean", reference, models, shown)
    assert torch.allclose(made["1.weight"], plain["1.weight"])
    assert not torch.allclose(made["3.weight"], plain["3.weight"])
    first = made["1.weight"].float(), made["1.bias"].float()
    hidden = [
        nn.functional.linear(images_of(halves(number, shown)).flatten(1), *first).relu()
        for number in range(2)
    ]
    expected = reference.regression_mean([m[3].weight.T for m in models], hidden, 0.9, 1e-6).T
    assert torch.allclose(made["3.weight"], expected, rtol=1e-5, atol=1e-6)


def test_of_the_plus_plus_layers_inside_of_a_block_are_the_models_own(reference, shown):
    models = [transformer(seed) for seed in (1, 2)]
    made = merged("regmean_plus_plus", reference, models, shown)
    inputs = []
    for number, model in enumerate(models):
        early = {n: t.float() for n, t in made.items() if not n.startswith(("blocks.1", "norm"))}
        mixed = transformer(0)
        mixed.load_state_dict({**model.state_dict(), **early})
        seen = []
        hook = mixed.blocks[1].mlp.fc2.register_forward_pre_hook(
            lambda _, x, seen=seen: seen.append(x[0])
        )
        mixed(images_of(halves(number, shown)))
        hook.remove()
        inputs.append(seen[0].flatten(0, 1))
    weights = [model.blocks[1].mlp.fc2.weight.T for model in models]
    expected = reference.regression_mean(weights, inputs, 0.9, 1e-6).T
    assert torch.allclose(made["blocks.1.mlp.fc2.weight"], expected, rtol=1e-4, atol=1e-5)


def test_one_linear_layer_answers_nearest_to_the_models_own_answers(reference, shown):
    models = [nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False)) for _ in range(2)]
    for seed, model in enumerate(models):
        nn.init.normal_(model[1].weight, generator=torch.Generator().manual_seed(seed))
        model.requires_grad_(False)
    made = merged("regmean", reference, models, shown, off_diagonal=1, ridge=1e-9)["1.weight"]
    mean = (models[0][1].weight + models[1][1].weight).double() / 2

    def missed(weight):
        total = 0
        for number, model in enumerate(models):
            x = images_of(halves(number, shown)).flatten(1).double()
            total += (x @ (weight - model[1].weight.double()).T).square().sum() / len(x)
        return total

    noise = torch.Generator().manual_seed(1)
    assert missed(made) < missed(mean)
    for _ in range(5):
        other = made + 1e-3 * torch.randn(made.shape, generator=noise, dtype=torch.float64)
        assert missed(made) < missed(other)


def test_models_that_are_given_the_same_get_their_mean(reference, shown):
    models = [perceptron(seed) for seed in (1, 2)]
    made = merged("regmean", reference, models, shown, split_of=lambda number, shown: shown)
    mean = (models[0][1].weight + models[1][1].weight).double() / 2
    assert torch.allclose(made["1.weight"], mean, atol=1e-7)


def test_all_but_linear_layers_weights_get_the_mean(reference, shown):
    models = [transformer(seed) for seed in (1, 2)]
    made = merged("regmean", reference, models, shown)
    linear = {f"{n}.weight" for n, m in models[0].named_modules() if isinstance(m, nn.Linear)}
    assert len(linear) == 9
    for name, tensor in models[0].state_dict().items():
        mean = (tensor.double() + models[1].state_dict()[name].double()) / 2
        assert torch.equal(made[name], mean) == (name not in linear), name


def test_a_layer_that_sees_only_zeros_gets_the_mean(reference, shown):
    models = [perceptron(seed) for seed in (1, 2)]
    for model in models:
        model[1].weight.zero_()
        model[1].bias.fill_(-1)
    made = merged("regmean", reference, models, shown)
    mean = (models[0][3].weight.double() + models[1][3].weight.double()) / 2
    assert torch.equal(made["3.weight"], mean)


@pytest.mark.parametrize("name", BOTH)
def test_the_size_of_batches_changes_nothing(reference, shown, name):
    models = [transformer(seed) for seed in (1, 2)]
    one, other = (merged(name, reference, models, shown, batch_size=size) for size in (7, 200))
    assert all(torch.allclose(other[n], t, atol=1e-5) for n, t in one.items())


@settings(deadline=None, max_examples=3)
@given(st.sampled_from(BOTH), st.integers(0, 100), st.integers(2, 4))
def test_copies_of_one_model_give_that_model(reference, shown, name, seed, count):
    model = transformer(seed)
    made = merged(name, reference, [model] * count, shown)
    assert all(torch.equal(made[n].float(), t) for n, t in model.state_dict().items())


@settings(deadline=None, max_examples=3)
@given(st.sampled_from(BOTH), st.integers(0, 100))
def test_the_order_does_not_count(reference, shown, name, seed):
    models = [perceptron(seed + number) for number in range(3)]
    one, other = (
        merged(name, reference, order, shown, lambda number, shown: shown)
        for order in (models, models[::-1])
    )
    assert all(torch.allclose(other[n], t, atol=1e-6) for n, t in one.items())


@pytest.mark.parametrize("name", BOTH)
def test_entries_that_are_not_finite_are_refused(reference, shown, name):
    models = [perceptron(1), perceptron(2)]
    models[1][1].weight[3, 3] = torch.inf
    with pytest.raises(VitariumError, match=r"m1: 1\.weight has entries that are not finite"):
        merged(name, reference, models, shown)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("heads", ["merge", "average"])
def test_models_of_a_zoo_are_merged_with_their_heads(grown_zoo, name, heads):
    ids = grown_zoo.models().query("stage == 'finetune'")["id"].tolist()[:2]
    merged_id = merge(grown_zoo, name, models=ids, heads=heads, num_images=32).id
    tensors, parts = grown_zoo.state_dict(merged_id), [grown_zoo.state_dict(id) for id in ids]
    mean = sum(part["head.weight"].double() for part in parts) / 2
    assert torch.equal(tensors["head.weight"], mean.float()) == (heads == "average")
    qkv = "blocks.0.attn.qkv.weight"
    assert not torch.equal(tensors[qkv], (sum(p[qkv].double() for p in parts) / 2).float())
