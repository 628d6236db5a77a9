"""Pages of studies, which a browser opens without any rights, and recovered lineages."""

from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi.responses import FileResponse

from vitarium.explorer.served_zoo import Served
from vitarium.page.answers.studies import RecoveredLineage, Studies
from vitarium.page.recovered_lineage import recovered_lineage
from vitarium.page.study_pages import study_pages
from vitarium.zoo import studies as stored

router = APIRouter(tags=["studies"])
_HTML: dict[str, Any] = {"text/html": {"schema": {"type": "string", "format": "binary"}}}
_PAGE: dict[int | str, dict[str, Any]] = {200: {"content": _HTML}}
StudyName = Annotated[str, Path(description="Of a file in the zoo's folder `studies`.")]


@router.get("/api/studies.json")
def studies(served: Served) -> Studies:
    """What the studies of the zoo wrote: pages, the latest first, and recovered lineages."""
    return study_pages(served.zoo.path)


@router.get("/api/lineages/{name}.json")
def lineage(served: Served, name: StudyName) -> RecoveredLineage:
    """The parents that a study recovered from the weights alone, beside the true ones."""
    return recovered_lineage(served.zoo.path, name)


@router.get("/studies/{name}.html", response_class=FileResponse, responses=_PAGE)
def study(served: Served, name: StudyName) -> FileResponse:
    """The page of a study as it was written; it may hold anything (see `security`)."""
    page = stored.find_page(served.zoo.path, name)
    headers = {"cache-control": "no-cache"}  # a browser asks whether it was written again
    return FileResponse(page, media_type="text/html", headers=headers)
