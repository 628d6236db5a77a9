"""Run a study, and write its page, its figures, and what else it exports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from vitarium.core import files
from vitarium.core.errors import UnknownName
from vitarium.core.file_faults import check_file, check_writable
from vitarium.core.progress import SILENT
from vitarium.core.registry import choose
from vitarium.data.loader import SplitName
from vitarium.studies.base import Population, Progress, Tables
from vitarium.studies.report.page import html
from vitarium.zoo import Zoo


@dataclass(frozen=True, eq=False)
class StudyResult:
    """The tables of a study, and the files that were written."""

    tables: Tables
    page: Path
    figures: Sequence[Path]

    @property
    def sentences(self) -> list[str]:
        """The findings in words, as plain text."""
        return [
            (f"{stage}: {line}" if stage else line).replace("**", "")
            for stage, lines in self.tables.sentences.items()
            for line in lines
        ]

    def __getitem__(self, title: str) -> pd.DataFrame:
        """A table by its title."""
        return self.tables[title]

    def __repr__(self) -> str:
        return "\n".join([f"{self.tables.title}: {self.page}", *self.sentences])


def study(
    zoo: Zoo | str | Path,
    name: str,
    *,
    out: str | Path,
    figures: str | Path | None = None,
    exports: Mapping[str, str | Path] | None = None,
    where: str = "",
    split: SplitName = "test",
    num_images: int | None = None,
    device: str = "auto",
    data_dir: Path | None = None,
    progress: Progress = SILENT,
    **settings: Any,
) -> StudyResult:
    """Study a zoo, and write the tables as a page that opens from disk, without a network.

        vitarium.study(zoo, "diversity", out="diversity.html", figures="figures")
        vitarium.study("downloads", "lineage", out="lineage.html")["All models and their parents"]

    Args:
        zoo: or its folder; of the study of lineage also a folder with files of weights.
        name: of the study, see `vitarium plugins study`.
        out: the page's file; one that is there is replaced.
        figures: a folder for every figure as PNG and SVG; those of the same names are replaced.
        exports: further files, e.g. `{"json": "forest.json"}` of the study of lineage.
        where: only models that fulfil an SQL condition, as `vitarium ls` has it.
        split: of the images that models are measured on, where a study looks at images.
        num_images: at most so many of them.
        device: where models run, where a study runs them.
        data_dir: data set folder, searched first.
        progress: shows how far the study is.
        settings: of the study.

    Raises UnknownName, InvalidConfig, and InvalidInput where no model is finished, the condition is
    no SQL, or a library is missing; NotWritable and UnusablePath at once where the page cannot be
    written, and DiskFull.
    """
    section = choose("study", name, **settings)
    writers = section.plugin.facts["exports"]
    targets = {key: Path(path) for key, path in (exports or {}).items()}
    for key in targets:
        if key not in writers:
            raise UnknownName("export", key, writers)
    page, folder = Path(out), Path(figures) if figures is not None else None
    for path in (page, *targets.values()):
        check_file(path)
    if folder is not None:
        check_writable(folder)
    source = zoo if isinstance(zoo, Zoo) else Path(zoo)
    population = Population(source, where, split, num_images, device, data_dir, progress)
    tables: Tables = section(population)
    files.write(page, files.utf8(html(tables)))
    written: list[Path] = []
    if folder is not None:
        names = tables.figure_names
        for done, figure in enumerate(tables.figures):
            progress.step("writing figures", done, len(tables.figures))
            written += figure.write(folder, names[figure.name])
    for key, path in targets.items():
        writers[key](tables, path)
    return StudyResult(tables, page, written)
