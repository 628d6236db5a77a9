"""The greedy soup: against plain torch that tries all models in the same order."""

from collections import Counter

import pytest
import torch
from torch.nn import functional as F

from vitarium import merge
from vitarium.core import registry
from vitarium.core.errors import IncompatibleWeights
from vitarium.evaluation.inputs import Weights
from vitarium.evaluation.loader import ModelLoader
from vitarium.operators.base import Ingredients


@pytest.fixture
def real(grown_zoo):
    """All checkpoints of the two pretrained models and what scores them."""
    ids = grown_zoo.models().query("stage == 'pretrain'")["id"].tolist()
    names = [(id, epoch) for id in ids for epoch in (0, 1, 2)]
    weights = {f"{id}@{epoch}": grown_zoo.state_dict(id, epoch) for id, epoch in names}
    sources = ModelLoader(grown_zoo, data=None, device="cpu", data_dir=None)
    return weights, lambda: grown_zoo.load(ids[0]).eval(), sources.examples(ids[0], "val")


def ingredients(real, names=None, kind=dict):
    weights, model, examples = real
    models = [Weights(name, kind(weights[name])) for name in names or weights]
    return Ingredients(models, model=model, examples=lambda: examples)


def plain(model, weights, examples):
    """Accuracy and loss, by torch alone."""
    model.load_state_dict(weights)
    (batch,) = examples.batches(len(examples))
    with torch.no_grad():
        logits = model(batch.images).double()
    right = int((logits.argmax(1) == batch.labels).sum()) / len(examples)
    return right, F.cross_entropy(logits, batch.labels).item()


def brute_force(weights, model, examples, strict):
    """Algorithm 1 with all models in memory: names of those that are kept, and their accuracy."""
    scores = {name: plain(model, own, examples) for name, own in weights.items()}
    order = sorted(scores, key=lambda name: (-scores[name][0], scores[name][1], name))
    kept, best = [order[0]], scores[order[0]][0]
    for name in order[1:]:
        accuracy, _ = plain(model, mean([weights[n] for n in [*kept, name]]), examples)
        if accuracy > best or (accuracy == best and not strict):
            kept, best = [*kept, name], accuracy
    return kept, best


def mean(models):
    names = models[0]
    return {n: torch.stack([m[n].double() for m in models]).mean(0).float() for n in names}


@pytest.mark.parametrize("strict", [False, True])
def test_it_is_the_greedy_algorithm(real, strict):
    weights, model, examples = real
    kept, best = brute_force(weights, model(), examples, strict)
    assert len(kept) < len(weights), "the example tells nothing"
    given = ingredients(real)
    made = dict(registry.choose("operator", "greedy_soup", strict=strict)(given))
    for name, expected in mean([weights[k] for k in kept]).items():
        assert torch.equal(made[name].float(), expected)
    assert given.log.metrics["val_accuracy"] == pytest.approx(best, abs=1e-12)
    result, start, *tries = given.log.lines
    assert result == f"mean of {len(kept)} of {len(weights)} models: validation accuracy {best:.4f}"
    assert start.startswith(f"starts from the best single model, {kept[0]} (")
    additions = [line for line in tries if line.startswith("adds ")]
    rejections = [line for line in tries if line.startswith("leaves out ")]
    assert len(additions) + len(rejections) == len(tries) == len(weights) - 1
    for name, line in zip(kept[1:], additions, strict=True):
        assert line.startswith(
            (f"adds {name}: accuracy rises to ", f"adds {name}: accuracy stays at ")
        )
    assert all("accuracy would " in line for line in rejections)


def test_the_order_of_the_ingredients_does_not_matter(real):
    names = list(real[0])
    method = registry.choose("operator", "greedy_soup")
    one, other = (dict(method(ingredients(real, o))) for o in (names, names[::-1]))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


class Counting(dict):
    read = Counter()

    def __getitem__(self, name):
        Counting.read[id(self), name] += 1
        return super().__getitem__(name)


def test_every_model_is_read_to_be_scored_and_once_more_to_be_tried(real):
    Counting.read.clear()
    list(registry.choose("operator", "greedy_soup")(ingredients(real, kind=Counting)))
    assert len(Counting.read) == len(real[0]) * len(next(iter(real[0].values())))
    assert set(Counting.read.values()) == {2}


def test_it_is_never_worse_than_the_best_model(real):
    weights, model, examples = real
    given = ingredients(real)
    made = {n: t.float() for n, t in registry.choose("operator", "greedy_soup")(given)}
    accuracy, loss = plain(model(), made, examples)
    assert accuracy >= max(plain(model(), own, examples)[0] for own in weights.values())
    assert given.log.metrics == pytest.approx({"val_accuracy": accuracy, "val_loss": loss})


def test_it_looks_at_the_validation_images_alone(grown_zoo, monkeypatch):
    seen = []
    real_examples = ModelLoader.examples
    monkeypatch.setattr(
        ModelLoader,
        "examples",
        lambda self, model, split, limit=None, data_of=None: (
            seen.append(split) or real_examples(self, model, split, limit, data_of)
        ),
    )
    ids = grown_zoo.models().query("stage == 'pretrain'")["id"].tolist()
    soup_id = merge(grown_zoo, "greedy_soup", models=ids, num_images=40).id
    assert set(seen) == {"val"}
    (epoch,) = grown_zoo.folder(soup_id).epochs()
    assert set(epoch.metrics) == {"val_accuracy", "val_loss"}
    assert all(id in grown_zoo.folder(soup_id).result()["message"] for id in ids)


@pytest.mark.parametrize("strict", [False, True])
def test_copies_of_one_model_give_that_model(real, strict):
    name = list(real[0])[2]
    method = registry.choose("operator", "greedy_soup", strict=strict)
    copies = ingredients(real, [name] * 3)
    merged = dict(method(copies))
    assert all(torch.equal(merged[n].float(), t) for n, t in real[0][name].items())
    change = f"leaves out {name}: accuracy would stay" if strict else f"adds {name}: accuracy stays"
    assert all(line.startswith(f"{change} at ") for line in copies.log.lines[2:])


def test_a_model_that_is_not_finite_is_named(real):
    name = list(real[0])[1]
    real[0][name]["norm.weight"][0] = torch.nan
    with pytest.raises(IncompatibleWeights, match=f"{name}: norm.weight"):
        list(registry.choose("operator", "greedy_soup")(ingredients(real)))
