"""The card of a zoo on the hub, README.md, with the settings that it reads, and figures. Untrusted
text is escaped, so that it contains neither markup nor HTML."""

import re
import statistics
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vitarium.core import files
from vitarium.core.config import Config
from vitarium.core.extras import require
from vitarium.core.numerals import counted, size
from vitarium.core.printable import printable, shortened
from vitarium.formats.summary import Model, Population

TAGS = ("model-zoo", "vision-transformer", "weight-space-learning", "vitarium")
_SIZES = ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"))
_MAX_LENGTH = 100  # characters of the name of a stage
_MARKUP = re.compile(r"[\\`*\[\]<>&|#~$!]|(?<![^\W_])_|_(?![^\W_])")
"""Characters with a meaning; an underscore between letters and digits has none."""
_BACKTICKS = re.compile("`+")
ACCURACIES, CURVES = "accuracies.png", "training.png"
_WIDTH, _HEIGHT = 300, 220  # of a panel, in pixels of a screen; files have twice as many
_COLOR = "#3b6fb6"
_MAX_TITLE_LENGTH = 40  # characters of the name of a stage above a panel
_LOOKS = {"background": "white", "font": "Helvetica, Arial, sans-serif"}
_WORDS = tomllib.loads((Path(__file__).parent / "card.toml").read_text(encoding="utf-8"))


class CardSettings(Config):
    """What only the zoo's owner knows."""

    license: str | None = None
    """License, as the hub names it, e.g. cc-by-4.0 or other; without one nobody may use the zoo."""
    name: str | None = None
    """Title of the card; default: the folder's name."""
    description: str = ""
    """Text at the beginning of the card."""
    citation: str | None = None
    """BibTeX entry to cite; default: that of the model zoo of ViTs."""


def card(
    population: Population,
    settings: CardSettings,
    *,
    name: str,
    is_zoo: bool,
    software: Mapping[str, Mapping[str, str]],
) -> str:
    """The text of README.md, for a zoo or a file per model; `software` is by model's id."""
    from huggingface_hub import DatasetCardData

    count = len(population.models)
    noun = "vision transformer" if all(map(_is_built, population.models)) else "model"
    data = DatasetCardData(
        license=settings.license or "unknown",
        pretty_name=printable(name),
        tags=list(TAGS),
        size_categories=next((name for limit, name in _SIZES if count < limit), "n>1M"),
        configs=[
            {"config_name": "models", "data_files": "tables/models.parquet", "default": True},
            {"config_name": "epochs", "data_files": "tables/epochs.parquet"},
        ],
    )
    checkpoints = sum(bool(e["kept"]) for model in population.models for e in model.epochs)
    parts = [
        f"# {plain(name)}",
        settings.description,
        _WORDS["summary"].format(
            models=counted(count, noun),
            checkpoints=counted(checkpoints, "checkpoint"),
            size=size(population.bytes),
        ),
        "" if settings.license else _WORDS["unlicensed"],
        _stages(population),
        _WORDS["figures"] if any(map(population.scores, population.stages)) else "",
        _WORDS["factors"],
        *_factors(population),
        _WORDS["loading_a_zoo" if is_zoo else "loading_files"],
        _software(software),
        f"## Citation\n\n```bibtex\n{settings.citation or _WORDS['citation']}\n```",
    ]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(filter(None, parts)) + "\n"


def _stages(population: Population) -> str:
    rows = []
    for stage in population.stages:
        models, scores = population.of(stage), population.scores(stage)
        checkpoints = sum(bool(epoch["kept"]) for model in models for epoch in model.epochs)
        row = [_name(stage), str(len(models)), _start(models), str(checkpoints)]
        if scores:
            spread = (min(scores), statistics.median(scores), max(scores))
            row += [f"{population.score(stage)} of {len(scores)}"]
            row += [f"{100 * value:.1f} %" for value in spread]
        rows.append(row + [""] * (8 - len(row)))
    header = ["stage", "models", "start from", "checkpoints", "score", "min", "median", "max"]
    return "## Stages\n\n" + table(header, rows)


def _start(models: Sequence[Model]) -> str:
    """What a stage's models start from; of imported ones without a parent nobody knows."""
    parents = {model.row["parent"] for model in models if model.row["parent"]}
    if parents:
        return counted(len(parents), "model")
    if all(model.row["operator"] for model in models):
        return "merged"
    return "not known" if all("source" in model.factors for model in models) else "scratch"


def _is_built(model: Model) -> bool:
    """Whether it has an architecture, and is not imported as tensors alone."""
    return "architecture" in model.factors


def _name(stage: str) -> str:
    return plain(shortened(stage, _MAX_LENGTH))


def _factors(population: Population) -> Iterator[str]:
    for stage in population.stages:
        rows = [
            [code(name), ", ".join(f"{plain(value)} ({n})" for value, n in counts.items())]
            for name, counts in population.varying(stage).items()
        ]
        if rows:
            yield f"### {_name(stage)}\n\n" + table(["factor", "values"], rows)


def _software(software: Mapping[str, Mapping[str, str]]) -> str:
    versions_by_name: dict[str, dict[str, None]] = {}
    for versions in software.values():
        for name, version_of_model in versions.items():
            versions_by_name.setdefault(name, {})[plain(version_of_model)] = None
    rows = [[plain(name), ", ".join(versions)] for name, versions in versions_by_name.items()]
    rows.append(["card written by", f"vitarium {version('vitarium')}"])
    return "## Software\n\n" + table(["", "trained with"], rows)


def draw(population: Population, folder: Path) -> Iterator[Path]:
    """Accuracies per stage as histograms, and every model's over the epochs; none without any.
    Raises MissingExtra, DiskFull, NotWritable."""
    stages = [stage for stage in population.stages if population.scores(stage)]
    if not stages:
        return
    require("study", "a zoo's figures")
    import altair as alt
    import vl_convert

    folder.mkdir()
    panels = [_panels(population, stage) for stage in stages]
    for name, row in zip((ACCURACIES, CURVES), zip(*panels, strict=True), strict=True):
        spec = alt.hconcat(*row).to_dict()
        spec.pop("config", None)
        files.write(folder / name, vl_convert.vegalite_to_png(spec, scale=2, config=_LOOKS))
        yield folder / name


def _panels(population: Population, stage: str) -> tuple[Any, Any]:
    """A stage's histogram of scores, and its models' scores over the epochs."""
    import altair as alt

    def chart(rows: list[dict[str, Any]], title: str) -> Any:
        data = alt.InlineData(values=rows)
        return alt.Chart(data, title=title, width=_WIDTH, height=_HEIGHT)

    score, models = population.score(stage) or "", population.of(stage)
    label = score.replace("_", " ").replace("knn", "k-NN")
    title = shortened(printable(stage), _MAX_TITLE_LENGTH)
    scores = [{"score": value} for value in population.scores(stage)]
    bars = chart(scores, f"{title}: {counted(len(models), 'model')}").mark_bar(color=_COLOR)
    histogram = bars.encode(
        x=alt.X("score:Q", bin=alt.Bin(maxbins=20), title=label),
        y=alt.Y("count():Q", title="models", axis=alt.Axis(tickMinStep=1)),
    )
    points = [
        {"model": number, "epoch": epoch["epoch"], "score": epoch[score]}
        for number, model in enumerate(models)
        for epoch in model.epochs
        if score in epoch
    ]
    lines = chart(points, title).mark_line(
        color=_COLOR, strokeWidth=1, strokeOpacity=0.4, point={"color": _COLOR, "size": 14}
    )
    curves = lines.encode(
        x=alt.X("epoch:Q", axis=alt.Axis(title="epoch", tickMinStep=1)),
        y=alt.Y("score:Q", title=label, scale=alt.Scale(zero=False)),
        detail="model:N",
    )
    return histogram, curves


def plain(text: Any) -> str:
    """The text on one line, for a sentence, a heading or a cell of a table."""
    # some renderers pass HTML through even after a backslash
    html = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
    return _MARKUP.sub(lambda m: html.get(m[0], f"\\{m[0]}"), printable(str(text)))


def code(text: str) -> str:
    """The text as inline code, for a cell of a table."""
    content = printable(text).replace("|", r"\|")
    fence = "`" * (1 + max(map(len, _BACKTICKS.findall(content)), default=0))
    space = " " if content.startswith("`") or content.endswith("`") else ""
    return f"{fence}{space}{content}{space}{fence}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
