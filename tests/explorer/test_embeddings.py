"""Positions on the map are those of the models' weights and predictions, and come in steps."""

import json

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, pdist, squareform
from sklearn.decomposition import PCA

from vitarium import export
from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import InvalidInput, NotApplicable, UnknownName
from vitarium.encoders._runner.encode import kept_epochs
from vitarium.encoders._runner.vectors import Vector, VectorCache, checksum, compute
from vitarium.explorer import embeddings
from vitarium.explorer.computation import Transient, _compute
from vitarium.page.epochs_table import epochs_table
from vitarium.page.prediction_vectors import IMAGES, prediction_cache


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """Of a zoo in this process: what another test's was at the same place. Nor do answers come in
    steps, however slow the machine is, unless a test is of them."""
    monkeypatch.setattr(embeddings, "SECONDS", None)
    yield
    embeddings._opened_cache.cache_clear()
    embeddings._opened_predictions.cache_clear()


def backbones(zoo, ids):
    """All weights but heads, float64 [models, weights]."""
    states = [zoo.state_dict(id) for id in ids]
    return np.stack(
        [
            torch.cat([v.double().flatten() for k, v in s.items() if "head." not in k]).numpy()
            for s in states
        ]
    )


def test_points_are_about_as_far_apart_as_weights_in_the_plane_of_a_pca(grown_zoo):
    drawn = embeddings.embedding(grown_zoo.path, "random_projection")
    assert drawn["ids"] == sorted(grown_zoo.ids())
    points = np.stack([drawn["x"], drawn["y"]], axis=1)
    exact = PCA(2).fit(backbones(grown_zoo, drawn["ids"]))
    distances = pdist(exact.transform(backbones(grown_zoo, drawn["ids"])))
    assert pdist(points) == pytest.approx(distances, rel=0.15, abs=0.15 * distances.max())
    assert drawn["explained"] == pytest.approx(exact.explained_variance_ratio_, abs=0.1)


def test_predictions_are_compared_by_hellinger_distances(grown_zoo):
    ids = grown_zoo.ids()
    probabilities = []
    for id in ids:
        images = torch.stack([image for image, _ in grown_zoo.data(id)])
        with torch.inference_mode():
            probabilities.append(grown_zoo.load(id)(images).double().softmax(1))
    count = len(probabilities[0])
    assert count <= IMAGES
    per_image = [
        [((p.sqrt() - q.sqrt()).square().sum(1) / 2).mean().sqrt() for q in probabilities]
        for p in probabilities
    ]
    drawn = embeddings.embedding(grown_zoo.path, "predictions")
    vectors = prediction_cache(grown_zoo)._vectors
    assert len(vectors) == len(drawn["ids"]) == len(ids)
    values = np.stack([vector.values for vector in vectors.values()])
    refs, _ = embeddings.encode.last_checkpoints(grown_zoo)
    assert [ref.model for ref in refs] == ids
    assert squareform(pdist(values)) == pytest.approx(np.array(per_image), rel=0.15, abs=1e-6)


def test_epochs_of_chosen_models_are_points_too(grown_zoo):
    epochs_by_model, chosen = kept_epochs(grown_zoo), grown_zoo.ids()[:2]
    drawn = embeddings.embedding(grown_zoo.path, "layer_quantiles", "pca", ",".join(chosen))
    for number, id in enumerate(drawn["ids"]):
        epochs = [
            epoch
            for model, epoch in zip(drawn["models"], drawn["epochs"], strict=True)
            if model == number
        ]
        assert epochs == (epochs_by_model[id] if id in chosen else epochs_by_model[id][-1:])
    drawn = embeddings.embedding(grown_zoo.path, "layer_quantiles", "pca", "all")
    assert len(drawn["x"]) == sum(map(len, epochs_by_model.values()))


def test_what_takes_long_comes_in_steps_that_are_not_kept(grown_zoo, monkeypatch):
    monkeypatch.setattr(embeddings, "SECONDS", -1.0)
    total = len(grown_zoo.ids())
    for remaining in range(total - 1, 0, -1):
        step = embeddings.embedding(grown_zoo.path, "layer_quantiles")
        assert step == {"remaining": remaining, "total": total}
        assert isinstance(step, Transient)
    kind, content = _compute(grown_zoo.path, "embedding", ["layer_quantiles"])
    assert (kind, len(json.loads(content)["ids"])) == ("computed", total)
    first = grown_zoo.ids()[0]
    kind, _ = _compute(grown_zoo.path, "relatives", [first])
    assert kind == "transient"


def test_relatives_are_the_models_with_the_nearest_weights(grown_zoo):
    ids = grown_zoo.ids()
    exact = cdist(backbones(grown_zoo, ids), backbones(grown_zoo, ids))
    for number, id in enumerate(ids):
        near = embeddings.relatives(grown_zoo.path, id)["nearest"]
        assert {each["id"] for each in near} == {*ids} - {id}
        for each in near:
            expected = exact[number, ids.index(each["id"])]
            assert each["distance"] == pytest.approx(expected, rel=0.1)


def test_what_can_be_chosen_are_all_registered_encoders_and_predictions(grown_zoo):
    choices = embeddings.embedding_choices(grown_zoo.path)
    titles = {source["name"]: source["title"] for source in choices["sources"]}
    assert titles["random_projection"] == "weights"
    assert titles["layer_quantiles"] == "weight statistics"
    assert titles["predictions"] == "predictions"
    assert choices["methods"][0] == {"name": "pca", "title": "PCA"}


def test_what_has_no_positions_says_why(grown_zoo):
    with pytest.raises(UnknownName, match="unknown weight_encoder 'layer_quantile'"):
        embeddings.embedding(grown_zoo.path, "layer_quantile")
    with pytest.raises(InvalidInput, match="mds"):
        embeddings.embedding(grown_zoo.path, "layer_quantiles", "mds")
    for id in grown_zoo.ids()[2:]:
        grown_zoo.folder(id).drop({*kept_epochs(grown_zoo)[id]})
    with pytest.raises(NotApplicable, match="no weights of it are kept"):
        embeddings.embedding(grown_zoo.path, "random_projection")


def test_epochs_have_the_metrics_of_the_zoo(grown_zoo):
    table = epochs_table(grown_zoo)
    assert table["metrics"].keys() >= {"train_loss", "test_accuracy"}
    assert "seconds" not in table["metrics"]
    for number, id in enumerate(table["ids"]):
        rows = [n for n, model in enumerate(table["models"]) if model == number]
        metrics = grown_zoo.epochs(id)
        assert [table["epochs"][n] for n in rows] == metrics["epoch"].tolist()
        shown = [table["metrics"]["train_loss"][n] for n in rows]
        assert [np.nan if v is None else v for v in shown] == pytest.approx(
            metrics["train_loss"].tolist(), rel=1e-5, nan_ok=True
        )
    some = epochs_table(grown_zoo, grown_zoo.ids()[:1], ["val_loss"])
    assert (some["ids"], [*some["metrics"]]) == (grown_zoo.ids()[:1], ["val_loss"])
    with pytest.raises(UnknownName, match="unknown metric 'a\" FROM x"):
        epochs_table(grown_zoo, metrics=['a" FROM x; --'])


def complete(client, address):
    """The answer, once nothing remains to be computed."""
    while "remaining" in (answer := client.get(address).json()):
        pass
    return answer


def test_the_server_answers_with_positions_relatives_and_epochs(client, kept_zoo):
    with client:
        assert client.get("/api/zoo.json").json()["embeddings"]
        choices = client.get("/api/embeddings.json").json()
        assert len(choices["sources"]) >= 3
        for source in ("random_projection", "layer_quantiles"):
            drawn = complete(client, f"/api/embeddings/{source}.json?trajectories=all")
            assert {*drawn["ids"]} == {*kept_zoo.ids()}
        refused = client.get("/api/embeddings/nothing.json").json()
        assert "unknown weight_encoder" in refused["refused"]
        assert client.get("/api/embeddings/predictions.json?method=mds").status_code == 422
        id = kept_zoo.ids()[0]
        near = complete(client, f"/api/models/{id[:8]}/relatives.json")["nearest"]
        assert id not in {each["id"] for each in near}
        epochs = client.get("/api/epochs.json?metrics=val_accuracy").json()
        assert [*epochs["metrics"]] == ["val_accuracy"]
        assert client.get("/api/epochs.json?metrics=val_accurac").status_code == 400


def test_a_site_has_positions_and_relatives_unless_they_are_left_out(grown_zoo, tmp_path):
    drawn = embeddings.embedding(grown_zoo.path, "random_projection")
    files = export(grown_zoo, "site", out=tmp_path / "with")
    api = tmp_path / "with" / "api"
    assert json.loads((api / "embeddings" / "random_projection.json").read_text()) == drawn
    choices = json.loads((api / "embeddings.json").read_text())
    assert [source["title"] for source in choices["sources"]] == [
        "weights",
        "weight statistics",
        "predictions",
    ]
    predictions = embeddings.embedding(grown_zoo.path, "predictions")
    assert json.loads((api / "embeddings" / "predictions.json").read_text()) == predictions
    assert [method["name"] for method in choices["methods"]] == ["pca"]
    id = grown_zoo.ids()[0]
    near = json.loads((api / "models" / id / "relatives.json").read_text())
    assert near == embeddings.relatives(grown_zoo.path, id)
    assert set(api.rglob("*.json")) <= {*files}
    export(grown_zoo, "site", out=tmp_path / "without", embeddings=False, behavior=False)
    without = tmp_path / "without" / "api"
    assert not json.loads((without / "zoo.json").read_text())["embeddings"]
    assert not (without / "embeddings.json").exists()
    assert (without / "epochs.json").exists()


def test_a_site_of_models_that_do_not_differ_says_so(grown_zoo, tmp_path):
    export(grown_zoo, "site", out=tmp_path / "site", models=grown_zoo.ids()[:2])
    file = tmp_path / "site" / "api" / "embeddings" / "layer_quantiles.json"
    assert "needs more models" in json.loads(file.read_text())["refused"]


def test_a_model_without_known_images_does_not_keep_out_the_one_before_it(tmp_path):
    first, unknown, last = (CheckpointRef(12 * digit, 0) for digit in "abc")

    def name(ref):
        if ref == unknown:
            raise NotApplicable(f"{ref.model}: its data set is not known")
        return checksum(ref)

    def answer(seconds):
        return compute(
            [first, last, unknown], cache, name, lambda ref: Vector(np.ones(3), "a"),
            store=False, seconds=seconds,
        )  # fmt: skip

    cache = VectorCache(tmp_path, "version")
    assert answer(-1.0).remaining == 1  # the last: one vector at a time
    assert answer(None).vectors.keys() == {first, last}
    assert answer(None).refused == {unknown: "its data set is not known"}
    alone = compute([unknown], cache, name, lambda ref: Vector(np.ones(3), "a"), store=False)
    assert alone.refused == {unknown: "its data set is not known"}
