"""Every figure can be drawn, on paper and in a page, of few models and of many."""

import base64
import io
import xml.etree.ElementTree as ET

import altair as alt
import numpy as np
import pytest
from PIL import Image

from studies.conftest import made_up
from vitarium.studies.diversity import figures as model_figures
from vitarium.studies.diversity import tables
from vitarium.studies.report import matrices
from vitarium.studies.report.figures import Figure, data
from vitarium.studies.statistics.analysis import analyze
from vitarium.studies.statistics.bootstrap import Bootstrap


def test_no_figure_is_written_outside_of_its_folder(tmp_path):
    folder = tmp_path / "figures"
    folder.mkdir()
    chart = alt.Chart(data([{"x": "nul\0 \x1b[31m"}])).mark_point().encode(x="x:N")
    written = Figure("../outside", "T", "c", chart).write(folder)
    assert {file.parent for file in written} == {folder}
    assert sorted(tmp_path.rglob("*")) == sorted([folder, *written])
    ET.parse(written[1])


def drawn(stage) -> dict[str, Figure | None]:
    analysis = analyze(stage, Bootstrap(n_resamples=20))
    return {
        "curves": model_figures.curves(stage, "lr"),
        "gap": model_figures.against_accuracy(stage, "generalization_gap", "lr"),
        "distributions": model_figures.distributions(stage, "lr"),
        "variance": model_figures.variance(analysis, tables.variance(analysis)),
        "agreement": matrices.heat_map(stage, "agreement"),
        "embedding": model_figures.embedding(stage, ["pca"], "parent", 0),
    }


@pytest.mark.parametrize("models", [5, 24])
def test_figures_are_written_as_png_and_svg(models, tmp_path):
    for figure in drawn(made_up(models, 2)).values():
        png, svg = figure.write(tmp_path)
        assert np.asarray(Image.open(png).convert("L")).std() > 5
        assert "<svg" in svg.read_text()


def test_a_stage_of_one_model_has_a_curve_and_nothing_else():
    found = drawn(made_up(1, 1))
    assert [name for name, figure in found.items() if figure] == ["curves"]


def test_a_large_heat_map_is_an_image_of_every_pair():
    stage = made_up(matrices.MAX_CELLS + 10, 5)
    spec = matrices.heat_map(stage, "agreement").spec
    rows = max(spec["datasets"].values(), key=lambda rows: len(str(rows)))
    assert rows[0]["url"].startswith("data:image/png;base64,")
    assert len(str(spec)) < 100_000


def test_the_image_of_a_matrix_has_its_values_as_colours():
    from matplotlib import colormaps

    matrix = np.array([[np.nan, 0.0], [1.0, 0.5]])
    url = matrices.picture(matrix, [0.0, 1.0])
    image = np.asarray(
        Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGBA")
    )
    step = image.shape[0] // 2
    colors = image[step // 2 :: step, step // 2 :: step]
    assert colors[0, 0, 3] == 0
    for (row, column), value in (((0, 1), 0.0), ((1, 0), 1.0), ((1, 1), 0.5)):
        expected = np.array(colormaps["viridis"](value)) * 255
        assert np.abs(colors[row, column] - expected).max() <= 3


def test_models_can_be_coloured_by_each_factor_and_by_accuracy(stage):
    spec = model_figures.curves(stage, "parent").spec
    (menu,) = [param for param in spec["params"] if param["name"] == "color"]
    assert menu["bind"]["labels"] == [
        "lr", "head", "parent", "parent's objective", "accuracy (quarters)",
    ]  # fmt: skip
    assert menu["value"] == "f2"


def test_a_map_has_every_model_in_each_space_by_each_way(stage):
    figure = model_figures.embedding(stage, ["pca", "tsne"], None, 0)
    (points,) = [rows for rows in figure.spec["datasets"].values() if "space" in rows[0]]
    assert len(points) == 24 * 3 * 2
    assert {row["space"] for row in points} == {"weights", "weight statistics", "predictions"}
