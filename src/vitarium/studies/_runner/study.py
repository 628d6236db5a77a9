"""Run a study of a zoo, and write its page and its figures.

A study is a plug-in, a function `(config, zoo, ids, request, report) -> Findings` in one file. One
registered with `of="weights"` needs nothing else of a model, so that plain files will do where
there is no zoo: `(config, source, where, report) -> Findings`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitarium.core import files
from vitarium.core.errors import InvalidInput
from vitarium.core.file_faults import check_file, check_writable
from vitarium.core.registry import choose
from vitarium.data.loader import SplitName
from vitarium.studies.base import Findings
from vitarium.studies.request import Report, Request
from vitarium.zoo import Zoo
from vitarium.zoo.listing import listing


@dataclass(frozen=True)
class Studied:
    """What a study said, and what it wrote."""

    findings: Findings
    page: Path
    figures: Sequence[Path]

    @property
    def sentences(self) -> list[str]:
        """All sentences, as plain text."""
        return [
            (f"{stage}: {line}" if stage else line).replace("**", "")
            for stage, lines in self.findings.said.items()
            for line in lines
        ]


def study(
    zoo: Zoo | str | Path,
    name: str,
    *,
    out: str | Path,
    figures: str | Path | None = None,
    where: str = "",
    split: SplitName = "test",
    images: int | None = None,
    device: str = "auto",
    data_dir: Path | None = None,
    report: Report = lambda what, done, of: None,
    **settings: Any,
) -> Studied:
    """Study a zoo, and write what is found as a page that opens from disk, without a network.

        vitarium.study(zoo, "diversity", out="diversity.html", figures="figures")
        vitarium.study("downloads", "lineage", out="lineage.html")

    Args:
        zoo: or its folder; of the study of lineage also a folder with files of weights.
        name: of the study, see `vitarium plugins study`.
        out: the page's file; one that is there is replaced.
        figures: a folder for every figure as PNG and SVG; those of the same names are replaced.
        where: only models that fulfil an SQL condition, as `vitarium ls` has it.
        split: of the images that models are measured on, where a study looks at images.
        images: at most so many of them.
        device: where models run, where a study runs them.
        data_dir: looked into first for data sets.
        report: is told what is done, and how much of how much.
        settings: of the study.

    Raises UnknownName, InvalidConfig, and InvalidInput where no model is finished, the condition is
    no SQL, or a library is missing; NotWritable and UnusablePath at once where the page cannot be
    written, and DiskFull.
    """
    section = choose("study", name, **settings)
    target, folder = Path(out), Path(figures) if figures is not None else None
    check_file(target)
    if folder is not None:
        check_writable(folder)
    if section.plugin.facts.get("of") == "weights":
        found: Findings = section(zoo, where, report)
    else:
        zoo = zoo if isinstance(zoo, Zoo) else Zoo.open(zoo)
        request = Request(split, images, device, data_dir)
        found = section(zoo, _finished(zoo, where), request, report)
    files.write(target, files.utf8(found.page.html()))
    written: list[Path] = []
    if folder is not None:
        drawn, names = found.page.figures, found.page.figure_names
        for done, figure in enumerate(drawn):
            report("writing figures", done, len(drawn))
            written += figure.write(folder, names[figure.name])
    return Studied(found, target, written)


def _finished(zoo: Zoo, where: str) -> list[str]:
    """Ids of the models that fulfil a condition, if any of them is finished."""
    rows = listing(zoo.path, where=where).rows
    if not any(row["status"] == "finished" for row in rows):
        raise InvalidInput(
            f"{zoo.path}: no finished model" + (f" fulfils the condition {where}" if where else "")
        )
    return [row["model"] for row in rows]
