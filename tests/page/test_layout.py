"""Models lie in the plane as a PCA of their vectors says, and the nearest are those of brute force."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA

from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.errors import InvalidInput, NotApplicable
from vitarium.encoders._runner.vectors import Vector, VectorSet
from vitarium.evaluation import embedding
from vitarium.evaluation.embedding import standardized
from vitarium.page import layout

POINTS = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32) * [5, 3, 1, 1]
IDS = [f"{number:012x}" for number in range(9)]


def vector_set(points=POINTS, group="a"):
    refs = [CheckpointRef(id, 2) for id in IDS]
    values = points.astype(np.float32)
    return VectorSet({ref: Vector(v, group) for ref, v in zip(refs, values, strict=True)})


def test_points_are_the_pca_of_the_vectors():
    drawn, pca = layout.plane(vector_set(), "pca"), PCA(2)
    expected = pca.fit_transform(POINTS)
    points = np.stack([drawn["x"], drawn["y"]], axis=1)
    assert np.abs(points) == pytest.approx(np.abs(expected), rel=1e-4)
    assert drawn["explained"] == pytest.approx(pca.explained_variance_ratio_, rel=1e-4)
    assert drawn["ids"] == IDS
    assert drawn["models"] == [*range(9)]
    assert drawn["epochs"] == [2] * 9
    scaled = layout.plane(vector_set(), "pca", standardize=True)
    expected = PCA(2).fit_transform(standardized(POINTS))
    assert np.abs(scaled["x"]) == pytest.approx(np.abs(expected[:, 0]), rel=1e-4)


def test_epochs_of_a_model_follow_each_other():
    vectors = dict(vector_set().vectors)
    for epoch in (1, 0):
        vectors[CheckpointRef(IDS[3], epoch)] = Vector(np.full(4, epoch, np.float32), "a")
    drawn = layout.plane(VectorSet(vectors), "pca")
    assert drawn["models"] == [0, 1, 2, 3, 3, 3, 4, 5, 6, 7, 8]
    assert drawn["epochs"][3:6] == [0, 1, 2]
    assert drawn["ids"] == IDS


def test_of_many_reasons_the_most_frequent_are_named():
    ids = [f"{number:012x}" for number in range(9, 1009)]
    refused = {CheckpointRef(id, 2): f"corrupt file {id}" for id in ids}
    refused |= {CheckpointRef(id, 3): "no weights are kept" for id in ids[:2]}
    left_out = layout.plane(VectorSet(vector_set().vectors, refused), "pca")["left_out"]
    assert left_out[0] == {"reason": "no weights are kept", "models": 2}
    assert left_out[1] == {"reason": f"corrupt file {ids[0]}", "models": 1}
    assert left_out[4:] == [{"reason": "other reasons", "models": 997}]
    with pytest.raises(NotApplicable, match="997: other reasons") as refusal:
        layout.plane(VectorSet({}, refused), "pca")
    assert len(str(refusal.value)) < 400


def test_who_is_left_out_is_counted_with_the_reason():
    result = vector_set()
    refs = list(result.vectors)
    result.vectors[refs[0]] = Vector(POINTS[0], "b")
    result.vectors[refs[1]] = Vector(POINTS[1, :3], "a")
    del result.vectors[refs[2]]
    result.refused = {refs[2]: "damaged", CheckpointRef(IDS[2], 1): "damaged"}
    drawn = layout.plane(result, "pca")
    assert drawn["ids"] == IDS[3:]
    assert drawn["left_out"] == [
        {"reason": layout.OTHER_ARCHITECTURES, "models": 2},
        {"reason": "damaged", "models": 1},
    ]


def test_too_few_models_or_equal_ones_are_refused():
    few = VectorSet(dict(list(vector_set().vectors.items())[:2]))
    few.refused = {CheckpointRef(IDS[5], 0): "no weights"}
    with pytest.raises(NotApplicable, match=r"PCA needs .* than these 2; 1: no weights"):
        layout.plane(few, "pca")
    with pytest.raises(NotApplicable, match="these 9"):
        layout.plane(vector_set(np.ones((9, 4))), "pca")
    with pytest.raises(NotApplicable, match="these 0"):
        layout.plane(VectorSet(), "tsne")
    with pytest.raises(InvalidInput, match="'mds' is none of pca, tsne, umap"):
        layout.check_method("mds")


@pytest.mark.parametrize("standardize", [False, True])
def test_the_nearest_are_those_of_brute_force(standardize):
    points = standardized(POINTS) if standardize else POINTS
    distances = cdist(points, points)
    for number, id in enumerate(IDS):
        near = layout.nearest(vector_set(), id, standardize=standardize, count=5)
        order = [k for k in distances[number].argsort() if k != number][:5]
        assert [each["id"] for each in near] == [IDS[k] for k in order]
        expected = distances[number][order]
        assert [each["distance"] for each in near] == pytest.approx(expected, rel=1e-4)


def test_only_what_can_be_compared_is_near():
    result = vector_set()
    result.vectors[CheckpointRef(IDS[8], 2)] = Vector(POINTS[0], "b")
    near = layout.nearest(result, IDS[0], count=20)
    assert {each["id"] for each in near} == {*IDS[1:8]}
    result.refused[CheckpointRef("f" * 12, 2)] = "damaged"
    with pytest.raises(NotApplicable, match="damaged"):
        layout.nearest(result, "f" * 12)


def test_umap_is_offered_where_it_is_installed(monkeypatch):
    names = [method["name"] for method in layout.METHODS]
    assert names[0] == "pca"
    monkeypatch.setattr(embedding, "find_spec", lambda name: None)
    with pytest.raises(InvalidInput, match="pip install"):
        layout.check_method("umap")
