"""Tables of what comes of combining models."""

from collections.abc import Sequence

import numpy as np

from vitarium.studies.report.tables import Table
from vitarium.studies.report.text import Columns, Interval
from vitarium.studies.report.texts import Texts
from vitarium.studies.soups.barriers import Barriers
from vitarium.studies.soups.experiments import BEST, ENSEMBLE, MEAN, Failure, MergeResults, label
from vitarium.studies.soups.groups import Group

texts = Texts("soups", "tables")
_HEADS = {"merge": "merged", "average": "averaged", "ensemble": "all kept"}
_AGAINST_BEST, _AGAINST_MEAN = "against best single", "against mean single"
_GAINS: Columns = {_AGAINST_BEST: "gain", _AGAINST_MEAN: "gain"}
_ACCURACIES: Columns = {"validation": "fraction", "accuracy": "fraction"}


def methods(results: MergeResults) -> Table:
    """A row per method: the mean over the groups of siblings."""
    families, rows = results.groups("family"), []
    for method, align in results.methods(families):
        best = results.compare(families, method, align=align)
        mean = results.compare(families, method, MEAN, align)
        if best and mean:
            gains = best.over_images, Interval(best.over_groups)
            better = None if method == BEST else f"{best.better} of {best.groups}"
            rows.append((label(method, align), best.accuracy, *gains, better, mean.over_images))
    columns: Columns = {"method": "", "accuracy": "fraction", _AGAINST_BEST: "gain"}
    columns |= {"over groups": "gain", "better in groups": "", _AGAINST_MEAN: "gain"}
    return texts.table("methods", rows, columns)


def groups(results: MergeResults, kinds: Sequence[str], key: str) -> Table:
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
    columns: Columns = dict.fromkeys(("group", "method", "models", "heads"), "")
    columns |= {**_ACCURACIES, _AGAINST_BEST: "gain"}
    return texts.table(key, rows, columns, folded=None)


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
    columns: Columns = {"children with": "", "groups": "", "method": "", **_GAINS}
    return texts.table("parts", rows, columns, folded=None)


def ingredients(results: MergeResults) -> Table:
    columns: Columns = {"group": "", "method": "", "best models": "", **_ACCURACIES}
    rows = [
        (r.group.name, r.label, r.count, r.scores.val_accuracy, r.scores.accuracy)
        for r in results.curves
    ]
    return texts.table("ingredients", rows, columns, folded=True)


def epochs(results: MergeResults) -> Table:
    rows = []
    for (method, last), gains in results.epochs.items():
        differences = np.asarray([model.gain for model in gains])
        signs = [str((np.sign(differences) == sign).sum()) for sign in (1, 0, -1)]
        validation = [g.averaged.val_accuracy - g.single.val_accuracy for g in gains]
        gain = results.gain((model.averaged, model.single) for model in gains)
        over_models = Interval(results.bootstrap.mean(differences))
        cells = gain, over_models, " / ".join(signs), float(np.mean(validation))
        rows.append((label(method), last, len(gains), *cells))
    columns: Columns = {"method": "", "epochs": "", "models": "", "gain": "gain"}
    columns |= {"over models": "gain", "better / same / worse": "", "validation": "fraction"}
    return texts.table("epochs", rows, columns)


def kinship(barriers: Barriers) -> Table:
    """Barriers by kinship, and of siblings by each factor."""
    siblings = [kin for factor in barriers.factors for kin in barriers.siblings(factor)]
    rows = [
        (f"{prefix}{estimate.name}", estimate.pairs, estimate.barrier, estimate.gain)
        for prefix, kin in (("models ", barriers.kin), ("siblings, ", siblings))
        for estimate in barriers.means(kin)
    ]
    columns: Columns = {"pairs of": "", "pairs": "", "barrier (nats)": ""}
    return texts.table("kinship", rows, columns | {"soup against mean": "gain"})


def aligned(barriers: Barriers) -> Table:
    rows = []
    for e in barriers.aligned(barriers.kin):
        key = f"models {e.name}", label(e.align), e.pairs
        rows.append((*key, e.before, e.after, e.reduction, e.share.value, e.gain))
    names = ("pairs of", "alignment", "pairs", "before (nats)", "after (nats)", "taken away (nats)")
    columns: Columns = {**dict.fromkeys(names, ""), "share": "share"}
    return texts.table("aligned", rows, columns | {"aligned soup against mean": "gain"})


def failures(failed: Sequence[Failure]) -> Table:
    models: dict[tuple[str, str], list[str]] = {}
    for failure in failed:
        models.setdefault((failure.method, failure.why), []).append(failure.models)
    rows = [
        (method, first + (f" and {len(rest)} more" if rest else ""), why)
        for (method, why), (first, *rest) in models.items()
    ]
    return texts.table("failures", rows, {"what": "", "of": "", "why": ""}, wrap=True)
