"""The learned soup: its gradients by finite differences, and what it learns."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vitarium import merge
from vitarium.core import registry
from vitarium.core.errors import NotApplicable
from vitarium.evaluation.inputs import Weights
from vitarium.evaluation.loader import ModelLoader
from vitarium.operators.averaging.learned_soup import Mixed, part_of
from vitarium.operators.averaging.uniform_soup import uniform_soup
from vitarium.operators.base import Ingredients


@pytest.fixture
def examples(grown_zoo):
    sources = ModelLoader(grown_zoo, data=None, device="cpu", data_dir=None)
    return sources.examples(grown_zoo.ids()[0], "val")


def linear(dtype=torch.float32):
    """Softmax regression, of which the loss is convex in the weights, so in the shares, too."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).to(dtype)


def models(count, dtype=torch.float32):
    noise = torch.Generator().manual_seed(0)
    shapes = {name: t.shape for name, t in linear().state_dict().items()}
    return [
        Weights(f"m{k}", {n: torch.randn(s, generator=noise).to(dtype) for n, s in shapes.items()})
        for k in range(count)
    ]


def given(examples, count=4):
    return Ingredients(models(count), model=linear, examples=lambda: examples)


def lost(model, weights, examples):
    model.load_state_dict(weights)
    (batch,) = examples.batches(len(examples))
    with torch.no_grad():
        return F.cross_entropy(model(batch.images).double(), batch.labels).item()


@pytest.mark.parametrize("per", ["model", "layer", "tensor"])
def test_the_gradients_are_those_of_finite_differences(per, tmp_path, examples):
    model = linear(torch.float64)
    mixed = Mixed(model, Ingredients(models(3, torch.float64)), per, tmp_path)
    images, labels = torch.randn(5, 1, 8, 8, dtype=torch.float64), torch.arange(5)
    generator = torch.Generator().manual_seed(1)
    point = torch.randn(mixed.logits.shape, generator=generator, dtype=torch.float64)
    factor = torch.tensor(0.3, dtype=torch.float64)

    def loss(logits, log_factor):
        mixed.logits.data.copy_(logits)
        return mixed.gradients(model, images, labels, log_factor)

    _, (of_logits, of_factor) = loss(point, factor)
    for place in range(point.numel()):
        step = torch.zeros_like(point)
        step.view(-1)[place] = 1e-5
        rise = loss(point + step, factor)[0] - loss(point - step, factor)[0]
        assert of_logits.view(-1)[place].item() == pytest.approx(rise / 2e-5, rel=1e-5, abs=1e-8)
    rise = loss(point, factor + 1e-5)[0] - loss(point, factor - 1e-5)[0]
    assert of_factor.item() == pytest.approx(rise / 2e-5, rel=1e-6)


def test_the_loss_is_that_of_a_functional_call_with_all_models_in_memory(tmp_path):
    model, some = linear(torch.float64), models(3, torch.float64)
    mixed = Mixed(model, Ingredients(some), "model", tmp_path)
    images, labels = torch.randn(5, 1, 8, 8, dtype=torch.float64), torch.arange(5)
    logits = torch.tensor([0.1, -0.4, 0.9], dtype=torch.float64, requires_grad=True)
    soup = {n: sum(s * m[n] for s, m in zip(logits.softmax(0), some, strict=True)) for n in some[0]}
    value = F.cross_entropy(torch.func.functional_call(model, soup, (images,)), labels)
    (expected,) = torch.autograd.grad(value, logits)
    mixed.logits.data.copy_(logits.detach())
    found, (of_logits, _) = mixed.gradients(model, images, labels, torch.zeros(()).double())
    assert found == pytest.approx(value.item(), rel=1e-12)
    assert torch.allclose(of_logits[0], expected, rtol=1e-10)


@pytest.mark.parametrize("per", ["model", "layer", "tensor"])
def test_it_loses_less_than_the_uniform_soup(per, examples):
    uniform = {n: t.float() for n, t in uniform_soup(None, given(examples))}
    settings = {"per": per, "temperature": False, "batch_size": 64}
    ingredients = given(examples)
    made = registry.choose("operator", "learned_soup", **settings)(ingredients)
    learned = {n: t.float() for n, t in made}
    before, after = (lost(linear(), own, examples) for own in (uniform, learned))
    assert after < before - 0.01
    assert ingredients.log.metrics["val_loss"] == pytest.approx(after, rel=1e-5)
    assert ingredients.log.metrics["logit_factor"] == 1


def test_what_is_told_makes_the_soup(examples):
    ingredients = given(examples)
    made = dict(registry.choose("operator", "learned_soup", per="tensor")(ingredients))
    names, *parts = ingredients.log.lines
    assert names == "of m0, m1, m2, m3"
    for line in parts:
        name, _, numbers = line.partition(": ")
        shares = [float(number) for number in numbers.split()]
        assert sum(shares) == pytest.approx(1, abs=5e-4)
        assert min(shares) > 0
        expected = sum(s * m[name].double() for s, m in zip(shares, models(4), strict=True))
        assert torch.allclose(made[name], expected, atol=1e-3)
    assert ingredients.log.metrics["logit_factor"] != 1


def test_one_good_model_among_noise_is_found(examples):
    (batch,) = examples.batches(len(examples))
    good = linear()
    optimizer = torch.optim.Adam(good.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(good(batch.images), batch.labels).backward()
        optimizer.step()
    some = [*models(2), Weights("good", good.state_dict())]
    ingredients = Ingredients(some, model=linear, examples=lambda: examples)
    method = registry.choose("operator", "learned_soup", lr=0.2, epochs=10, batch_size=32)
    list(method(ingredients))
    shares = [float(number) for number in ingredients.log.lines[1].split()[1:]]
    assert shares[2] > 0.8


def test_the_same_seed_gives_the_same_soup(examples):
    def made(seed):
        method = registry.choose("operator", "learned_soup", batch_size=16, epochs=1, seed=seed)
        return dict(method(given(examples)))

    one, again, other = made(0), made(0), made(1)
    assert all(torch.equal(tensor, again[name]) for name, tensor in one.items())
    assert any(not torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_copies_of_one_model_give_that_model(examples):
    (one,) = models(1)
    ingredients = Ingredients([one] * 3, model=linear, examples=lambda: examples)
    made = dict(registry.choose("operator", "learned_soup", epochs=1)(ingredients))
    assert all(torch.equal(tensor.float(), one[name]) for name, tensor in made.items())


def test_it_is_a_model_of_the_zoo_that_looked_at_validation_images(grown_zoo):
    ids = grown_zoo.models().query("stage == 'pretrain'")["id"].tolist()
    soup_id = merge(grown_zoo, "learned_soup", models=ids, per="layer", epochs=1, num_images=64).id
    (epoch,) = grown_zoo.folder(soup_id).epochs()
    assert set(epoch.metrics) == {"val_accuracy", "val_loss", "logit_factor"}
    assert "blocks.0.attn.qkv: " in grown_zoo.folder(soup_id).result()["message"]
    assert grown_zoo.load(soup_id)(torch.zeros(1, 1, 8, 8)).isfinite().all()


def test_models_of_other_classes_are_refused(examples):
    wrong = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    some = [Weights(name, wrong.state_dict()) for name in ("a", "b")]
    with pytest.raises(NotApplicable, match="not the 10 classes"):
        list(
            registry.choose("operator", "learned_soup")(
                Ingredients(some, model=lambda: wrong, examples=lambda: examples)
            )
        )


def test_parts_of_a_model():
    name = "blocks.0.attn.qkv.weight"
    assert [part_of(name, per) for per in ("model", "layer", "tensor")] == ["", name[:-7], name]
    assert part_of("cls_token", "layer") == "cls_token"
