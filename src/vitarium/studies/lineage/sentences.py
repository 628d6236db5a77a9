"""What a recovered forest says, in sentences with numbers."""

from collections import Counter
from collections.abc import Iterator, Mapping

from vitarium.core.registry import get
from vitarium.lineage.forest import Forest, Kind
from vitarium.lineage.recover import Recovered
from vitarium.studies.lineage.rows import DOUBTFUL, RIGHT, TIED, UNKNOWN, Judged, names
from vitarium.studies.lineage.scores import percent, scores_of, value
from vitarium.studies.report.text import SIGN, counted, listed

_KINDS: dict[Kind, tuple[str, str]] = {
    "copy": ("copy", "copies"),
    "quantised": ("quantised copy", "quantised copies"),
    "pruned": ("pruned copy", "pruned copies"),
    "permuted": ("copy with rearranged units", "copies with rearranged units"),
    "low_rank": ("with a difference of low rank (LoRA)",) * 2,
}
_NAMED = 6


def sentences(
    recovered: Recovered, judged: Mapping[str, Judged], *, told_trees: bool, asked_truth: bool
) -> list[str]:
    """The most important first; `**` stands around numbers that matter.

    Args:
        recovered: a forest, and what it is held against.
        judged: the same, by method.
        told_trees: whether the method was told how many trees there are.
        asked_truth: whether the truth was to be looked at, if there is any.
    """
    first = next(iter(judged.values()))
    return [
        _what(recovered.forest, first, told_trees),
        *_worth(recovered, first, asked_truth),
        *_others(recovered),
        *_doubts(first),
        *_ties(recovered.forest),
        *_mixtures(recovered, first),
        *_kinds(recovered.forest),
        *_compared(recovered),
        *_left_out(recovered),
        *recovered.forest.notes,
    ]


def _what(forest: Forest, judged: Judged, told_trees: bool) -> str:
    count, roots = len(forest.trees), len(judged.roots)
    alone = sum(len(tree) == 1 for tree in forest.trees)
    told = "as was told" if told_trees else "nobody told how many there are"
    kinless = f", {alone} of them of a single model" if alone and count > 1 else ""
    return (
        f"**{counted(len(forest.models), 'model')}** are **{counted(count, 'tree')}**{kinless} "
        f"({told}), with {counted(roots, 'root')} and {counted(len(forest.edges), 'edge')} from "
        f"parents to children, as `{forest.method}` recovers them from the weights alone."
    )


def _worth(recovered: Recovered, judged: Judged, asked_truth: bool) -> Iterator[str]:
    scores = recovered.scores
    if judged.truth is None or scores is None:
        why = "is not known here" if asked_truth else "was not looked at"
        yield f"The truth {why}: only the confidences say how much of it may be right."
        return
    known = [s for s in judged.statuses.values() if s != UNKNOWN]
    right = sum(status == RIGHT for status in known)
    nodes = value(scores, "node_accuracy")
    yield (
        f"**{percent(nodes)}** of models have exactly their true parents "
        f"({right} of {len(known)}; a root: none)."
        + _up_to_ties(nodes, value(scores, "node_accuracy_up_to_ties"))
    )
    edges = [status for _, status in judged.edges if status != UNKNOWN]
    true = sum(status == RIGHT for status in edges)
    missed = sum(link.edge is None for link in judged.links)
    said = f"{true} of {counted(len(edges), 'recovered edge')} are true, "
    said += f"and {missed or 'none'} of {counted(true + missed, 'true edge')} "
    yield said + ("is missed." if missed < 2 else "are missed.")
    rand, roots = value(scores, "adjusted_rand_index"), value(scores, "root_accuracy")
    if rand is not None:
        agree = "hold the same models as the true ones" if rand == 1 else "agree with the true ones"
        found = (
            f", and the root is found of **{percent(roots)}** of them" if roots is not None else ""
        )
        yield f"The trees {agree} (adjusted Rand index **{rand:.3f}**){found}."


def _up_to_ties(nodes: float | None, tied: float | None) -> str:
    if tied is None or tied == nodes:
        return ""
    return (
        f" Where models that their weights do not tell apart stand for each other, {percent(tied)}."
    )


def _others(recovered: Recovered) -> Iterator[str]:
    scores = scores_of(recovered)
    others = {
        name: accuracy
        for name, of in list(scores.items())[1:]
        if (accuracy := value(of, "node_accuracy")) is not None
    }
    if not others:
        return
    told = listed(
        [
            f"`{name}` **{percent(accuracy)}**{' (told the roots)' if takes_roots(name) else ''}"
            for name, accuracy in others.items()
        ]
    )
    yield f"By other methods, so many models have their true parents: {told}."


def takes_roots(method: str) -> bool:
    """Whether the engine tells a method the true roots where they are known."""
    return "roots" in get("lineage", method).config.model_fields


def _doubts(judged: Judged) -> Iterator[str]:
    if not judged.edges:
        return
    below = [status for edge, status in judged.edges if edge.confidence < DOUBTFUL]
    others = [status for edge, status in judged.edges if edge.confidence >= DOUBTFUL]
    limit = f"{100 * DOUBTFUL:.0f}{SIGN}"
    if not below:
        yield f"No edge is doubtful: all confidences are {limit} or more." + _right(others, "them")
        return
    are = "edge is" if len(below) == 1 else "edges are"
    yield (
        f"**{len(below)}** {are} doubtful (confidence below {limit})."
        + _right(below, "these")
        + _right(others, "the others")
    )


def _right(statuses: list[str], which: str) -> str:
    known = [status for status in statuses if status != UNKNOWN]
    if not known:
        return ""
    right = sum(status in (RIGHT, TIED) for status in known)
    return f" Of {which}, {right} of {len(known)} {'is' if right == 1 else 'are'} right."


def _ties(forest: Forest) -> Iterator[str]:
    if not forest.tied:
        return
    models = sum(map(len, forest.tied))
    groups = "; ".join(names(sorted(tied), 3) for tied in forest.tied[:_NAMED])
    more = f"; and {len(forest.tied) - _NAMED} more groups" if len(forest.tied) > _NAMED else ""
    yield (
        f"**{models} models** stand in {counted(len(forest.tied), 'group')} that their weights do "
        f"not tell apart, so that each could stand in the other's place: {groups}{more}."
    )


def _mixtures(recovered: Recovered, judged: Judged) -> Iterator[str]:
    true = [model for model, of in (judged.truth or {}).items() if len(of) > 1]
    if judged.mixtures:
        are = "model is a mixture" if len(judged.mixtures) == 1 else "models are mixtures"
        yield (
            f"**{len(judged.mixtures)}** {are} of several parents, as soups and merges are: "
            f"{names(judged.mixtures)}."
        )
    found = value(recovered.scores, "mixtures_found")
    if true and found is not None:
        yield (
            f"Of {counted(len(true), 'true mixture')}, all parents are found of "
            f"**{percent(found)}**."
        )


def _kinds(forest: Forest) -> Iterator[str]:
    counts = Counter(edge.kind for edge in forest.edges)
    told = [
        f"**{counts[kind]}** {words[counts[kind] > 1]}"
        for kind, words in _KINDS.items()
        if counts[kind]
    ]
    if told:
        yield f"Among the children are {listed(told)}."


def _compared(recovered: Recovered) -> Iterator[str]:
    groups = recovered.groups
    if len(groups) == 1:
        (group,) = groups
        yield (
            f"Compared were {counted(group.tensors, 'tensor')}, which hold "
            f"**{100 * group.shared:.1f}{SIGN}** of the numbers; heads are left out."
        )
    elif groups:
        least = min(group.shared for group in groups)
        sizes = listed([str(len(group.models)) for group in groups[:_NAMED]])
        more = " and more" if len(groups) > _NAMED else ""
        yield (
            f"The models are of **{len(groups)} shapes** ({sizes}{more} models), which are "
            f"compared among themselves, heads left out: of each at least "
            f"**{100 * least:.1f}{SIGN}** of the numbers."
        )


def _left_out(recovered: Recovered) -> Iterator[str]:
    reasons = recovered.left_out
    if not reasons:
        return
    first = sorted(reasons)[:3]
    told = "; ".join(f"`{name}`: {reasons[name]}" for name in first)
    more = f"; and {len(reasons) - len(first)} more" if len(reasons) > len(first) else ""
    yield f"**{len(reasons)}** {'was' if len(reasons) == 1 else 'were'} set aside: {told}{more}."
