"""Tables of twins beside their originals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vitarium.core.registry import section
from vitarium.studies.report.tables import Table
from vitarium.studies.report.text import DASH, Columns, Unit
from vitarium.studies.report.texts import Texts
from vitarium.studies.statistics.bootstrap import Bootstrap, Estimate
from vitarium.studies.twins.comparison import (
    COSTS,
    Family,
    Member,
    accuracy_interval,
    by_method,
)
from vitarium.studies.twins.lost_images import LostImage
from vitarium.studies.twins.recovery import Recovery
from vitarium.studies.twins.soups import TwinSoup

texts = Texts("twins", "tables")
_VERDICTS: Mapping[str, str] = {
    "parent": "yes",
    "tied": "yes, up to equal weights",
    "original": "the original, not the parent",
    "child": "the other way round",
    "related": "no, but in one tree",
    "another": "no",
    "root": "no, a tree of its own",
    "not compared": "not compared",
}


def twins(family: Family, recovered: Mapping[str, Recovery], level: float) -> Table:
    """A row for the original, and one for each of its twins."""
    fronts = {cost: {member.ref for member in family.front(cost)} for cost in COSTS}
    rows = []
    for member in family.members:
        recovery = recovered.get(member.ref.model) if member.twin else None
        on = [name for cost, name in COSTS.items() if member.ref in fronts[cost]]
        row = {"original": str(family.original.ref), "method": member.method}
        row |= {"model": member.ref.model, **_accuracies(family, member, level), **_costs(member)}
        row["on the front of"] = ", ".join(on) or DASH
        row["parent recovered"] = recovery_text(recovery) if recovery else DASH
        reasons = [f"{name.replace('_', ' ')}: {why}" for name, why in member.missing.items()]
        rows.append(row | {"not measured": "; ".join(reasons) or DASH})
    units: dict[str, Unit] = {"model": "id", "accuracy": "fraction", "change": "gain"}
    units |= {"agreement": "fraction", "calibration error": "fraction"}
    return texts.table("twins", rows, units=units, wrap=True)


def _accuracies(family: Family, member: Member, level: float) -> dict[str, Any]:
    names = ("accuracy", "change", "lost", "won", "agreement")
    cells: dict[str, Any] = dict.fromkeys(names)
    cells["calibration error"] = member.values.get("calibration_error")
    if member.predictions is not None:
        correct = int(member.predictions.correct.sum())
        cells["accuracy"] = accuracy_interval(correct, len(member.predictions), level)
    if member in family.comparable:
        cells["lost"] = int(family.lost(member).sum())
        cells["won"] = int(family.won(member).sum())
        cells["change"] = family.change(member, level)
        both = (family.original.predictions, member.predictions)
        cells["agreement"] = section("measure", "agreement")(*both)[""]
    return cells


def _costs(member: Member) -> dict[str, Any]:
    def scaled(name: str, factor: float) -> float | None:
        return member.values[name] * factor if name in member.values else None

    speedup = member.speedup
    return {
        "parameters": int(member.values["parameters"]) if "parameters" in member.values else None,
        "kB": scaled("bytes", 1e-3),
        "kB in the zoo": scaled("bytes_in_zoo", 1e-3),
        "MFLOPs": scaled("flops", 1e-6),
        "ms": scaled("latency", 1e3),
        "times as fast": Estimate(*speedup, level=0.5) if speedup else None,
        "peak MB": scaled("peak_memory", 1e-6),
    }


def recovery_text(recovery: Recovery) -> str:
    """The verdict, with the probability that the method gives it."""
    sure = "" if recovery.confidence is None else f" ({recovery.confidence:.2f})"
    why = f": {recovery.why}" if recovery.why else ""
    return f"{_VERDICTS[recovery.verdict]}{sure}{why}"


def methods(families: Sequence[Family], bootstrap: Bootstrap) -> Table:
    """A row per method with its settings: means over originals; none of a single original."""
    rows, level = [], bootstrap.confidence_level
    for method, pairs in by_method(families).items() if len(families) > 1 else ():
        changes = [family.change(twin, level).value for family, twin in pairs]
        row: dict[str, Any] = {"method": method, "originals": len(pairs)}
        row["change"] = bootstrap.mean(np.array(changes), (-1, 1))
        for cost, name in COSTS.items():
            shares = [family.shares(cost).get(twin.ref, np.nan) for family, twin in pairs]
            row[f"{name}, share"] = bootstrap.mean(np.array(shares))
        fronts = [twin in family.front("flops") for family, twin in pairs]
        rows.append(row | {"on the front of FLOPs": float(np.mean(fronts))})
    units: dict[str, Unit] = {"change": "gain", "on the front of FLOPs": "share"}
    units |= {f"{name}, share": "share" for name in COSTS.values()}
    return texts.table("methods", rows, units=units)


def lost(family: Family, images: Sequence[LostImage]) -> Table:
    """A row per image."""
    original, twins_count = str(family.original.ref), len(family.comparable)
    rows = [
        (original, image.number, image.label, image.predicted, len(image.losers) / twins_count)
        for image in images
    ]
    columns: Columns = {
        "original": "",
        "image": "",
        "class": "",
        "mostly taken for": "",
        "lost by": "share",
    }
    return texts.table("lost", rows, columns, folded=True)


def recovery(families: Sequence[Family], recovered: Mapping[str, Recovery]) -> Table:
    """A row per kind of method: how many parents are recovered."""
    counts: dict[str, dict[str, int]] = {}
    for member in (twin for family in families for twin in family.twins):
        assert member.twin
        row = counts.setdefault(member.twin.method_name, dict.fromkeys(_VERDICTS, 0))
        row[recovered[member.ref.model].verdict] += 1
    seen = [verdict for verdict in _VERDICTS if any(row[verdict] for row in counts.values())]
    rows = [
        {"method": name, "twins": sum(row.values()), **{_VERDICTS[v]: row[v] for v in seen}}
        for name, row in sorted(counts.items())
    ]
    return texts.table("recovery", rows)


def soups(groups: Sequence[TwinSoup], level: float) -> Table:
    rows = []
    for group in groups:
        row: dict[str, Any] = {"method": group.method, "originals' parent": group.parent[:8]}
        row |= {"twins": len(group.twins), "mean twin": group.mean, "best": max(group.accuracies)}
        for name, predictions in (("soup", group.soup), ("originals' soup", group.originals_soup)):
            row[name] = None
            if predictions is not None:
                correct = int(predictions.correct.sum())
                row[name] = accuracy_interval(correct, len(predictions), level)
        rows.append(row | {"why not": group.why or DASH})
    names = ("mean twin", "best", "soup", "originals' soup")
    return texts.table("soups", rows, units=dict.fromkeys(names, "fraction"), wrap=True)
