"""Figures of a zoo: how good its models are, and how they got there."""

from collections.abc import Iterator, Sequence
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

    Raises MissingExtra, DiskFull, NotWritable.
    """
    stages = [stage for stage in population.stages if population.scores(stage)]
    if not stages:
        return
    require("study", "a zoo's figures")
    import altair as alt
    import vl_convert

    folder.mkdir()
    for name, panel in ((ACCURACIES, _histogram), (CURVES, _curves)):
        panels = [
            panel(population, stage).properties(width=_WIDTH, height=_HEIGHT) for stage in stages
        ]
        spec = alt.hconcat(*panels).to_dict()
        spec.pop("config", None)
        files.write(folder / name, vl_convert.vegalite_to_png(spec, scale=2, config=_LOOKS))
        yield folder / name


def _chart(rows: Sequence[dict[str, Any]], title: str) -> Any:
    import altair as alt

    return alt.Chart(alt.InlineData(values=list(rows)), title=title)


def _histogram(population: Population, stage: str) -> Any:
    import altair as alt

    rows = [{"score": score} for score in population.scores(stage)]
    title = f"{_title_of(stage)}: {len(population.of(stage))} models"
    x = alt.X("score:Q", bin=alt.Bin(maxbins=20), title=_label(population, stage))
    y = alt.Y("count():Q", title="models", axis=alt.Axis(tickMinStep=1))
    return _chart(rows, title).mark_bar(color=_COLOR).encode(x=x, y=y)


def _curves(population: Population, stage: str) -> Any:
    import altair as alt

    score = population.score(stage) or ""
    rows = [
        {"model": number, "epoch": epoch["epoch"], "score": epoch[score]}
        for number, model in enumerate(population.of(stage))
        for epoch in model.epochs
        if score in epoch
    ]
    lines = _chart(rows, _title_of(stage)).mark_line(
        color=_COLOR, strokeWidth=1, strokeOpacity=0.4, point={"color": _COLOR, "size": 14}
    )
    return lines.encode(
        x=alt.X("epoch:Q", axis=alt.Axis(title="epoch", tickMinStep=1)),
        y=alt.Y("score:Q", title=_label(population, stage), scale=alt.Scale(zero=False)),
        detail="model:N",
    )


def _title_of(stage: str) -> str:
    return shortened(printable(stage), _MAX_LENGTH)


def _label(population: Population, stage: str) -> str:
    return str(population.score(stage)).replace("_", " ").replace("knn", "k-NN")
