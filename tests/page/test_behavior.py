"""What a model's page says that the model does with images is what measures and the model say."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from vitarium import export, measure
from vitarium.core.errors import NotApplicable
from vitarium.data.load import load
from vitarium.evaluation.attention import watch
from vitarium.evaluation.inputs import Predictions
from vitarium.explorer.computation import _compute
from vitarium.measures.attention.rollout import rollout
from vitarium.page import behavior


@pytest.fixture
def id(grown_zoo):
    return grown_zoo.ids()[0]


def test_classes_and_errors_are_those_of_the_model(grown_zoo, id):
    shown = behavior.behavior(grown_zoo.path, id)
    rows = measure(grown_zoo, ["class_accuracy", "accuracy"], models=id).itertuples()
    of_parts = {(row.measure, row.part): row.value for row in rows}
    assert shown["accuracy"] == pytest.approx(of_parts["accuracy", ""])
    for each in shown["classes"]:
        assert each["accuracy"] == pytest.approx(of_parts["class_accuracy", each["name"]])
    images = grown_zoo.data(id)
    model, classes = grown_zoo.load(id), images.classes
    with torch.inference_mode():
        logits = model(torch.stack([image for image, _ in images]))
    wrong = (logits.argmax(1) != images.labels).nonzero()[:, 0]
    confidence = logits.softmax(1).amax(1)[wrong]
    surest = wrong[confidence.argsort(descending=True)][: len(shown["errors"])]
    assert len(surest) == min(len(wrong), behavior.MAX_IMAGES) > 0
    assert [e["predicted"] for e in shown["errors"]] == [
        classes[logits[n].argmax()] for n in surest
    ]
    assert [e["label"] for e in shown["errors"]] == [classes[images.labels[n]] for n in surest]
    confidences = [e["confidence"] for e in shown["errors"]]
    assert confidences == pytest.approx(sorted(confidence.tolist(), reverse=True)[: len(surest)])


def test_bins_of_calibration_hold_every_image(grown_zoo, id):
    shown = behavior.behavior(grown_zoo.path, id)
    bins = shown["calibration"]
    assert sum(each["images"] for each in bins) == shown["images"]
    mean = sum(each["images"] * each["accuracy"] for each in bins) / shown["images"]
    assert mean == pytest.approx(shown["accuracy"])


def test_attention_is_the_models_and_images_are_the_data_sets(grown_zoo, id):
    shown = behavior.attention(grown_zoo.path, id)
    numbers = behavior.load_subject(grown_zoo.path, id).examples.first(behavior.MAX_IMAGES).numbers
    images = torch.stack([grown_zoo.data(id)[n][0] for n in numbers.tolist()])
    assert len(shown["images"]) == len(images) == behavior.MAX_IMAGES
    model, expected = grown_zoo.load(id), {}
    watch(model, images, lambda name, a: expected.update({name: a.clone()}))
    patches = shown["rows"] * shown["columns"]
    assert [each["block"] for each in shown["maps"]] == list(expected)
    for each in shown["maps"]:
        attention = expected[each["block"]]
        prefix = attention.shape[-1] - patches
        has_class = prefix > 0
        read_out = attention[:, :, 0] if has_class else attention.mean(2)
        read_out = read_out[..., prefix:]
        scaled = 255 * read_out / read_out.amax(-1, keepdim=True)
        values = np.frombuffer(base64.b64decode(each["values"]), np.uint8)
        assert np.abs(values - scaled.numpy().ravel()).max() <= 0.51
    flow = rollout(model, images)
    flow = 255 * flow / flow.amax((1, 2), keepdim=True)
    values = np.frombuffer(base64.b64decode(shown["rollout"]), np.uint8)
    assert np.abs(values - flow.numpy().ravel()).max() <= 0.51
    content = base64.b64decode(shown["images"][0].partition(",")[2])
    pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(content))))
    assert torch.equal(pixels, load(grown_zoo[id].recipe.data).test.images[numbers[0], 0])


def test_what_has_no_answer_says_why(grown_zoo, id, monkeypatch):
    def refuse(zoo, model):
        raise NotApplicable("it has no classes")

    monkeypatch.setattr(behavior, "behavior", refuse)
    kind, content = _compute(grown_zoo.path, "behavior", [id])
    assert (kind, json.loads(content)) == ("refused", {"refused": "it has no classes"})


def test_an_exported_site_has_what_models_do_with_images(grown_zoo, id, tmp_path):
    export(grown_zoo, "site", out=tmp_path / "with", models=id, embeddings=False)
    folder = tmp_path / "with" / "api" / "models" / id
    shown = behavior.behavior(grown_zoo.path, id)
    assert json.loads((folder / "behavior.json").read_text()) == shown
    assert json.loads((folder / "attention.json").read_text())["maps"]
    assert json.loads((tmp_path / "with" / "api" / "zoo.json").read_text())["behavior"] is True
    export(grown_zoo, "site", out=tmp_path / "without", models=id, embeddings=False, behavior=False)
    assert not list((tmp_path / "without").rglob("behavior.json"))


def test_predictions_that_are_not_finite_are_refused(grown_zoo, id, monkeypatch):
    predict = behavior.predict

    def diverged(subject):
        predictions = predict(subject)
        logits = torch.full_like(predictions.logits, torch.nan)
        return Predictions(logits, predictions.labels, predictions.class_names)

    monkeypatch.setattr(behavior, "predict", diverged)
    with pytest.raises(NotApplicable, match="not finite"):
        behavior.behavior(grown_zoo.path, id)
