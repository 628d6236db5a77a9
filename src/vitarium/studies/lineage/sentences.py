"""What a recovered forest says, in sentences with numbers, and as lines for a terminal."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from vitarium.core.registry import get
from vitarium.lineage.base import Kind
from vitarium.lineage.recover import Recovered
from vitarium.studies.lineage.evaluated import DOUBTFUL, EvaluatedForest, Status, short_name
from vitarium.studies.report.text import SIGN, counted, listed, number
from vitarium.studies.report.trees import Node

MAX_MODELS = 60  # models that are listed on a terminal
_KINDS: dict[Kind, str] = {
    "copy": "copied",
    "quantised": "quantised",
    "pruned": "pruned",
    "permuted": "copied with rearranged units",
    "low_rank": "trained by a difference of low rank (LoRA)",
}
_MAX_GROUPS = 6  # groups that are named in a sentence


def sentences(
    recovered: Recovered,
    forests: Mapping[str, EvaluatedForest],
    *,
    given_trees: bool,
    wants_truth: bool,
) -> list[str]:
    """The most important first; `**` stands around numbers that matter.

    Args:
        forests: by method, that of the chosen one first.
        given_trees: whether the method was told how many trees there are.
    """
    evaluated = next(iter(forests.values()))
    forest = evaluated.forest
    single = sum(len(tree) == 1 for tree in forest.trees)
    singles = f", {single} of them of a single model" if single and len(forest.trees) > 1 else ""
    reason = "as was told" if given_trees else "nobody told how many there are"
    return [
        f"**{counted(len(forest.models), 'model')}** are **{counted(len(forest.trees), 'tree')}**"
        f"{singles} ({reason}), with {counted(len(evaluated.roots), 'root')} and "
        f"{counted(len(forest.edges), 'edge')} from parents to children, as `{forest.method}` "
        "recovers them from the weights alone.",
        *_accuracy(forests, wants_truth),
        *_doubts(evaluated),
        *_special_models(evaluated),
        *_compared(recovered),
        *forest.notes,
    ]


def percent(value: float | None) -> str:
    return number(value, "sure")


def takes_roots(method: str) -> bool:
    """Whether the true roots are passed to a method where they are known."""
    return "roots" in get("lineage", method).config.model_fields


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _name_list(models: Sequence[str], count: int = 5) -> str:
    """The first few, and how many more."""
    names = ", ".join(f"`{short_name(model)}`" for model in models[:count])
    more = len(models) - count
    return f"{names} and {more} more" if more > 0 else names


def _accuracy(forests: Mapping[str, EvaluatedForest], wants_truth: bool) -> Iterator[str]:
    forest = next(iter(forests.values()))
    if forest.truth is None or forest.scores is None:
        reason = "is not known here" if wants_truth else "was not looked at"
        yield f"The truth {reason}: only the confidences say how much of it may be right."
        return
    statuses = [status for status in forest.statuses.values() if status != Status.UNKNOWN]
    nodes, tied = forest.score("node_accuracy"), forest.score("node_accuracy_up_to_ties")
    line = (
        f"**{percent(nodes)}** of models have exactly their true parents "
        f"({statuses.count(Status.RIGHT)} of {len(statuses)}; a root: none)."
    )
    if tied not in (None, nodes):
        line += " Where models that their weights do not tell apart stand for each other, "
        line += f"{percent(tied)}."
    yield line
    edges = [status for _, status in forest.edges if status != Status.UNKNOWN]
    true, missed = edges.count(Status.RIGHT), sum(link.edge is None for link in forest.links)
    yield (
        f"{true} of {counted(len(edges), 'recovered edge')} are true, and {missed or 'none'} of "
        f"{counted(true + missed, 'true edge')} {_are(max(missed, 1))} missed."
    )
    rand, roots = forest.score("adjusted_rand_index"), forest.score("root_accuracy")
    if rand is not None:
        agree = "hold the same models as the true ones" if rand == 1 else "agree with the true ones"
        line = f"The trees {agree} (adjusted Rand index **{rand:.3f}**)"
        of_roots = f", and the root is found of **{percent(roots)}** of them"
        yield f"{line}{'' if roots is None else of_roots}."
    accuracies = [
        f"`{name}` **{percent(accuracy)}**{' (told the roots)' if takes_roots(name) else ''}"
        for name, other in list(forests.items())[1:]
        if (accuracy := other.score("node_accuracy")) is not None
    ]
    if accuracies:
        yield f"By other methods, so many models have their true parents: {listed(accuracies)}."


def _doubts(forest: EvaluatedForest) -> Iterator[str]:
    if not forest.edges:
        return

    def right(statuses: list[str], which: str) -> str:
        known = [status for status in statuses if status != Status.UNKNOWN]
        count = known.count(Status.RIGHT) + known.count(Status.TIED)
        return f" Of {which}, {count} of {len(known)} {_are(count)} right." if known else ""

    below = [status for edge, status in forest.edges if edge.confidence < DOUBTFUL]
    above = [status for edge, status in forest.edges if edge.confidence >= DOUBTFUL]
    limit = f"{100 * DOUBTFUL:.0f}{SIGN}"
    if below:
        edges = counted(len(below), "edge").replace(" ", "** ")
        line = f"**{edges} {_are(len(below))} doubtful (confidence below {limit})."
        yield line + right(below, "these") + right(above, "the others")
    else:
        yield f"No edge is doubtful: all confidences are {limit} or more." + right(above, "them")


def _special_models(evaluated: EvaluatedForest) -> Iterator[str]:
    """Those that are tied, mixtures, and children that were not trained."""
    forest, mixtures = evaluated.forest, evaluated.mixtures
    if forest.tied:
        groups = "; ".join(_name_list(sorted(tied), 3) for tied in forest.tied[:_MAX_GROUPS])
        more = len(forest.tied) - _MAX_GROUPS
        yield (
            f"**{sum(map(len, forest.tied))} models** stand in {counted(len(forest.tied), 'group')}"
            " that their weights do not tell apart, so that each could stand in the other's place: "
            f"{groups}{f'; and {more} more groups' if more > 0 else ''}."
        )
    if mixtures:
        noun = "model is a mixture" if len(mixtures) == 1 else "models are mixtures"
        yield (
            f"**{len(mixtures)}** {noun} of several parents, as soups and merges are: "
            f"{_name_list(mixtures)}."
        )
    true = sum(len(parents) > 1 for parents in (evaluated.truth or {}).values())
    share = evaluated.score("mixtures_found")
    if true and share is not None:
        yield f"Of {counted(true, 'true mixture')}, all parents are found of **{percent(share)}**."
    counts = Counter(edge.kind for edge in forest.edges)
    kinds = [f"**{counts[kind]}** {text}" for kind, text in _KINDS.items() if counts[kind]]
    if kinds:
        yield f"Among the children: {listed(kinds)}."


def _compared(recovered: Recovered) -> Iterator[str]:
    groups, reasons = recovered.groups, recovered.left_out
    if groups:
        named = groups[:_MAX_GROUPS]
        sizes = listed([str(len(group.models)) for group in named])
        sizes += " and more" if len(groups) > _MAX_GROUPS else ""
        yield (
            f"Models of **{counted(len(groups), 'shape')}** ({sizes} models) were compared among "
            "themselves and without heads, by "
            f"{listed([str(number) for number in sorted({group.tensors for group in named})])} "
            "tensors, which hold at least "
            f"**{100 * min(group.shared for group in groups):.1f}{SIGN}** of the numbers."
        )
    if reasons:
        first = "; ".join(f"`{name}`: {reasons[name]}" for name in sorted(reasons)[:3])
        first += f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        yield f"**{len(reasons)}** {'was' if len(reasons) == 1 else 'were'} set aside: {first}."


def forest_lines(forest: EvaluatedForest, max_models: int = MAX_MODELS) -> list[str]:
    """A line per model: its name, how sure its parent is, and what is wrong where that is known.

    3f2a91c0  root 99 %     pretrain
    ├─ 91c2aa01  97 %       finetune  lr=0.01
    └─ 0b77e1d4  61 %       finetune  lr=0.1   (wrong: of 91c2aa01)
    """
    rows = forest.rows[:max_models]
    last_child = {row.parent: row.model for row in forest.rows if row.parent}
    heads, remarks, ancestors = [], [], list[Node]()
    for row in rows:
        del ancestors[row.depth :]
        below = [last_child[node.parent] == node.model for node in ancestors if node.parent]
        bars = "".join("   " if is_last else "│  " for is_last in below)
        if row.parent:
            bars += "└─ " if last_child[row.parent] == row.model else "├─ "
        ancestors.append(row)
        confidence, parents = forest.confidence(row.model), forest.forest.parents[row.model]
        words = [] if parents else ["root"]
        if math.isfinite(confidence):
            words.append(f"{100 if confidence == 1 else min(100 * confidence, 99):.0f} %")
        heads.append(f"{bars}{short_name(row.model)}  {' '.join(words)}".rstrip())
        texts = [forest.descriptions.get(row.model, "")]
        if further := [short_name(parent) for parent in parents if parent != row.parent]:
            texts.append(f"(and of {', '.join(further)})")
        status = forest.statuses[row.model]
        if status not in (Status.RIGHT, Status.UNKNOWN):
            true = ", ".join(map(short_name, forest.true_parents(row.model) or ()))
            verdict = "tied" if status == Status.TIED else "wrong"
            texts.append(f"({verdict}: {f'of {true}' if true else 'a root'})")
        remarks.append("  ".join(filter(None, texts)))
    width = max(map(len, heads), default=0) + 2
    lines = [f"{h:{width}}{text}".rstrip() for h, text in zip(heads, remarks, strict=True)]
    more = len(forest.rows) - len(rows)
    return [*lines, f"… {more:,} more models; see the page"] if more else lines
