"""Figures of a zoo: how good its models are, and how they got there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vitarium.exchange.population import Population

ACCURACIES, CURVES = "accuracies.png", "training.png"
_WIDTH, _HEIGHT, _DPI = 4.2, 3.0, 144
_COLOUR = "#3b6fb6"


def draw(known: Population, folder: Path) -> Iterator[Path]:
    """Accuracies per stage as histograms, and every model's over the epochs; none without any."""
    stages = [stage for stage in known.stages if known.scores(stage)]
    if not stages:
        return
    folder.mkdir()
    for name, panel in ((ACCURACIES, _histogram), (CURVES, _curves)):
        figure = _figure(len(stages))
        for axes, stage in zip(figure.axes, stages, strict=True):
            panel(axes, known, stage)
        figure.savefig(folder / name, dpi=_DPI)
        yield folder / name


def _figure(panels: int) -> Any:
    """One row of panels; without a screen, and without matplotlib's global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH * panels, _HEIGHT), layout="constrained")
    figure.subplots(1, panels, squeeze=False)
    return figure


def _histogram(axes: Any, known: Population, stage: str) -> None:
    axes.hist(known.scores(stage), bins=20, color=_COLOUR)
    axes.set(title=f"{stage}: {len(known.of(stage))} models", ylabel="models")
    axes.set_xlabel(_label(known, stage))


def _curves(axes: Any, known: Population, stage: str) -> None:
    name = known.score(stage) or ""
    for model in known.of(stage):
        points = [(epoch["epoch"], epoch[name]) for epoch in model.epochs if name in epoch]
        if points:
            axes.plot(*zip(*points, strict=True), color=_COLOUR, alpha=0.4, linewidth=1, marker=".")
    axes.set(title=stage, xlabel="epoch", ylabel=_label(known, stage))


def _label(known: Population, stage: str) -> str:
    return str(known.score(stage)).replace("_", " ").replace("knn", "k-NN")
