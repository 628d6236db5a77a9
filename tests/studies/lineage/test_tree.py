"""The picture of a recovered forest: a row per model, every edge once, in colors that say what."""

import pytest

from vitarium.studies.lineage.evaluated import Status, evaluated_forests, true_forest
from vitarium.studies.lineage.figures import TRUE_FOREST, drawn_rows, tree, tree_layout
from vitarium.studies.report.figures import PALETTE


def data_of(spec) -> list[dict]:
    return [cell for cells in spec["datasets"].values() for cell in cells]


@pytest.fixture(scope="module")
def found(forests):
    return forests.recovered(3, 4, 2, wrong=["r0c1g0", "r2c3"], mixture=True)


def test_every_model_stands_in_a_row_of_every_forest(found):
    forests = evaluated_forests(found)
    layout = tree_layout(forests, found.info)
    for name in forests:
        rows = [node for node in layout.nodes if node["forest"] == name]
        assert sorted(node["name"] for node in rows) == sorted(found.forest.models)
        assert [node["row"] for node in rows] == list(range(len(rows)))


def test_every_edge_is_drawn_once(found):
    name, one = next(iter(evaluated_forests(found).items()))
    layout = tree_layout({name: one}, found.info)
    straight = [node for node in layout.nodes if node["back"] is not None]
    curves = {cell["link"]: cell["status"] for cell in layout.curves}
    assert len(straight) == sum(row.parent is not None for row in one.rows)
    assert len(curves) == len(found.forest.edges) - len(straight) + 2  # and two that were missed
    assert sorted(curves.values()) == [Status.RIGHT, Status.MISSED, Status.MISSED]
    assert len(layout.curves) == 4 * len(curves)


def test_right_wrong_and_missed_edges_have_colours_of_their_own(found):
    spec = tree(evaluated_forests(found), found.info).spec
    scales = [
        layer["encoding"]["color"]["scale"]
        for layer in spec["layer"]
        if "color" in layer["encoding"]
    ]
    (scale,) = [one for n, one in enumerate(scales) if one not in scales[:n]]
    colors = dict(zip(scale["domain"], scale["range"], strict=True))
    assert colors == {
        Status.RIGHT: PALETTE[0],
        Status.WRONG: PALETTE[1],
        Status.MISSED: PALETTE[3],
    }
    by_name = {c["name"]: c for c in data_of(spec) if c.get("forest") == "descent" and "name" in c}
    assert by_name["r2c3"]["status"] == Status.WRONG
    assert by_name["r2c3"]["true"] == "r2"
    assert by_name["soup"]["role"] == "mixture of several"
    assert by_name["soup"]["kind"] == "merged"
    assert by_name["r0"]["role"] == "root"
    assert by_name["r0"]["parents"].startswith("none: a root (")


def test_an_edge_is_the_fainter_the_less_sure(found):
    layout = tree_layout(evaluated_forests(found), found.info)
    nodes = [node for node in layout.nodes if node["forest"] == "descent"]
    order = sorted(nodes, key=lambda node: node["at"])
    strengths = [node["strength"] for node in order]
    assert strengths == sorted(strengths)
    assert order[0]["name"] in ("r0c1g0", "r2c3")


def test_a_menu_has_all_methods_and_the_truth(found):
    forests = evaluated_forests(found) | {TRUE_FOREST: true_forest(found, TRUE_FOREST)}
    spec = tree(forests, found.info).spec
    (menu,) = [param for param in spec["params"] if param["name"] == "forest"]
    assert menu["bind"]["options"] == ["descent", "mother", "nearest_root", TRUE_FOREST]
    assert menu["value"] == "descent"


def test_one_forest_without_truth_needs_no_menu(forests):
    found = forests.recovered(1, 2, 0, known=False, others=False)
    figure = tree(evaluated_forests(found), found.info)
    (param,) = [param for param in figure.spec["params"] if param["name"] == "forest"]
    assert "bind" not in param
    assert {node["status"] for node in data_of(figure.spec) if "status" in node} == {Status.UNKNOWN}
    assert "true" not in figure.caption


def test_rows_come_closer_with_many_models_and_lose_their_names(forests):
    few, many = forests.recovered(3, 4, 4), forests.recovered(60, 4, 3)
    near = tree_layout(evaluated_forests(many), many.info)
    far = tree_layout(evaluated_forests(few), few.info)
    assert far.has_names
    assert not near.has_names
    assert near.step < far.step
    assert near.step * near.count <= 4700


def test_of_too_many_models_the_largest_families_are_drawn(forests):
    found = forests.recovered(4, 5, 1, mixture=True)  # 12 + 11 + 11 + 11 models
    one = evaluated_forests(found)["descent"]
    assert {one.families[row.model] for row in drawn_rows(one, 30)} == {0, 1}
    assert len(drawn_rows(one, 30)) == 23
    assert len(drawn_rows(one, 7)) == 7  # not even one family has room
    figure = tree({"descent": one}, found.info, max_models=30)
    assert "**23** of 45 models" in figure.caption
    names = {cell["name"] for cell in data_of(figure.spec) if "name" in cell}
    assert len(names) == 23


def test_it_is_drawn_on_paper(found, tmp_path):
    png, svg = tree(evaluated_forests(found), found.info).write(tmp_path)
    assert png.stat().st_size > 10_000
    text = svg.read_text()
    for color in (PALETTE[0], PALETTE[1], PALETTE[3]):
        assert color in text
    assert "r0c1g0" in text
