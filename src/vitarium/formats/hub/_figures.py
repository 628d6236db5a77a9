"""Figures of a zoo: how good its models are, and how they got there."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vitarium.core.printable import printable, shortened
from vitarium.formats.summary import Population

ACCURACIES, CURVES = "accuracies.png", "training.png"
_WIDTH, _HEIGHT, _DPI = 4.2, 3.0, 144
_COLOUR = "#3b6fb6"
_FALLBACK_FONTS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Hiragino Sans",
    "PingFang SC",
    "Arial Unicode MS",
)
"""Fallback fonts of Linux and macOS for names of stages."""
_MAX_LENGTH = 40
"""Characters of the name of a stage above a panel."""


def draw(population: Population, folder: Path) -> Iterator[Path]:
    """Accuracies per stage as histograms, and every model's over the epochs; none without any."""
    stages = [stage for stage in population.stages if population.scores(stage)]
    if not stages:
        return
    folder.mkdir()
    for name, panel in ((ACCURACIES, _histogram), (CURVES, _curves)):
        figure = _figure(len(stages))
        for axes, stage in zip(figure.axes, stages, strict=True):
            panel(axes, population, stage)
        with warnings.catch_warnings():
            # this machine may have no font for the name of a stage
            warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
            figure.savefig(folder / name, dpi=_DPI)
        yield folder / name


def _figure(panels: int) -> Any:
    """One row of panels; without a screen, and without matplotlib's global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH * panels, _HEIGHT), layout="constrained")
    figure.subplots(1, panels, squeeze=False)
    return figure


def _histogram(axes: Any, population: Population, stage: str) -> None:
    axes.hist(population.scores(stage), bins=20, color=_COLOUR)
    _set_title(axes, f"{_title_of(stage)}: {len(population.of(stage))} models")
    axes.set_ylabel("models")
    axes.set_xlabel(_label(population, stage))


def _curves(axes: Any, population: Population, stage: str) -> None:
    name = population.score(stage) or ""
    for model in population.of(stage):
        points = [(epoch["epoch"], epoch[name]) for epoch in model.epochs if name in epoch]
        if points:
            axes.plot(*zip(*points, strict=True), color=_COLOUR, alpha=0.4, linewidth=1, marker=".")
    _set_title(axes, _title_of(stage))
    axes.set(xlabel="epoch", ylabel=_label(population, stage))


def _set_title(axes: Any, title: str) -> None:
    from matplotlib.font_manager import get_font_names

    fonts = ["DejaVu Sans", *(name for name in _FALLBACK_FONTS if name in get_font_names())]
    axes.set_title(title, family=fonts, parse_math=False)  # a dollar sign is literal


def _title_of(stage: str) -> str:
    return shortened(printable(stage), _MAX_LENGTH)


def _label(population: Population, stage: str) -> str:
    return str(population.score(stage)).replace("_", " ").replace("knn", "k-NN")
