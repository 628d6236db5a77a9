"""What a recovered forest says, in sentences with numbers, and as lines for a terminal."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from vitarium.core.registry import get
from vitarium.lineage.base import DECIDED
from vitarium.lineage.recover import Recovered
from vitarium.studies.lineage.evaluated import (
    EvaluatedForest,
    Forests,
    Status,
    candidate_list,
    percent,
    short_name,
)
from vitarium.studies.report.text import listed, number
from vitarium.studies.report.texts import Texts
from vitarium.studies.report.trees import Node

MAX_MODELS = 60  # models that are listed on a terminal
_MAX_GROUPS = 6  # groups that are named in a sentence
texts = Texts("lineage", "sentences")


def sentences(
    recovered: Recovered, forests: Forests, *, given_trees: bool, wants_truth: bool
) -> list[str]:
    """The most important first; `**` stands around numbers that matter. `given_trees`: whether the
    method was told how many trees there are."""
    evaluated = next(iter(forests.values()))
    forest = evaluated.forest
    single = sum(len(tree) == 1 for tree in forest.trees)
    has_singles = single and len(forest.trees) > 1
    counts = {"models": forest.models, "trees": forest.trees, "edges": forest.edges}
    return [
        texts(
            "forest",
            singles=texts("singles", count=single) if has_singles else "",
            given="given" if given_trees else "inferred",
            method=forest.method,
            roots=len(evaluated.roots),
            **{name: len(entries) for name, entries in counts.items()},
        ),
        *_accuracy(recovered, forests, wants_truth),
        *_doubts(evaluated),
        *_special_models(evaluated),
        *_compared(recovered),
        *forest.notes,
    ]


def takes_roots(method: str) -> bool:
    """Whether the true roots are passed to a method where all of them are known."""
    return "roots" in get("lineage", method).config.model_fields


def _name_list(models: Sequence[str], count: int = 5) -> str:
    """The first few, and how many more."""
    names = ", ".join(f"`{short_name(model)}`" for model in models[:count])
    more = len(models) - count
    return f"{names} and {more} more" if more > 0 else names


def _accuracy(recovered: Recovered, forests: Forests, wants_truth: bool) -> Iterator[str]:
    forest = next(iter(forests.values()))
    if forest.truth is None or forest.scores is None:
        yield texts("no_truth", reason="is not known here" if wants_truth else "was not looked at")
        return
    statuses = [status for status in forest.statuses.values() if status != Status.UNKNOWN]
    nodes, tied = forest.score("node_accuracy"), forest.score("node_accuracy_up_to_ties")
    right = statuses.count(Status.RIGHT)
    line = texts("accuracy", share=nodes, right=right, known=len(statuses))
    yield line if tied in (None, nodes) else f"{line} {texts('up_to_ties', share=tied)}"
    if unknown := len(forest.statuses) - len(statuses):
        yield texts("unknown_parents", count=unknown)
    edges = [status for _, status in forest.edges if status != Status.UNKNOWN]
    right, missed = edges.count(Status.RIGHT), sum(link.edge is None for link in forest.links)
    counts = {"right": right, "recovered": len(edges), "true": right + missed}
    yield texts("edges", missed=missed or "none", n=max(missed, 1), **counts)
    num_whole, trees, roots = (
        forest.num_whole_trees,
        forest.true_trees,
        forest.score("root_accuracy"),
    )
    of_roots = "" if roots is None else texts("roots", count=round(roots * len(trees)))
    if trees:
        yield texts("trees", num_whole=num_whole, trees=len(trees), roots=of_roots)
    given_roots = {name for name in forests if takes_roots(name) and recovered.knows_all_parents}
    remarks = {name: " (given the true roots)" if name in given_roots else "" for name in forests}
    accuracies = [
        f"`{name}` **{number(accuracy, 'sure')}**{remarks[name]}"
        for name, other in list(forests.items())[1:]
        if (accuracy := other.score("node_accuracy")) is not None
    ]
    if accuracies:
        yield texts("others", accuracies=accuracies)


def _doubts(forest: EvaluatedForest) -> Iterator[str]:
    statuses, undecided = forest.statuses, set(forest.forest.undecided)

    def right(models: Sequence[str]) -> str:
        known = [statuses[model] for model in models if statuses[model] != Status.UNKNOWN]
        count = known.count(Status.RIGHT) + known.count(Status.TIED)
        return texts("right", right=count, known=len(known)) if known else ""

    decided = [model for model in forest.forest.models if model not in undecided]
    yield texts("decided", count=len(decided), limit=DECIDED) + right(decided)
    if undecided:
        yield texts("undecided", count=len(undecided), limit=DECIDED) + right(sorted(undecided))


def _special_models(evaluated: EvaluatedForest) -> Iterator[str]:
    """Those that are tied, mixtures, and children that were not trained."""
    tied, mixtures = evaluated.forest.tied, evaluated.mixtures
    if tied:
        names = "; ".join(_name_list(sorted(group), 3) for group in tied[:_MAX_GROUPS])
        more = len(tied) - _MAX_GROUPS
        names += f"; and {more} more groups" if more > 0 else ""
        yield texts("tied", models=sum(map(len, tied)), groups=len(tied), names=names)
    if mixtures:
        yield texts("mixtures", count=len(mixtures), names=_name_list(mixtures))
    true = sum(len(parents) > 1 for parents in (evaluated.truth or {}).values())
    share = evaluated.score("mixtures_found")
    if true and share is not None:
        yield texts("true_mixtures", count=true, right=round(share * true))
    counts = Counter[str](edge.kind for edge in evaluated.forest.edges)
    names_of_kinds = Texts("lineage", "kinds").content
    kinds = [f"**{counts[kind]}** {name}" for kind, name in names_of_kinds.items() if counts[kind]]
    if kinds:
        yield texts("children", kinds=kinds)


def _compared(recovered: Recovered) -> Iterator[str]:
    groups, reasons = recovered.groups, recovered.left_out
    if groups:
        sizes = listed([str(len(group.models)) for group in groups[:_MAX_GROUPS]])
        sizes += " and more" if len(groups) > _MAX_GROUPS else ""
        tensors = [str(n) for n in sorted({group.tensors for group in groups[:_MAX_GROUPS]})]
        share = min(group.shared for group in groups)
        is_all = share > 0.9995  # which reads 100.0 %
        coverage = texts("all_parameters") if is_all else texts("most_parameters", share=share)
        counts = {"shapes": len(groups), "sizes": sizes, "tensors": tensors}
        yield texts("compared", coverage=coverage, **counts)
    if reasons:
        first = "; ".join(f"`{name}`: {reasons[name]}" for name in sorted(reasons)[:3])
        first += f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        yield texts("left_out", count=len(reasons), reasons=first)


def forest_lines(forest: EvaluatedForest, max_models: int = MAX_MODELS) -> list[str]:
    """A line per model: its name, how sure its parent is, and what is wrong where that is known.

    3f2a91c0  root 99 %                  pretrain
    ├─ 91c2aa01  97 %                    finetune  lr=0.01
    └─ 0b77e1d4  cannot tell (61 %)      finetune  lr=0.1  [head only]  (or of 91c2aa01 38 %)
    """
    rows = forest.rows[:max_models]
    last_child = {row.parent: row.model for row in forest.rows if row.parent}
    heads, remarks, ancestors = [], [], list[Node]()
    undecided = set(forest.forest.undecided)
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
            words.append(percent(confidence))
        is_undecided = row.model in undecided
        verdict = f"cannot tell ({' '.join(words)})" if is_undecided else " ".join(words)
        heads.append(f"{bars}{short_name(row.model)}  {verdict}".rstrip())
        changes = [parents[row.parent].change] if row.parent in parents else []
        texts = [forest.descriptions.get(row.model, ""), *(f"[{c}]" for c in changes if c)]
        if is_undecided and (candidates := candidate_list(forest.forest, row.model)):
            texts.append(f"(or {candidates})")
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
