"""A zoo as a page for any web server: what `vitarium explore` shows, as files."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vitarium.core.checkpoint_ref import CheckpointRef
from vitarium.core.config import Config
from vitarium.core.errors import VitariumError
from vitarium.formats.base import exporter
from vitarium.page import BUILT, behavior
from vitarium.page.answers.studies import Studies
from vitarium.page.epochs_table import epochs_table
from vitarium.page.model_page import model_page, zoo_summary
from vitarium.page.models_table import models_table
from vitarium.page.recovered_lineage import recovered_lineage
from vitarium.page.reproduction import reproduction_page
from vitarium.page.static_embeddings import static_answers
from vitarium.page.study_pages import study_pages
from vitarium.zoo import Zoo, studies


class Site(Config):
    """Settings of the site."""

    embeddings: bool = True
    """With positions by weights for the map, by predictions with `behavior`, and each model's
    nearest relatives. All weights are read for it."""
    behavior: bool = True
    """With how each model does on its test images (accuracy per class, calibration, errors with
    their images), and where it looks. All models run for it."""


@exporter("site", opened_by="python -m http.server -d {out}")
def site(config: Site, zoo: Zoo, checkpoints: Sequence[CheckpointRef], out: Path) -> Iterator[Path]:
    """A web page over the zoo, read-only, for any static web server: no Python runs there.

    `index.html` is the page; `api/` has what it is told: tables of models and of their epochs, and
    of each model what is known of it, how it is made again, and what it does with images. Weights
    are not in it; pages of studies are, where all models are.
    """
    models, api = list(dict.fromkeys(checkpoint.model for checkpoint in checkpoints)), out / "api"
    summary = {
        **zoo_summary(zoo, path=zoo.path.name),
        "models": len(models),
        "embeddings": config.embeddings,
        "behavior": config.behavior,
    }
    for id in models:
        page = model_page(zoo, id, path=zoo.path.name)
        folder = api / "models" / id
        yield _written(folder.with_suffix(".json"), page)
        yield _written(
            folder / "reproduction.json", _answered(reproduction_page, zoo, id, zoo.path.name)
        )
        if config.behavior:
            yield _written(folder / "behavior.json", _answered(behavior.behavior, zoo, id))
            yield _written(folder / "attention.json", _answered(behavior.attention, zoo, id))
    if config.embeddings:
        for name, answer in static_answers(zoo, checkpoints, predictions=config.behavior):
            yield _written(api / name, answer)
    yield _written(api / "zoo.json", summary)
    yield _written(api / "models.json", models_table(zoo, models))
    yield _written(api / "epochs.json", epochs_table(zoo, models))
    yield from _studies(zoo, out, shown=studies.have_all(zoo, models))
    for file in sorted(BUILT.iterdir()):
        if file.suffix != ".sha256":  # of the source, which tests compare
            yield Path(shutil.copy(file, out))


def _answered(answer: Callable[..., Any], zoo: Zoo, *arguments: str) -> Any:
    try:
        return answer(zoo, *arguments)
    except VitariumError as error:
        return {"refused": str(error)}


def _studies(zoo: Zoo, out: Path, *, shown: bool) -> Iterator[Path]:
    """Raises CorruptFile for a recovered lineage that is none."""
    described: Studies = {"pages": [], "lineages": []}
    if shown:
        described = study_pages(zoo.path)
    yield _written(out / "api" / "studies.json", described)
    for stored in described["lineages"]:
        lineage = recovered_lineage(zoo.path, stored["name"])
        yield _written(out / "api" / "lineages" / f"{stored['name']}.json", lineage)
    for page in described["pages"]:
        (out / studies.FOLDER).mkdir(exist_ok=True)
        file = studies.find_page(zoo.path, page["name"])
        yield Path(shutil.copy(file, out / studies.FOLDER / file.name))


def _written(file: Path, values: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(values, separators=(",", ":")), encoding="utf-8")
    return file
