"""Recovered forests as files: JSON, which is read back, and GraphML for programs that draw graphs.

    {"format": "vitarium lineage", "version": 1, "method": "descent",
     "models": [{"name": "a", "family": 0, "root": 0.97, "candidates": {},
                 "about": {"stage": "pretrain"}}, ...],
     "edges": [{"parent": "a", "child": "b", "confidence": 0.9, "share": 1.0, "kind": "...",
                "change": "..."}, ...],
     "tied": [["b", "c"], ...], "notes": ["..."],
     "truth": {"a": [], "b": ["a"], ...} or null,
     "scores": {"node_accuracy": 1.0, ...} or null}

`root` is the probability that the model is a root, null where the method gives none; `candidates`
the probability of each possible parent, "" for none of the models; `about` what else is known of
it. Of an edge to a mixture, `share` is what the child has of this parent.
Members may be added to version 1; a change of what is there makes version 2.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vitarium.core import files
from vitarium.core.errors import CorruptFile, InvalidInput
from vitarium.core.printable import distinct, printable
from vitarium.lineage.base import Edge, Forest
from vitarium.lineage.ground_truth import Truth
from vitarium.lineage.scores import Scores

FORMAT, VERSION = "vitarium lineage", 1

Info = Mapping[str, Mapping[str, Any]]
"""Of models, what is shown beside their names: texts and numbers, or mappings of such."""


@dataclass(frozen=True)
class StoredForest:
    forest: Forest
    truth: Truth | None = None
    scores: Scores | None = None
    info: Info = field(default_factory=dict)


def write_json(
    forest: Forest,
    path: Path,
    truth: Truth | None = None,
    scores: Scores | None = None,
    info: Info | None = None,
) -> None:
    """Write a forest, whole or not at all. Raises DiskFull."""
    models = [
        {
            "name": m,
            "family": int(f),
            "root": forest.roots.get(m),
            "candidates": forest.candidates.get(m, {}),
            "about": (info or {}).get(m, {}),
        }
        for m, f in zip(forest.models, forest.families, strict=True)
    ]
    value = {
        "format": FORMAT,
        "version": VERSION,
        "method": forest.method,
        "models": models,
        "edges": [asdict(edge) for edge in forest.edges],
        "tied": forest.tied,
        "notes": forest.notes,
        "truth": truth,
        "scores": None if scores is None else asdict(scores),
    }
    files.write_json(path, _to_json(value))


def read_json(path: Path) -> StoredForest:
    """Read what `write_json` wrote. Raises CorruptFile for another content, InvalidInput for a
    version that is newer than this one."""
    try:
        value = files.read_json(path)
    except FileNotFoundError:
        raise CorruptFile(path, "the file is missing") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise CorruptFile(path, "it is no lineage that vitarium wrote")
    if value.get("version") != VERSION:
        what = f"is of version {value.get('version')}, and this vitarium reads {VERSION}"
        raise InvalidInput(f"{path} {what}; install a newer one")
    try:
        return _parse(value)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CorruptFile(path, f"its lineage makes no sense ({error!r})") from None


def _parse(value: Mapping[str, Any]) -> StoredForest:
    models, truth, scores = value["models"], value["truth"], value["scores"]
    forest = Forest(
        value["method"],
        tuple(model["name"] for model in models),
        tuple(model["family"] for model in models),
        tuple(
            Edge(**{key: edge[key] for key in Edge.__annotations__ if key in edge})
            for edge in value["edges"]
        ),
        {model["name"]: model["root"] for model in models if model["root"] is not None},
        tuple(map(tuple, value["tied"])),
        tuple(value["notes"]),
        {model["name"]: model["candidates"] for model in models if model.get("candidates")},
    )
    names = set(forest.models)
    for edge in forest.edges:
        if not {edge.parent, edge.child} <= names:
            raise ValueError(f"{edge.parent} -> {edge.child} is an edge of unknown models")
    return StoredForest(
        forest,
        None if truth is None else {model: tuple(parents) for model, parents in truth.items()},
        None if scores is None else Scores(**{key: scores[key] for key in Scores.__annotations__}),
        {model["name"]: model["about"] for model in models if model["about"]},
    )


def write_graphml(
    forest: Forest, path: Path, truth: Truth | None = None, info: Info | None = None
) -> None:
    """Write a forest for networkx, Gephi, yEd or Cytoscape, whole or not at all. Raises DiskFull.
    Nodes have `label`, `family`, `root` (how sure it is that it is one), `tied` (number of its
    group, from 1, where its weights do not tell it from others) and what `info` knows; edges, from
    parent to child, `confidence`, `share` and `kind`, and `right` where the truth is known."""
    import networkx

    graph = networkx.DiGraph(method=forest.method)
    node = distinct(forest.models)
    tied = {model: number for number, group in enumerate(forest.tied, 1) for model in group}
    columns = {m: dict(_flattened("", _to_json((info or {}).get(m, {})))) for m in forest.models}
    # in a column all are of one kind
    texts = {name for cells in columns.values() for name in cells if isinstance(cells[name], str)}
    for model, family in zip(forest.models, forest.families, strict=True):
        attributes = {
            printable(name) or "unnamed": printable(str(value)) if name in texts else float(value)
            for name, value in columns[model].items()
        }
        attributes |= {"label": node[model], "family": int(family)}
        if model in forest.roots:
            attributes["root"] = float(forest.roots[model])
        if model in tied:
            attributes["tied"] = tied[model]
        graph.add_node(node[model], **attributes)
    for edge in forest.edges:
        attributes = {"confidence": float(edge.confidence), "share": float(edge.share)}
        attributes |= {"kind": edge.kind, "change": edge.change}
        if truth is not None and edge.child in truth:
            attributes["right"] = edge.parent in truth[edge.child]
        graph.add_edge(node[edge.parent], node[edge.child], **attributes)
    text = "\n".join(networkx.generate_graphml(graph, named_key_ids=True)) + "\n"
    files.write(path, files.utf8('<?xml version="1.0" encoding="UTF-8"?>\n' + text))


def _to_json(value: Any) -> Any:
    """As JSON has it: numbers of NumPy become Python's, and null stands for NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(key): _to_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(entry) for entry in value]
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | None) else str(value)


def _flattened(name: str, value: Any) -> Iterable[tuple[str, Any]]:
    """Texts and numbers by dotted names."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _flattened(f"{name}.{key}" if name else key, entry)
    elif value is not None:
        yield name, str(value) if isinstance(value, list) else value
