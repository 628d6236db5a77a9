"""What `architectures.py` measures of its zoos, and the tables of it.

Differences are of models with the same seed, so the same order of images; intervals of 95 % are
Student's t over the seeds. Of Kendall's tau they come of drawing the topologies again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from measured_steps import Step
from scipy import stats

DRAWS = 2000
HEADER = ("architecture", "parameters", "accuracy, %", "less `vit`, same epochs")
HEADER += ("less `vit`, same time", "epochs (`vit` in that time)", "images/s", "MiB")
Interval = dict[str, float]


@dataclass(frozen=True)
class Comparison:
    """An architecture beside the plain ViT, on a task; accuracies by seed."""

    task: str
    architecture: str
    parameters: int
    accuracy: Sequence[float]
    same_epochs: Sequence[float]
    same_time: Sequence[float]
    epochs: tuple[int, int]
    """Of the architecture, and of the ViT in the same time."""
    step: Step


def rows_of(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    return [
        {
            "task": each.task,
            "architecture": each.architecture,
            "parameters": each.parameters,
            "accuracy": interval(each.accuracy),
            "less_vit_same_epochs": interval(np.subtract(each.accuracy, each.same_epochs)),
            "less_vit_same_time": interval(np.subtract(each.accuracy, each.same_time)),
            "epochs": list(each.epochs),
            "images_per_second": each.step.images_per_second,
            "saved_mib": each.step.saved_mib,
        }
        for each in comparisons
    ]


def interval(values: Sequence[float] | np.ndarray) -> Interval:
    """Mean, and bounds of Student's t at 95 %; of one value alone the mean."""
    numbers = np.asarray(values, dtype=float)
    mean, n = float(numbers.mean()), len(numbers)
    if n < 2:
        return {"mean": mean}
    half = float(stats.t.ppf(0.975, n - 1) * numbers.std(ddof=1) / n**0.5)
    return {"mean": mean, "low": mean - half, "high": mean + half}


def tau_rows(table: pd.DataFrame, scores: Sequence[str]) -> list[dict[str, Any]]:
    """Kendall's tau of each score with the accuracy of a table's rows, with bounds."""
    noise = np.random.default_rng(0)
    rows = []
    for score in scores:
        both = table[[score, "test_accuracy"]].dropna().to_numpy()
        draws = [both[noise.integers(len(both), size=len(both))] for _ in range(DRAWS)]
        taus = [value for draw in draws if not np.isnan(value := _tau(draw))]
        low, high = np.quantile(taus, [0.025, 0.975])
        tau = {"mean": _tau(both), "low": float(low), "high": float(high)}
        rows.append({"score": score, "topologies": len(both), "tau": tau})
    return rows


def _tau(both: np.ndarray) -> float:
    return float(stats.kendalltau(both[:, 0], both[:, 1]).statistic)


def markdown(results: Mapping[str, Any]) -> str:
    """Tables of the tasks, of what was refused, and of the scores."""
    lines = []
    for task in dict.fromkeys(row["task"] for row in results["rows"]):
        lines += ["", f"## {task}", "", *_task([r for r in results["rows"] if r["task"] == task])]
    if results["refused"]:
        lines += ["", "## Not compared", ""]
        lines += [f"- `{name}`: {reason}" for name, reason in results["refused"].items()]
    if results["tau"]:
        lines += ["", "## Scores of untrained models", ""]
        lines += ["| score | topologies | Kendall's tau with accuracy |", "| --- | --- | --- |"]
        lines += [
            f"| `{row['score']}` | {row['topologies']} | {_text(row['tau'], 2)} |"
            for row in results["tau"]
        ]
    return "\n".join(lines).lstrip() + "\n"


def _task(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["| " + " | ".join(HEADER) + " |", "| " + " | ".join(["---"] * len(HEADER)) + " |"]
    for row in sorted(rows, key=lambda row: -row["accuracy"]["mean"]):
        cells = [
            f"`{row['architecture']}`",
            f"{row['parameters']:,}",
            _percent(row["accuracy"]),
            _percent(row["less_vit_same_epochs"], "+"),
            _percent(row["less_vit_same_time"], "+"),
            f"{row['epochs'][0]} ({row['epochs'][1]})",
            f"{row['images_per_second']:.0f}",
            f"{row['saved_mib']:.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _percent(value: Interval, sign: str = "") -> str:
    return _text({name: 100 * number for name, number in value.items()}, 1, sign)


def _text(value: Interval, digits: int, sign: str = "") -> str:
    numbers = {name: f"{number:{sign}.{digits}f}" for name, number in value.items()}
    bounds = f" [{numbers['low']}, {numbers['high']}]" if "low" in numbers else ""
    return numbers["mean"] + bounds
