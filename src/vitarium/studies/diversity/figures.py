"""Figures of a stage's models, of maps of them, and of a population's lineage."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from vitarium.evaluation import embedding as maps
from vitarium.studies.report import figures as plot
from vitarium.studies.report.tables import Table
from vitarium.studies.report.text import number, title
from vitarium.studies.report.texts import Texts
from vitarium.studies.report.trees import TreeLayout, arrange, tree_figure
from vitarium.studies.statistics.analysis import Analysis, squared_of
from vitarium.studies.statistics.bootstrap import Numbers
from vitarium.studies.statistics.factors import PARENT
from vitarium.studies.statistics.stages import Stage, Stages

texts = Texts("diversity", "figures")
_MANY = 40  # models of which single curves become faint
_CLEAR = ["clear (p < 0.05)", "not clear"]
_TREE_HEIGHT = 1200  # pixels, about; with more models the rows come closer


def curves(stage: Stage, first: str | None) -> plot.Figure | None:
    """Accuracy over epochs, a line per model and a thick one per group."""
    if not len(stage.epochs):
        return None
    colors = plot.ModelColors(stage, first)
    base = alt.Chart(plot.data(stage.epochs))
    base = base.transform_lookup(lookup="model", from_=colors.lookup())
    base = base.transform_calculate(group=plot.GROUP)
    x = alt.X("epoch:Q", axis=alt.Axis(title="epoch", tickMinStep=1))
    lines = base.mark_line(strokeWidth=1).encode(
        x=x,
        y=alt.Y("accuracy:Q", axis=plot.axis("accuracy", title=stage.score)),
        detail="model:N",
        color=plot.group_color(),
        # of the stroke: opacity of whole marks makes the image of many lines take minutes
        strokeOpacity=colors.when_picked(0.6 if len(stage) <= _MANY else 0.15, 0.03),
        tooltip=colors.tooltip("accuracy"),
    )
    means = base.mark_line(strokeWidth=3).encode(
        x=x,
        y=alt.Y("mean(accuracy):Q", title=stage.score),
        color=plot.group_color(),
        strokeOpacity=colors.when_picked(1, 0.05),
    )
    chart = (lines + means).add_params(colors.menu(), colors.legend_click)
    chart = chart.properties(width=plot.WIDTH, height=plot.HEIGHT)
    name = f"{stage.name}-accuracy-over-epochs"
    return texts.figure("curves", name, chart, factor=colors.name)


def against_accuracy(stage: Stage, measure: str, first: str | None) -> plot.Figure | None:
    """A point per model: a measure, and the accuracy."""
    values = stage.values.reindex(columns=[measure, "accuracy"]).dropna()
    if len(values) < 3:
        return None
    colors = plot.ModelColors(stage, first)
    x, linear = values[measure], alt.Scale(zero=False)
    wide = bool((x > 0).all() and x.max() > 20 * x.min())
    scale = alt.Scale(type="log") if wide else alt.Scale(zero=False, nice=True)
    points = alt.Chart(plot.data(colors.table[colors.table["model"].isin(values.index)]))
    points = points.transform_calculate(group=plot.GROUP).mark_circle(size=70)
    chart = points.encode(
        x=alt.X(f"{measure}:Q", scale=scale, axis=plot.axis(measure)),
        y=alt.Y("accuracy:Q", scale=linear, axis=plot.axis("accuracy", title=stage.score)),
        color=plot.group_color("top"),
        opacity=colors.when_picked(0.85, 0.06),
        tooltip=colors.tooltip("accuracy", measure),
    )
    chart = chart.add_params(colors.menu(), colors.legend_click).properties(width=390, height=280)
    name = f"{stage.name}-accuracy-against-{measure.replace('_', '-')}"
    counts: dict[str, Any] = {"measured": len(values), "models": len(stage)}
    counts |= {"measure": title(measure), "factor": colors.name}
    return texts.figure("against_accuracy", name, chart, wide=False, **counts)


def distributions(stage: Stage, first: str | None) -> plot.Figure | None:
    """Every measure by every factor, each to be chosen."""
    measures = list(stage.values)
    if not measures or len(stage) < 2:
        return None
    colors = plot.ModelColors(stage, first)
    menu = alt.binding_select(options=measures, labels=[title(m) for m in measures], name="Of ")
    measure = alt.param(name="measure", value=measures[0], bind=menu)
    base = alt.Chart(plot.data(colors.table.assign(jitter=np.arange(len(stage)) * plot.GOLDEN % 1)))
    base = base.transform_calculate(group=plot.GROUP, value="datum[measure]")
    base = base.transform_filter("isValid(datum.value)")
    x = alt.X("value:Q", scale=alt.Scale(zero=False), axis=alt.Axis(title=None))
    y = alt.Y("group:N", axis=alt.Axis(title=None, labelLimit=200))
    offset = alt.YOffset("jitter:Q", scale=alt.Scale(domain=[-0.6, 1.6]))
    color, tips = plot.group_color(None), colors.tooltip(*measures)
    boxes = base.mark_boxplot(extent="min-max", size=18, opacity=0.35)
    points = base.mark_circle(size=40, opacity=0.75)
    points = points.encode(x=x, y=y, yOffset=offset, color=color, tooltip=tips)
    chart = boxes.encode(x=x, y=y, color=color) + points
    chart = chart.add_params(measure, colors.menu("by "))
    chart = chart.properties(width=plot.WIDTH, height=alt.Step(34))
    name, measured = f"{stage.name}-distributions", title(measures[0])
    return texts.figure("distributions", name, chart, measure=measured, factor=colors.name)


def variance(analysis: Analysis, table: Table) -> plot.Figure | None:
    """What each factor explains of each measure, with intervals, and what chance would."""
    if table.data.empty:
        return None
    names = {"of": "measure", "η²": "share", "η² low": "low", "η² high": "high"}
    rows = table.frame.rename(columns=names | {"η² by chance": "chance"})
    rows["clear"] = np.where(rows["p"] < 0.05, *_CLEAR)
    factors = [factor.name for factor in analysis.stage.groups]
    y = alt.Y("factor:N", sort=factors, axis=alt.Axis(title=None, labelLimit=140))
    scale = alt.Scale(domain=[0, 1])
    percent = alt.Axis(title=None, format="%", tickCount=3)
    share, low, chance = (
        alt.X(f"{column}:Q", scale=scale, axis=percent) for column in ("share", "low", "chance")
    )
    tips = [alt.Tooltip(f"{name}:N") for name in ("measure", "factor")]
    tips += [alt.Tooltip(f"{n}:Q", format=".1%") for n in ("share", "low", "high", "chance")]
    tips.append(alt.Tooltip("p:Q", title="p (corrected)", format=".3f"))
    color, base = plot.categories("clear", _CLEAR, [plot.PALETTE[0], plot.FAINT]), alt.Chart()
    whiskers = base.mark_rule(strokeWidth=1.5, color=plot.PALETTE[9])
    ticks = base.mark_tick(color=plot.ORANGE, thickness=2, size=13)
    panel = alt.layer(
        base.mark_bar(size=9).encode(x=share, y=y, color=color, tooltip=tips),
        whiskers.encode(x=low, x2="high:Q", y=y),
        ticks.encode(x=chance, y=y),
        data=plot.data(rows),
    ).properties(width=170, height=alt.Step(19))
    panels = plot.panels(panel, "measure", [title(measure) for measure in analysis.measures], 4)
    return texts.figure("variance", f"{analysis.stage.name}-variance", panels)


def embedding(
    stage: Stage, methods: Sequence[maps.Method], first: str | None, seed: int
) -> plot.Figure | None:
    """The models in each space, placed by each method: near each other where they are alike."""
    spaces: dict[str, tuple[Numbers, Any]] = {}
    if weights := squared_of(stage, "weight_l2"):
        spaces["weights"] = weights
    statistics = stage.statistics
    if len(statistics) > 2 and statistics.shape[1]:
        features = maps.standardized(statistics.to_numpy(dtype=float))
        indices = [stage.ids.index(id) for id in statistics.index]
        spaces["weight statistics"] = maps.squared_distances(features), indices
    if predictions := squared_of(stage, "agreement"):
        spaces["predictions"] = predictions
    frames = []
    for space, (squared, indices) in spaces.items():
        for method in methods:
            coordinates = maps.embed(squared, method, seed=seed)
            if coordinates is not None:
                # axes mean nothing: to the unit square, so that panels may share them
                extent = max(np.ptp(coordinates, axis=0).max(), 1e-300)
                unit = (coordinates - coordinates.min(0)) / extent
                ids = [stage.ids[index] for index in indices]
                rows = {"model": ids, "space": space, "method": maps.TITLES[method]}
                frames.append(pd.DataFrame({**rows, "x": unit[:, 0], "y": unit[:, 1]}))
    if not frames:
        return None
    points = pd.concat(frames, ignore_index=True)
    colors, titles = plot.ModelColors(stage, first), list(dict.fromkeys(points["method"]))
    menu = alt.binding_select(options=titles, name="Placed by ")
    method_menu = alt.param(name="method", value=titles[0], bind=menu)
    scale = alt.Scale(domain=[-0.06, 1.06])
    circles = alt.Chart().mark_circle(size=70)
    panel = circles.encode(
        x=alt.X("x:Q", scale=scale, axis=None),
        y=alt.Y("y:Q", scale=scale, axis=None),
        color=plot.group_color(),
        opacity=colors.when_picked(0.85, 0.06),
        tooltip=colors.tooltip("accuracy"),
    ).properties(width=255, height=255, view=alt.ViewBackground(stroke="#c9ced6"))
    drawn = set(points["space"])
    order = [space for space in spaces if space in drawn]
    column = alt.Column("space:N", sort=order, header=alt.Header(title=None, labelFontSize=12))
    chart = alt.layer(panel, data=plot.data(points)).transform_filter("datum.method === method")
    chart = chart.transform_lookup(lookup="model", from_=colors.lookup("accuracy"))
    chart = chart.transform_calculate(group=plot.GROUP).facet(column=column)
    chart = chart.add_params(colors.menu(), method_menu, colors.legend_click)
    name = f"{stage.name}-embedding"
    return texts.figure("embedding", name, chart, method=titles[0], factor=colors.name)


def lineage(stages: Stages) -> plot.Figure | None:
    """A row per model: at the left the tree, at the right its accuracy."""
    nodes = {node.model: node for node in arrange(stages.parents)}
    if not nodes:
        return None
    layout = TreeLayout({"": list(nodes.values())}, height=_TREE_HEIGHT, min_step=0)
    accuracies = stages.accuracies.dropna()
    low, high = (accuracies.min(), accuracies.max()) if len(accuracies) else (0.0, 1.0)
    for stage in stages.stages:
        factors = [factor for factor in stage.factors if not factor.name.startswith(PARENT)]
        for id in stage.ids:
            accuracy = float(accuracies.get(id, np.nan))
            values = " ".join(factor.labels[id] for factor in factors)
            cells = {"status": stage.name, "label": f"{id[:8]}  {values}", "name": id[:8]}
            cells |= {"factors": values, "accuracy": number(accuracy, "fraction")}
            fraction = (accuracy - low) / (high - low if high > low else 1)
            layout.add_node("", nodes[id], fraction, **cells)
    names = [stage.name for stage in stages.stages]
    return tree_figure(
        layout,
        "lineage",
        *texts.lines("lineage"),
        colors=dict(zip(names, plot.PALETTE * len(names), strict=False)),
        marks=[(at, number(float(low + at * (high - low)), "fraction")) for at in (0, 0.5, 1)],
        tooltip={"name": "model", "status": "stage", "factors": "factors", "accuracy": "accuracy"},
    )
