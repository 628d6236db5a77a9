"""Tables of what comes of combining models."""

from collections.abc import Sequence

import numpy as np

from vitarium.studies.report.tables import Table
from vitarium.studies.report.text import Interval
from vitarium.studies.report.texts import Texts
from vitarium.studies.soups.barriers import Barriers
from vitarium.studies.soups.experiments import BEST, ENSEMBLE, MEAN, Failure, MergeResults, label
from vitarium.studies.soups.groups import Group

texts = Texts("soups", "notes")
_HEADS = {"merge": "merged", "average": "averaged", "ensemble": "all kept"}
_AGAINST_BEST, _AGAINST_MEAN = "against best single", "against mean single"
_GAINS = {_AGAINST_BEST: "gain", _AGAINST_MEAN: "gain"}


def methods(results: MergeResults) -> Table:
    """A row per method: the mean over the groups of siblings."""
    families, rows = results.groups("family"), []
    names = ("method", "accuracy", _AGAINST_BEST, "over groups", "better in groups", _AGAINST_MEAN)
    for method, align in results.methods(families):
        best = results.compare(families, method, align=align)
        mean = results.compare(families, method, MEAN, align)
        if best and mean:
            gains = best.over_images, Interval(best.over_groups)
            better = None if method == BEST else f"{best.better} of {best.groups}"
            rows.append((label(method, align), best.accuracy, *gains, better, mean.over_images))
    return Table.of_rows(
        "Methods, on average over the groups of siblings",
        names,
        rows,
        note=texts("methods"),
        units={"accuracy": "fraction", "over groups": "gain", **_GAINS},
    )


def groups(results: MergeResults, kinds: Sequence[str], title: str) -> Table:
    """A row per group and method."""
    rows = []
    for group in results.groups(*kinds):
        best = results.by_group[group][BEST, ""].scores
        for result in results.by_group[group].values():
            scores, merged = result.scores, result.count > 1 and result.method != ENSEMBLE
            heads = _HEADS[result.heads] if merged else ""
            gain = None if result.method == BEST else results.gain([(scores, best)])
            accuracies = scores.val_accuracy, results.accuracy(scores)
            rows.append((group.name, result.label, result.count, heads, *accuracies, gain))
    return Table.of_rows(
        title,
        ("group", "method", "models", "heads", "validation", "accuracy", _AGAINST_BEST),
        rows,
        note=texts("groups"),
        units={"validation": "fraction", "accuracy": "fraction", **_GAINS},
        folded=None,
    )


def parts(results: MergeResults) -> Table:
    groups: dict[str, list[Group]] = {}
    for group in results.groups("part"):
        groups.setdefault(f"{group.factor} = {group.value}", []).append(group)
    rows = [
        (name, len(same), label(method), best.over_images, mean.over_images)
        for name, same in groups.items()
        for method, _ in results.methods(same)
        if method not in (BEST, MEAN)
        and (best := results.compare(same, method))
        and (mean := results.compare(same, method, MEAN))
    ]
    return Table.of_rows(
        "Soups of siblings that share a factor's value",
        ("children with", "groups", "method", _AGAINST_BEST, _AGAINST_MEAN),
        rows,
        note=texts("parts"),
        units=_GAINS,
        folded=None,
    )


def ingredients(results: MergeResults) -> Table:
    names = ("group", "method", "best models", "validation", "accuracy")
    rows = [
        (r.group.name, r.label, r.count, r.scores.val_accuracy, r.scores.accuracy)
        for r in results.curves
    ]
    units, title = dict.fromkeys(names[3:], "fraction"), "Soups of the best models of a group"
    return Table.of_rows(title, names, rows, units=units, folded=True)


def epochs(results: MergeResults) -> Table:
    rows, names = [], ("method", "epochs", "models", "gain", "over models")
    for (method, last), gains in results.epochs.items():
        differences = np.asarray([model.gain for model in gains])
        signs = [str((np.sign(differences) == sign).sum()) for sign in (1, 0, -1)]
        validation = [g.averaged.val_accuracy - g.single.val_accuracy for g in gains]
        gain = results.gain((model.averaged, model.single) for model in gains)
        over_models = Interval(results.bootstrap.mean(differences))
        cells = gain, over_models, " / ".join(signs), float(np.mean(validation))
        rows.append((label(method), last, len(gains), *cells))
    return Table.of_rows(
        "Averages of the last epochs against the last epoch",
        (*names, "better / same / worse", "validation"),
        rows,
        note=texts("epochs"),
        units={"gain": "gain", "over models": "gain", "validation": "fraction"},
    )


def kinship(barriers: Barriers) -> Table:
    """Barriers by kinship, and of siblings by each factor."""
    siblings = [kin for factor in barriers.factors for kin in barriers.siblings(factor)]
    rows = [
        (f"{prefix}{estimate.name}", estimate.pairs, estimate.barrier, estimate.gain)
        for prefix, kin in (("models ", barriers.kin), ("siblings, ", siblings))
        for estimate in barriers.means(kin)
    ]
    return Table.of_rows(
        "Barriers by kinship",
        ("pairs of", "pairs", "barrier (nats)", "soup against mean"),
        rows,
        note=texts("kinship"),
        units={"soup against mean": "gain"},
    )


def aligned(barriers: Barriers) -> Table:
    nats = ("before (nats)", "after (nats)", "taken away (nats)")
    rows = []
    for e in barriers.aligned(barriers.kin):
        key = f"models {e.name}", label(e.align), e.pairs
        rows.append((*key, e.before, e.after, e.reduction, e.share.value, e.gain))
    return Table.of_rows(
        "Barriers before and after alignment",
        ("pairs of", "alignment", "pairs", *nats, "share", "aligned soup against mean"),
        rows,
        note=texts("aligned"),
        units={"share": "share", "aligned soup against mean": "gain"},
    )


def failures(failed: Sequence[Failure]) -> Table:
    models: dict[tuple[str, str], list[str]] = {}
    for failure in failed:
        models.setdefault((failure.method, failure.why), []).append(failure.models)
    rows = [
        (method, first + (f" and {len(rest)} more" if rest else ""), why)
        for (method, why), (first, *rest) in models.items()
    ]
    return Table.of_rows("What could not be combined", ("what", "of", "why"), rows, wrap=True)
