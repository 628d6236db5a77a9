"""Figures of a zoo: how good its models are, and how they got there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vitarium.core import files
from vitarium.core.extras import require
from vitarium.core.printable import printable, shortened
from vitarium.formats.summary import Population

ACCURACIES, CURVES = "accuracies.png", "training.png"
_WIDTH, _HEIGHT = 300, 220
"""Of a panel, in pixels of a screen; files have twice as many."""
_COLOR = "#3b6fb6"
_MAX_LENGTH = 40
"""Characters of the name of a stage above a panel."""
_LOOKS = {"background": "white", "font": "Helvetica, Arial, sans-serif"}


def draw(population: Population, folder: Path) -> Iterator[Path]:
    """Accuracies per stage as histograms, and every model's over the epochs; none without any.
    Raises MissingExtra, DiskFull, NotWritable."""
    stages = [stage for stage in population.stages if population.scores(stage)]
    if not stages:
        return
    require("study", "a zoo's figures")
    import altair as alt
    import vl_convert

    folder.mkdir()
    panels = [_panels(population, stage) for stage in stages]
    for name, row in zip((ACCURACIES, CURVES), zip(*panels, strict=True), strict=True):
        spec = alt.hconcat(*row).to_dict()
        spec.pop("config", None)
        files.write(folder / name, vl_convert.vegalite_to_png(spec, scale=2, config=_LOOKS))
        yield folder / name


def _panels(population: Population, stage: str) -> tuple[Any, Any]:
    """A stage's histogram of scores, and its models' scores over the epochs."""
    import altair as alt

    def chart(rows: list[dict[str, Any]], title: str) -> Any:
        data = alt.InlineData(values=rows)
        return alt.Chart(data, title=title, width=_WIDTH, height=_HEIGHT)

    score, models = population.score(stage) or "", population.of(stage)
    label = score.replace("_", " ").replace("knn", "k-NN")
    title = shortened(printable(stage), _MAX_LENGTH)
    scores = [{"score": value} for value in population.scores(stage)]
    bars = chart(scores, f"{title}: {len(models)} models").mark_bar(color=_COLOR)
    histogram = bars.encode(
        x=alt.X("score:Q", bin=alt.Bin(maxbins=20), title=label),
        y=alt.Y("count():Q", title="models", axis=alt.Axis(tickMinStep=1)),
    )
    points = [
        {"model": number, "epoch": epoch["epoch"], "score": epoch[score]}
        for number, model in enumerate(models)
        for epoch in model.epochs
        if score in epoch
    ]
    lines = chart(points, title).mark_line(
        color=_COLOR, strokeWidth=1, strokeOpacity=0.4, point={"color": _COLOR, "size": 14}
    )
    curves = lines.encode(
        x=alt.X("epoch:Q", axis=alt.Axis(title="epoch", tickMinStep=1)),
        y=alt.Y("score:Q", title=label, scale=alt.Scale(zero=False)),
        detail="model:N",
    )
    return histogram, curves
