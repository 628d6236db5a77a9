"""Run a study, and write its page, its figures, and what else it exports."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitarium.core import files, registry
from vitarium.core.errors import UnknownName
from vitarium.core.file_faults import check_file, check_writable
from vitarium.core.filenames import user_path
from vitarium.core.progress import SILENT, Progress
from vitarium.core.registry import choose
from vitarium.data.loader import SplitName, check_images
from vitarium.data.preprocessing import Assumed
from vitarium.zoo import Zoo
from vitarium.zoo.model import ModelNames, names_of

if TYPE_CHECKING:
    import pandas as pd

    from vitarium.studies.base import Tables


@dataclass(frozen=True, eq=False)
class StudyResult:
    """The tables of a study (`result["TITLE"]` is one of them), and the files that were written."""

    tables: "Tables"
    page: Path | None
    figures: Sequence[Path]

    @property
    def sentences(self) -> list[str]:
        """The findings in words, as plain text."""
        return [
            (f"{stage}: {line}" if stage else line).replace("**", "")
            for stage, lines in self.tables.sentences.items()
            for line in lines
        ]

    def __getitem__(self, title: str) -> "pd.DataFrame":
        """Raises UnknownName. Titles may have no-break spaces, for which spaces do."""
        titles = {name.replace("\xa0", " "): name for name in self}
        if (plain := title.replace("\xa0", " ")) not in titles:
            raise UnknownName("table", title, titles)
        return self.tables[titles[plain]]

    def __contains__(self, title: str) -> bool:
        """Whether a table has this title."""
        return title.replace("\xa0", " ") in {name.replace("\xa0", " ") for name in self}

    def __iter__(self) -> Iterator[str]:
        """The titles of the tables."""
        return iter(self.tables)

    def __repr__(self) -> str:
        page = f": {self.page}" if self.page else ""
        return "\n".join([f"{self.tables.title}{page}", *self.sentences])


def study(
    zoo: Zoo | str | Path,
    name: str,
    *,
    out: str | Path | None = None,
    figures: str | Path | None = None,
    exports: Mapping[str, str | Path] | None = None,
    models: ModelNames | None = None,
    where: str = "",
    split: SplitName = "test",
    num_images: int | None = None,
    data: str | Mapping[str, Any] | None = None,
    normalization: Assumed | None = None,
    device: str = "auto",
    data_dir: Path | None = None,
    progress: Progress = SILENT,
    **settings: Any,
) -> StudyResult:
    """Study a zoo: tables, and with `out` a page of them that opens from disk, without a network.

        vitarium.study(zoo, "diversity", out="diversity.html", figures="figures")
        vitarium.study("downloads", "lineage", out="lineage.html")["All models and their parents"]

    Args:
        zoo: or its folder; of the study of lineage also a folder with files of weights.
        name: of the study, see `vitarium plugins study`.
        out: the page's file; one that is there is replaced. None: no page is written.
        figures: a folder for every figure as PNG and SVG; those of the same names are replaced.
        exports: further files, e.g. `{"json": "forest.json"}` of the study of lineage.
        models, where, split, num_images, data, normalization, device, data_dir, progress: see
            `studies.base.Population`.

    Raises UnknownName, InvalidConfig, and InvalidInput where no model is finished, the condition is
    no SQL, or a library is missing; NotWritable and UnusablePath at once where the page cannot be
    written, and DiskFull.
    """
    check_images(split, num_images)
    section = choose("study", name, **settings)  # where an extra is missing, it says so
    from vitarium.studies.base import Population
    from vitarium.studies.report.page import html

    writers = section.plugin.facts["exports"]
    targets = {key: user_path(path) for key, path in (exports or {}).items()}
    for key in targets:
        if key not in writers:
            raise UnknownName("export", key, writers)
    page, folder = (None if path is None else user_path(path) for path in (out, figures))
    for path in (page, *targets.values()):
        if path is not None:
            check_file(path)
    if folder is not None:
        check_writable(folder)
    source = zoo if isinstance(zoo, Zoo) else user_path(zoo)
    named = None if models is None else tuple(names_of(models))
    limits = (where, split, num_images)
    images: dict[str, Any] = {"data": None if data is None else registry.section("dataset", data)}
    images["normalization"] = normalization
    population = Population(source, *limits, device, data_dir, progress, models=named, **images)
    tables: Tables = section(population)
    if page is not None:
        files.write(page, files.utf8(html(tables, name)))
    written: list[Path] = []
    if folder is not None:
        names = tables.figure_names
        for done, figure in enumerate(tables.figures):
            progress.step("writing figures", done, len(tables.figures))
            written += figure.write(folder, names[figure.name])
    for key, path in targets.items():
        writers[key](tables, path)
    return StudyResult(tables, page, written)
