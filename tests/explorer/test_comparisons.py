"""Models side by side: every number is what comes out when it is computed by hand."""

from itertools import pairwise, permutations

import numpy as np
import pytest
import torch
from playwright.sync_api import expect
from torch.nn import functional as F

from explorer.conftest import served
from vitarium import grow, measure
from vitarium.core.errors import DataNotFound, InvalidInput, NotApplicable
from vitarium.evaluation.loader import ModelLoader
from vitarium.explorer.computation import _compute
from vitarium.explorer.matrices import MAX_MODELS, agreement, clustered, weight_distances
from vitarium.explorer.pairs import PATH, barrier
from vitarium.explorer.security import Access

PLAIN = {"workers": 0, "precision": "fp32", "compiled": False, "stacked": 1, "progress": False}


@pytest.fixture
def siblings(grown_zoo):
    return next(model for model in grown_zoo if model.children).children[:2]


def logits_of(zoo, id, weights=None):
    """On all test images, by running the model here; and the labels."""
    images, model = zoo.data(id), zoo.load(id)
    if weights:
        model.load_state_dict(weights)
    with torch.inference_mode():
        return model(torch.stack([image for image, _ in images])), images.labels


def test_agreement_is_the_share_of_equal_classes_of_every_pair(grown_zoo):
    ids = grown_zoo.ids()[::-1]
    matrix = agreement(grown_zoo.path, *ids)
    assert matrix["models"] == ids
    classes = [logits_of(grown_zoo, id)[0].argmax(1) for id in ids]
    expected = [[(a == b).double().mean().item() for b in classes] for a in classes]
    assert np.array(matrix["values"]) == pytest.approx(np.array(expected))
    assert matrix["images"] == {"digits": len(classes[0])}
    assert matrix["reasons"] == {}
    rows = measure(grown_zoo, "agreement", models=ids, pairs="all")
    for row in rows[rows["part"] == ""].itertuples():
        pair = ids.index(row.model), ids.index(row.other)
        assert matrix["values"][pair[0]][pair[1]] == pytest.approx(row.value)


def test_who_gives_no_classes_has_no_numbers_and_a_reason(grown_zoo):
    contrastive = {
        "data": "digits",
        "objective": {"name": "simclr", "out_dim": 8},
        "augmentation": "simclr",
        "epochs": 1,
        "batch_size": 32,
    }
    first = next(model for model in grown_zoo if model.children)
    contrastive["start"] = {"models": [first.id]}
    grow({"name": "c", "stages": {"contrastive": contrastive}}, grown_zoo, **PLAIN)
    other = next(model for model in grown_zoo if model.stage == "contrastive")
    matrix = agreement(grown_zoo.path, first.id, other.id)
    assert matrix["values"] == [[1, None], [None, None]]
    assert "gives no classes" in matrix["reasons"][other.id]
    assert list(matrix["reasons"]) == [other.id]
    distances = weight_distances(grown_zoo.path, first.id, other.id)["values"]
    assert distances[0][1] > 0  # its backbone is compared all the same


def test_what_has_no_weights_or_no_data_now_is_said(written_zoo, grown_zoo, monkeypatch):
    ids = written_zoo.ids()[:2]
    for compare in (agreement, weight_distances):
        matrix = compare(written_zoo.path, *ids)
        assert matrix["values"] == [[None, None], [None, None]]
        assert matrix["order"] == [0, 1]
        assert all("has no weights" in matrix["reasons"][id] for id in ids)

    def missing(*arguments):
        raise DataNotFound("digits are not here")

    monkeypatch.setattr(ModelLoader, "examples", missing)
    id = grown_zoo.ids()[0]
    answer = agreement(grown_zoo.path, id)
    assert answer["reasons"] == {id: "digits are not here"}
    kind, _ = _compute(grown_zoo.path, "agreement", [id])
    assert kind == "transient"  # it is not kept: data may come


def test_distances_are_those_of_the_weights_without_heads(grown_zoo):
    ids = grown_zoo.ids()
    matrix = weight_distances(grown_zoo.path, *ids)
    vectors = []
    for id in ids:
        weights = grown_zoo.state_dict(id)
        names = sorted(name for name in weights if not name.startswith("head."))
        vectors.append(torch.cat([weights[name].double().flatten() for name in names]))
    for row, first in enumerate(vectors):
        for column, second in enumerate(vectors):
            mean = (first.norm() + second.norm()) / 2
            expected = ((first - second).norm() / mean).item()
            assert matrix["values"][row][column] == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_models_of_other_shapes_have_no_distance(grown_zoo, tiny):
    tiny["stages"] = {"pretrain": {**tiny["stages"]["pretrain"], "epochs": 1}}
    tiny["stages"]["pretrain"]["architecture"]["embed_dim"] = 8
    before = grown_zoo.ids()
    grow(tiny, grown_zoo, **PLAIN)
    other = next(id for id in grown_zoo.ids() if id not in before)
    values = weight_distances(grown_zoo.path, before[0], other)["values"]
    assert values == [[0, None], [None, 0]]
    with pytest.raises(NotApplicable, match=r"differ in 'cls_token'.*16.*8"):
        barrier(grown_zoo.path, before[0], other)


def test_the_order_of_clusters_has_neighbors_beside_each_other():
    generator = np.random.default_rng(0)
    points = np.concatenate([center + generator.normal(size=4) for center in (0, 50, 100)])
    shuffled = generator.permutation(12)
    distances = np.abs(points[shuffled][:, None] - points[shuffled])
    order = clustered(distances)
    assert sorted(order) == list(range(12))
    groups = [int(shuffled[row]) // 4 for row in order]
    assert sum(a != b for a, b in pairwise(groups)) == 2


def test_branches_are_turned_so_that_neighbors_are_near():
    points = np.array([0.0, 3.0, 1.0, 9.0])
    distances = np.abs(points[:, None] - points)
    length = lambda order: sum(distances[a, b] for a, b in pairwise(order))  # noqa: E731
    assert length(clustered(distances)) == min(map(length, permutations(range(4))))


def test_pairs_without_a_distance_are_far_apart():
    near = [[0.0, 0.1, np.nan], [0.1, 0.0, np.nan], [np.nan, np.nan, np.nan]]
    order = clustered(np.array(near))
    assert sorted(order) == [0, 1, 2]
    assert order[1] != 2  # not between the two
    assert sorted(clustered(np.full((3, 3), np.nan))) == [0, 1, 2]


def test_the_barrier_is_the_largest_rise_above_the_line_between_both_ends(grown_zoo, siblings):
    first, second = (model.id for model in siblings)
    shown = barrier(grown_zoo.path, first, second)
    ends = [grown_zoo.state_dict(id) for id in (first, second)]
    images = grown_zoo.data(first)
    assert shown["images"] == len(images) < PATH.num_images  # all of them, as they are few
    assert shown["positions"] == pytest.approx([step / 10 for step in range(11)])
    losses, accuracies = [], []
    for t in shown["positions"]:
        point = {name: (1 - t) * a + t * ends[1][name] for name, a in ends[0].items()}
        logits, labels = logits_of(grown_zoo, first, point)
        losses.append(F.cross_entropy(logits.double(), labels).item())
        accuracies.append((logits.argmax(1) == labels).double().mean().item())
    assert shown["loss"] == pytest.approx(losses, rel=1e-5)
    assert shown["accuracy"] == pytest.approx(accuracies, abs=1.01 / len(images))
    rises = [
        loss - (1 - t) * losses[0] - t * losses[-1]
        for t, loss in zip(shown["positions"], losses, strict=True)
    ]
    assert shown["barrier"] == pytest.approx(max(rises), abs=1e-5)
    assert rises[shown["positions"].index(shown["barrier_at"])] == pytest.approx(max(rises))


def test_the_barrier_is_the_measure(grown_zoo, siblings):
    ids = [model.id for model in siblings]
    shown = barrier(grown_zoo.path, *ids)
    rows = measure(grown_zoo, "barrier", models=ids, pairs="all", points=11, num_images=512)
    values = {row.part: row.value for row in rows.itertuples()}
    assert shown["barrier"] == pytest.approx(values[""], abs=1e-6)
    assert shown["accuracy_barrier"] == pytest.approx(values["error"], abs=1e-6)


def test_a_model_has_no_barrier_to_itself(grown_zoo, siblings):
    shown = barrier(grown_zoo.path, siblings[0].id, siblings[0].id)
    assert shown["barrier"] == pytest.approx(0, abs=1e-6)
    assert len({*shown["accuracy"]}) == 1


def test_no_more_models_than_can_be_read(grown_zoo):
    with pytest.raises(InvalidInput, match=f"at most {MAX_MODELS}"):
        agreement(grown_zoo.path, *[grown_zoo.ids()[0]] * (MAX_MODELS + 1))


@pytest.mark.slow
def test_the_server_answers_for_names(client_of, grown_zoo, siblings):
    first, second = (model.id for model in siblings)
    with client_of(grown_zoo) as client:
        names = f"{first[:8]},{second[:8]}"
        matrix = client.get(f"/api/matrices/agreement.json?models={names}").json()
        assert matrix == agreement(grown_zoo.path, first, second)
        matrix = client.get(f"/api/matrices/weights.json?models={names}").json()
        assert matrix == weight_distances(grown_zoo.path, first, second)
        shown = client.get(f"/api/pairs/{first[:8]}/{second}/barrier.json").json()
        assert shown == barrier(grown_zoo.path, first, second)
        assert client.get("/api/matrices/agreement.json?models=zzz").status_code == 404
        assert client.get("/api/matrices/others.json?models=zzz").status_code == 422
        many = ",".join([first] * (MAX_MODELS + 1))
        refused = client.get(f"/api/matrices/agreement.json?models={many}").json()
        assert "at most" in refused["refused"]


@pytest.mark.slow
def test_a_cell_of_the_matrix_chooses_the_pair(browser, grown_zoo):
    ids = grown_zoo.ids()
    matrix = agreement(grown_zoo.path, *ids)
    distances = weight_distances(grown_zoo.path, *ids)["values"]
    with served(grown_zoo, Access("127.0.0.1")) as address:
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(f"{address}#view=compare&selected={'~'.join(ids)}")
        page.wait_for_selector("[data-at]", timeout=180_000)
        headings = page.locator(".frame th").all_inner_texts()
        assert sorted(headings) == sorted(id[:8] for id in ids)
        listed = {id[:8]: matrix["values"][row] for row, id in enumerate(ids)}
        clustered_ids = [ids[row][:8] for row in matrix["order"]]
        assert headings in (clustered_ids, clustered_ids[::-1])
        first, second = headings[0], headings[3]
        cell = page.locator(f"[aria-label^='{first} and {second}:']")
        share = listed[first][[id[:8] for id in ids].index(second)]
        assert cell.get_attribute("aria-label").endswith(f": {100 * share:.1f} % the same")
        cell.hover()
        expect(page.locator("p[aria-live]", has_text=second)).to_contain_text("% the same")
        cell.click()
        expect(page.get_by_role("heading", name=f"{first} and {second}")).to_be_visible()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name=f"{headings[1]} and {second}")).to_be_visible()
        page.get_by_label("of each pair").select_option("weights")
        page.wait_for_selector(f"[aria-label^='{first} and {second}: distance']", timeout=180_000)
        page.get_by_label("order of the matrix").select_option("table")
        rows = page.evaluate("fetch('api/models.json').then((answer) => answer.json())")["ids"]
        assert page.locator(".frame th").all_inner_texts() == [id[:8] for id in rows]
        shown = page.locator(f"[aria-label^='{rows[0][:8]} and {rows[1][:8]}:']")
        value = distances[ids.index(rows[0])][ids.index(rows[1])]
        assert float(shown.get_attribute("aria-label").split()[-1]) == pytest.approx(
            value, rel=1e-3
        )
        page.close()


@pytest.mark.slow
def test_the_way_between_two_models_is_drawn_when_asked_for(browser, grown_zoo, siblings):
    first, second = (model.id for model in siblings)
    shown = barrier(grown_zoo.path, first, second)
    with served(grown_zoo, Access("127.0.0.1")) as address:
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        requests = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"{address}#view=compare&selected={first}~{second}")
        button = page.get_by_role("button", name="Interpolate")
        button.wait_for(timeout=180_000)
        assert not any("barrier" in url for url in requests)
        button.click()
        drawing = page.get_by_label("Loss and accuracy on the line")
        expect(drawing).to_be_visible(timeout=180_000)
        assert drawing.locator("circle").count() == 2 * len(shown["positions"])
        expect(page.get_by_text("The barrier is the largest rise")).to_be_visible()
        text = page.locator("p", has_text="Barrier").locator("strong").inner_text()
        assert float(text.split()[0]) == pytest.approx(shown["barrier"], rel=1e-3)
        page.close()
