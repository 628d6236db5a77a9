"""Tables of what comes of combining models."""

from collections.abc import Sequence

import numpy as np

from vitarium.studies.report.page import Table
from vitarium.studies.report.text import DASH, interval, number, share
from vitarium.studies.soups.barriers import Lines
from vitarium.studies.soups.estimates import Level, Walks, accuracy, compared, gain
from vitarium.studies.soups.groups import Group
from vitarium.studies.soups.results import BEST, ENSEMBLE, MEAN, Results, label
from vitarium.studies.soups.sentences import Direction
from vitarium.studies.statistics.bootstrap import Bootstrap, Estimate

_UNFOLDED = 30
"""Rows up to which a table is unfolded at first."""


def methods(results: Results, bootstrap: Bootstrap) -> Table | None:
    """A row per method: the mean over the groups of siblings."""
    families = results.groups("family")
    names = dict.fromkeys((r.method, r.align) for g in families for r in results.of(g))
    rows = []
    for method, align in names:
        best = compared(results, bootstrap, families, method, align=align)
        mean = compared(results, bootstrap, families, method, MEAN, align)
        if not best or not mean:
            continue
        there = [found for g in families if (found := results.get(g, method, align))]
        accuracies = [found.scores.accuracy for found in there]
        rows.append(
            [
                label(method, align),
                number(float(np.mean(accuracies)), "accuracy"),
                _estimate(best.of_images),
                interval(best.of_groups, "accuracy"),
                DASH if method == BEST else f"{best.better} of {best.groups}",
                _estimate(mean.of_images),
            ]
        )
    if not rows:
        return None
    return Table(
        "Methods, on average over the groups of siblings",
        [
            "method",
            "accuracy",
            "against best single",
            "over groups",
            "better in groups",
            "against mean single",
        ],
        rows,
        "Best single: by validation. Intervals over test images; “over groups”: of the same mean, "
        "over groups, where there are four or more.",
    )


def groups(
    results: Results, bootstrap: Bootstrap, kinds: Sequence[str], title: str
) -> Table | None:
    """A row per group and method."""
    rows = []
    for group in results.groups(*kinds):
        best = results.get(group, BEST)
        for result in results.of(group):
            difference = (
                _estimate(gain(bootstrap, [(result.scores, best.scores)]))
                if best and result.method != BEST
                else DASH
            )
            estimate = accuracy(bootstrap, result.scores)
            rows.append(
                [
                    group.name,
                    result.label,
                    str(result.count),
                    _HEADS[result.heads] if result.count > 1 and result.method != ENSEMBLE else "",
                    number(result.scores.val_accuracy, "accuracy"),
                    f"{number(estimate.value, 'accuracy')} {interval(estimate, 'accuracy')}",
                    difference,
                ]
            )
    if not rows:
        return None
    return Table(
        title,
        ["group", "method", "models", "heads", "validation", "accuracy", "against best single"],
        rows,
        "Intervals over test images. Heads: merged like all other weights; averaged apart from "
        "what the method does with the rest, where they did not start from the same values; or all "
        "kept, the model giving the mean of their outputs, where their shapes differ.",
        open=len(rows) <= _UNFOLDED,
    )


_HEADS = {"merge": "merged", "average": "averaged", "ensemble": "all kept"}


def parts(results: Results, bootstrap: Bootstrap) -> Table | None:
    """Soups of siblings that share a value of a factor."""
    rows = []
    values: dict[tuple[str, str], list[Group]] = {}
    for group in results.groups("part"):
        values.setdefault((group.factor, group.value), []).append(group)
    for (factor, value), same in values.items():
        for method in dict.fromkeys(r.method for g in same for r in results.of(g)):
            best = compared(results, bootstrap, same, method)
            mean = compared(results, bootstrap, same, method, MEAN)
            if method in (BEST, MEAN) or not best or not mean:
                continue
            rows.append(
                [
                    f"{factor} = {value}",
                    str(len(same)),
                    label(method),
                    _estimate(best.of_images),
                    _estimate(mean.of_images),
                ]
            )
    if not rows:
        return None
    return Table(
        "Soups of siblings that share a factor's value",
        ["children with", "groups", "method", "against best single", "against mean single"],
        rows,
        "Means over parents, in points of accuracy, with intervals over test images. Where heads "
        "have several shapes all are kept.",
        open=len(rows) <= _UNFOLDED,
    )


def kinship(walks: Walks) -> Table | None:
    """Barriers by kinship, and of siblings by each factor."""
    own = [f for f in walks.stage.groups if not f.name.startswith("parent")]
    levels = walks.by_kinship()
    levels += [
        Level(f"siblings, {one.name}", one.factor, one.value, one.pairs, one.barrier, one.gain)
        for factor in own
        for one in walks.of_siblings(factor)
    ]
    rows = [
        [
            level.name,
            str(level.pairs),
            f"{number(level.barrier.value)} {interval(level.barrier)}",
            _estimate(level.gain),
        ]
        for level in levels
    ]
    if not rows:
        return None
    return Table(
        "Barriers by kinship",
        ["pairs of", "pairs", "barrier (nats)", "soup against mean"],
        rows,
        "Barrier: how far the loss rises above the line between the ends. Soup against mean: "
        "accuracy of both models' mean weights less the mean of their accuracies. Intervals of the "
        "bootstrap over models.",
    )


def aligned(walks: Walks) -> Table | None:
    """Barriers before and after each alignment."""
    rows = [
        [
            f"models {one.kin}",
            label(one.align),
            str(one.pairs),
            f"{number(one.before.value)} {interval(one.before)}",
            f"{number(one.after.value)} {interval(one.after)}",
            f"{number(one.reduction.value)} {interval(one.reduction)}",
            share(one.share.value) if np.isfinite(one.share.value) else DASH,
            _estimate(one.gain),
        ]
        for one in walks.aligned()
    ]
    if not rows:
        return None
    return Table(
        "Barriers before and after alignment",
        [
            "pairs of",
            "alignment",
            "pairs",
            "before (nats)",
            "after (nats)",
            "taken away (nats)",
            "share",
            "aligned soup against mean",
        ],
        rows,
        "The second model of each pair is rearranged to match the first. Intervals over models.",
    )


def epochs(results: Results, bootstrap: Bootstrap) -> Table | None:
    """What averages of the last epochs gain."""
    kinds = dict.fromkeys((one.method, one.last) for one in results.epochs)
    rows = []
    for method, last in kinds:
        some = [one for one in results.epochs if (one.method, one.last) == (method, last)]
        gains = np.asarray([one.gain for one in some])
        over_models = bootstrap.mean(gains)
        rows.append(
            [
                label(method),
                str(last),
                str(len(some)),
                _estimate(gain(bootstrap, [(one.averaged, one.alone) for one in some])),
                interval(over_models, "accuracy"),
                f"{int((gains > 0).sum())} / {int((gains == 0).sum())} / {int((gains < 0).sum())}",
                number(
                    float(np.mean([g.averaged.val_accuracy - g.alone.val_accuracy for g in some])),
                    "accuracy",
                ),
            ]
        )
    if not rows:
        return None
    return Table(
        "Averages of the last epochs against the last epoch",
        [
            "method",
            "epochs",
            "models",
            "gain",
            "over models",
            "better / same / worse",
            "validation",
        ],
        rows,
        "Mean gain in points of accuracy, with its interval over test images, and the interval of "
        "the same mean over models.",
    )


def ingredients(results: Results) -> Table | None:
    """Accuracy of soups of the best k models."""
    rows = [
        [
            one.group.name,
            one.label,
            str(one.count),
            number(one.scores.val_accuracy, "accuracy"),
            number(one.scores.accuracy, "accuracy"),
        ]
        for one in results.curves
    ]
    if not rows:
        return None
    return Table(
        "Soups of the best models of a group",
        ["group", "method", "best models", "validation", "accuracy"],
        rows,
        open=False,
    )


def directions(found: Sequence[Direction]) -> Table | None:
    """Published findings against the numbers here."""
    if not found:
        return None
    return Table(
        "Published directions, checked",
        ["published", "verdict", "here"],
        [[one.published, f"**{one.verdict}**", one.here.replace("**", "")] for one in found],
        wrap=True,
    )


def absent(results: Results, lines: Lines) -> Table | None:
    """What could not be combined, and why."""
    missing = [*results.absent, *lines.absent]
    whys: dict[tuple[str, str], list[str]] = {}
    for one in missing:
        whys.setdefault((one.what, one.why), []).append(one.of)
    rows = [
        [what, of[0] if len(of) == 1 else f"{of[0]} and {len(of) - 1} more", why]
        for (what, why), of in whys.items()
    ]
    if not rows:
        return None
    return Table("What could not be combined", ["what", "of", "why"], rows, wrap=True)


def _estimate(estimate: Estimate) -> str:
    """`+0.3 % [0.1, 0.5]`, of a difference."""
    value = number(estimate.value, "accuracy")
    sign = "+" if estimate.value > 0 else ""
    return f"{sign}{value} {interval(estimate, 'accuracy')}"
