"""Tables of what comes of combining models."""

from collections.abc import Sequence

import numpy as np

from vitarium.studies.report.tables import Table
from vitarium.studies.report.text import Interval
from vitarium.studies.soups.barriers import Barriers
from vitarium.studies.soups.experiments import BEST, ENSEMBLE, MEAN, Failure, MergeResults, label
from vitarium.studies.soups.groups import Group

_HEADS = {"merge": "merged", "average": "averaged", "ensemble": "all kept"}
_AGAINST_BEST, _AGAINST_MEAN = "against best single", "against mean single"
_GAINS = {_AGAINST_BEST: "gain", _AGAINST_MEAN: "gain"}


def methods(results: MergeResults) -> Table:
    """A row per method: the mean over the groups of siblings."""
    families = results.groups("family")
    rows = [
        {
            "method": label(method, align),
            "accuracy": best.accuracy,
            _AGAINST_BEST: best.over_images,
            "over groups": Interval(best.over_groups),
            "better in groups": None if method == BEST else f"{best.better} of {best.groups}",
            _AGAINST_MEAN: mean.over_images,
        }
        for method, align in results.methods(families)
        if (best := results.compare(families, method, align=align))
        and (mean := results.compare(families, method, MEAN, align))
    ]
    return Table.of(
        "Methods, on average over the groups of siblings",
        rows,
        "Best single: by validation. Intervals over test images; “over groups”: of the same mean, "
        "over groups, where there are four or more.",
        units={"accuracy": "fraction", "over groups": "gain", **_GAINS},
    )


def groups(results: MergeResults, kinds: Sequence[str], title: str) -> Table:
    """A row per group and method."""
    rows = []
    for group in results.groups(*kinds):
        best = results.by_group[group][BEST, ""].scores
        for result in results.by_group[group].values():
            scores, merged = result.scores, result.count > 1 and result.method != ENSEMBLE
            gain = None if result.method == BEST else results.gain([(scores, best)])
            row = {
                "group": group.name,
                "method": result.label,
                "models": result.count,
                "heads": _HEADS[result.heads] if merged else "",
                "validation": scores.val_accuracy,
                "accuracy": results.accuracy(scores),
                _AGAINST_BEST: gain,
            }
            rows.append(row)
    return Table.of(
        title,
        rows,
        "Intervals over test images. Heads: merged like all other weights; averaged apart from "
        "what the method does with the rest, where they did not start from the same values; or all "
        "kept, the model giving the mean of their outputs, where their shapes differ.",
        units={"validation": "fraction", "accuracy": "fraction", **_GAINS},
        folded=None,
    )


def parts(results: MergeResults) -> Table:
    """Soups of siblings that share a value of a factor."""
    groups: dict[tuple[str, str], list[Group]] = {}
    for group in results.groups("part"):
        groups.setdefault((group.factor, group.value), []).append(group)
    rows = [
        {
            "children with": f"{factor} = {value}",
            "groups": len(same),
            "method": label(method),
            _AGAINST_BEST: best.over_images,
            _AGAINST_MEAN: mean.over_images,
        }
        for (factor, value), same in groups.items()
        for method, _ in results.methods(same)
        if method not in (BEST, MEAN)
        and (best := results.compare(same, method))
        and (mean := results.compare(same, method, MEAN))
    ]
    return Table.of(
        "Soups of siblings that share a factor's value",
        rows,
        "Means over parents, in points of accuracy, with intervals over test images. Where heads "
        "have several shapes all are kept.",
        units=_GAINS,
        folded=None,
    )


def ingredients(results: MergeResults) -> Table:
    """Accuracy of soups of the best k models."""
    rows = [
        {
            "group": result.group.name,
            "method": result.label,
            "best models": result.count,
            "validation": result.scores.val_accuracy,
            "accuracy": result.scores.accuracy,
        }
        for result in results.curves
    ]
    units = {"validation": "fraction", "accuracy": "fraction"}
    return Table.of("Soups of the best models of a group", rows, units=units, folded=True)


def epochs(results: MergeResults) -> Table:
    """What averages of the last epochs gain."""
    rows = []
    for (method, last), gains in results.epochs.items():
        differences = np.asarray([model.gain for model in gains])
        signs = [int((np.sign(differences) == sign).sum()) for sign in (1, 0, -1)]
        validation = [g.averaged.val_accuracy - g.single.val_accuracy for g in gains]
        row = {
            "method": label(method),
            "epochs": last,
            "models": len(gains),
            "gain": results.gain((model.averaged, model.single) for model in gains),
            "over models": Interval(results.bootstrap.mean(differences)),
            "better / same / worse": " / ".join(map(str, signs)),
            "validation": float(np.mean(validation)),
        }
        rows.append(row)
    return Table.of(
        "Averages of the last epochs against the last epoch",
        rows,
        "Mean gain in points of accuracy, with its interval over test images, and the interval of "
        "the same mean over models.",
        units={"gain": "gain", "over models": "gain", "validation": "fraction"},
    )


def kinship(barriers: Barriers) -> Table:
    """Barriers by kinship, and of siblings by each factor."""
    siblings = [kin for factor in barriers.factors for kin in barriers.siblings(factor)]
    rows = [
        {
            "pairs of": f"{prefix}{estimate.name}",
            "pairs": estimate.pairs,
            "barrier (nats)": estimate.barrier,
            "soup against mean": estimate.gain,
        }
        for prefix, kin in (("models ", barriers.kin), ("siblings, ", siblings))
        for estimate in barriers.means(kin)
    ]
    return Table.of(
        "Barriers by kinship",
        rows,
        "Barrier: how far the loss rises above the line between the ends. Soup against mean: "
        "accuracy of both models' mean weights less the mean of their accuracies. Intervals of the "
        "bootstrap over models.",
        units={"soup against mean": "gain"},
    )


def aligned(barriers: Barriers) -> Table:
    """Barriers before and after each alignment."""
    rows = [
        {
            "pairs of": f"models {estimate.name}",
            "alignment": label(estimate.align),
            "pairs": estimate.pairs,
            "before (nats)": estimate.before,
            "after (nats)": estimate.after,
            "taken away (nats)": estimate.reduction,
            "share": estimate.share.value,
            "aligned soup against mean": estimate.gain,
        }
        for estimate in barriers.aligned(barriers.kin)
    ]
    return Table.of(
        "Barriers before and after alignment",
        rows,
        "The second model of each pair is rearranged to match the first. Intervals over models.",
        units={"share": "share", "aligned soup against mean": "gain"},
    )


def failures(failed: Sequence[Failure]) -> Table:
    """What could not be combined, and why."""
    models: dict[tuple[str, str], list[str]] = {}
    for failure in failed:
        models.setdefault((failure.method, failure.why), []).append(failure.models)
    rows = [
        {"what": method, "of": first + (f" and {len(rest)} more" if rest else ""), "why": why}
        for (method, why), (first, *rest) in models.items()
    ]
    return Table.of("What could not be combined", rows, wrap=True)
