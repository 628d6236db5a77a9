"""What a recovered forest says, in sentences with numbers."""

from collections import Counter
from collections.abc import Iterator

from vitarium.core.registry import get
from vitarium.lineage.base import Forest, Kind
from vitarium.lineage.recover import Recovered
from vitarium.studies.lineage.evaluated import (
    DOUBTFUL,
    RIGHT,
    TIED,
    UNKNOWN,
    EvaluatedForest,
    name_list,
)
from vitarium.studies.lineage.scores import score_value, scores_by_method
from vitarium.studies.report.text import SIGN, counted, is_or_are, listed, number

_KINDS: dict[Kind, tuple[str, str]] = {
    "copy": ("copy", "copies"),
    "quantised": ("quantised copy", "quantised copies"),
    "pruned": ("pruned copy", "pruned copies"),
    "permuted": ("copy with rearranged units", "copies with rearranged units"),
    "low_rank": ("with a difference of low rank (LoRA)",) * 2,
}
_MAX_GROUPS = 6
"""Groups that are named in a sentence."""


def sentences(
    recovered: Recovered, forest: EvaluatedForest, *, given_trees: bool, wants_truth: bool
) -> list[str]:
    """The most important first; `**` stands around numbers that matter.

    Args:
        forest: of the chosen method.
        given_trees: whether the method was told how many trees there are.
        wants_truth: whether the truth was to be looked at, if there is any.
    """
    return [
        _summary(forest, given_trees),
        *_accuracy(recovered, forest, wants_truth),
        *_methods(recovered),
        *_doubts(forest),
        *_ties(recovered.forest),
        *_mixtures(recovered, forest),
        *_kinds(recovered.forest),
        *_groups(recovered),
        *_left_out(recovered),
        *recovered.forest.notes,
    ]


def percent(value: float | None) -> str:
    return number(value, "sure")


def _summary(evaluated: EvaluatedForest, given_trees: bool) -> str:
    forest = evaluated.forest
    single = sum(len(tree) == 1 for tree in forest.trees)
    singles = f", {single} of them of a single model" if single and len(forest.trees) > 1 else ""
    reason = "as was told" if given_trees else "nobody told how many there are"
    return (
        f"**{counted(len(forest.models), 'model')}** are **{counted(len(forest.trees), 'tree')}**"
        f"{singles} ({reason}), with {counted(len(evaluated.roots), 'root')} and "
        f"{counted(len(forest.edges), 'edge')} from parents to children, as `{forest.method}` "
        "recovers them from the weights alone."
    )


def _accuracy(recovered: Recovered, forest: EvaluatedForest, wants_truth: bool) -> Iterator[str]:
    scores = recovered.scores
    if forest.truth is None or scores is None:
        reason = "is not known here" if wants_truth else "was not looked at"
        yield f"The truth {reason}: only the confidences say how much of it may be right."
        return
    statuses = [status for status in forest.statuses.values() if status != UNKNOWN]
    nodes, tied = (
        score_value(scores, name) for name in ("node_accuracy", "node_accuracy_up_to_ties")
    )
    up_to_ties = (
        ""
        if tied is None or tied == nodes
        else " Where models that their weights do not tell apart stand for each other, "
        f"{percent(tied)}."
    )
    yield (
        f"**{percent(nodes)}** of models have exactly their true parents "
        f"({statuses.count(RIGHT)} of {len(statuses)}; a root: none).{up_to_ties}"
    )
    edges = [status for _, status in forest.edges if status != UNKNOWN]
    true, missed = edges.count(RIGHT), sum(link.edge is None for link in forest.links)
    yield (
        f"{true} of {counted(len(edges), 'recovered edge')} are true, and {missed or 'none'} of "
        f"{counted(true + missed, 'true edge')} {is_or_are(max(missed, 1))} missed."
    )
    rand, roots = score_value(scores, "adjusted_rand_index"), score_value(scores, "root_accuracy")
    if rand is not None:
        agree = "hold the same models as the true ones" if rand == 1 else "agree with the true ones"
        root = (
            f", and the root is found of **{percent(roots)}** of them" if roots is not None else ""
        )
        yield f"The trees {agree} (adjusted Rand index **{rand:.3f}**){root}."


def _methods(recovered: Recovered) -> Iterator[str]:
    accuracies = [
        f"`{name}` **{percent(accuracy)}**{' (told the roots)' if takes_roots(name) else ''}"
        for name, scores in list(scores_by_method(recovered).items())[1:]
        if (accuracy := score_value(scores, "node_accuracy")) is not None
    ]
    if accuracies:
        yield f"By other methods, so many models have their true parents: {listed(accuracies)}."


def takes_roots(method: str) -> bool:
    """Whether the true roots are passed to a method where they are known."""
    return "roots" in get("lineage", method).config.model_fields


def _doubts(forest: EvaluatedForest) -> Iterator[str]:
    if not forest.edges:
        return
    below = [status for edge, status in forest.edges if edge.confidence < DOUBTFUL]
    above = [status for edge, status in forest.edges if edge.confidence >= DOUBTFUL]
    limit = f"{100 * DOUBTFUL:.0f}{SIGN}"
    if not below:
        yield f"No edge is doubtful: all confidences are {limit} or more." + _right(above, "them")
        return
    noun = "edge is" if len(below) == 1 else "edges are"
    yield (
        f"**{len(below)}** {noun} doubtful (confidence below {limit})."
        + _right(below, "these")
        + _right(above, "the others")
    )


def _right(statuses: list[str], which: str) -> str:
    statuses = [status for status in statuses if status != UNKNOWN]
    if not statuses:
        return ""
    right = sum(status in (RIGHT, TIED) for status in statuses)
    return f" Of {which}, {right} of {len(statuses)} {is_or_are(right)} right."


def _ties(forest: Forest) -> Iterator[str]:
    if not forest.tied:
        return
    groups = "; ".join(name_list(sorted(tied), 3) for tied in forest.tied[:_MAX_GROUPS])
    more = len(forest.tied) - _MAX_GROUPS
    yield (
        f"**{sum(map(len, forest.tied))} models** stand in {counted(len(forest.tied), 'group')} "
        "that their weights do not tell apart, so that each could stand in the other's place: "
        f"{groups}{f'; and {more} more groups' if more > 0 else ''}."
    )


def _mixtures(recovered: Recovered, forest: EvaluatedForest) -> Iterator[str]:
    if forest.mixtures:
        noun = "model is a mixture" if len(forest.mixtures) == 1 else "models are mixtures"
        yield (
            f"**{len(forest.mixtures)}** {noun} of several parents, as soups and merges are: "
            f"{name_list(forest.mixtures)}."
        )
    true = sum(len(parents) > 1 for parents in (forest.truth or {}).values())
    share = score_value(recovered.scores, "mixtures_found")
    if true and share is not None:
        yield f"Of {counted(true, 'true mixture')}, all parents are found of **{percent(share)}**."


def _kinds(forest: Forest) -> Iterator[str]:
    counts = Counter(edge.kind for edge in forest.edges)
    kinds = [
        f"**{counts[kind]}** {nouns[counts[kind] > 1]}"
        for kind, nouns in _KINDS.items()
        if counts[kind]
    ]
    if kinds:
        yield f"Among the children are {listed(kinds)}."


def _groups(recovered: Recovered) -> Iterator[str]:
    groups = recovered.groups
    if len(groups) == 1:
        yield (
            f"Compared were {counted(groups[0].tensors, 'tensor')}, which hold "
            f"**{100 * groups[0].shared:.1f}{SIGN}** of the numbers; heads are left out."
        )
    elif groups:
        least = min(group.shared for group in groups)
        sizes = listed([str(len(group.models)) for group in groups[:_MAX_GROUPS]])
        more = " and more" if len(groups) > _MAX_GROUPS else ""
        yield (
            f"The models are of **{len(groups)} shapes** ({sizes}{more} models), which are "
            f"compared among themselves, heads left out: of each at least "
            f"**{100 * least:.1f}{SIGN}** of the numbers."
        )


def _left_out(recovered: Recovered) -> Iterator[str]:
    reasons = recovered.left_out
    if reasons:
        first = "; ".join(f"`{name}`: {reasons[name]}" for name in sorted(reasons)[:3])
        more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        verb = "was" if len(reasons) == 1 else "were"
        yield f"**{len(reasons)}** {verb} set aside: {first}{more}."
