"""Where models lie by their weights or predictions, and which are nearest to one."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from vitarium.explorer.routes.models import ModelName
from vitarium.explorer.served_zoo import Served
from vitarium.page.answers.embeddings import Embedding, EmbeddingChoices, Relatives, Remaining
from vitarium.page.answers.models import Epochs, Refused
from vitarium.page.epochs_table import epochs_table

router = APIRouter(prefix="/api", tags=["embeddings"])
Source = Annotated[str, Path(description="A weight encoder, or `predictions`.")]
Ids = Annotated[
    str,
    Query(
        description="Models of which all kept epochs are points: ids with commas between them, or "
        "`all`; of the others the last kept epoch is.",
    ),
]
Metrics = Annotated[
    str, Query(description="Names with commas between them; without any, all but those of speed.")
]


@router.get("/embeddings.json", response_model=EmbeddingChoices)
async def choices(request: Request, served: Served) -> Response:
    """What the map can take positions from, and how they are brought into a plane."""
    return await served.computed(request, "embedding_choices", version="")


@router.get("/embeddings/{source}.json", response_model=Embedding | Remaining | Refused)
async def embedding(
    request: Request,
    served: Served,
    source: Source,
    method: Literal["pca", "tsne", "umap"] = "pca",
    trajectories: Ids = "",
) -> Response:
    """Models as points of a plane; while vectors are computed, how many remain: ask again."""
    version = await run_in_threadpool(served.version_of_all)
    return await served.computed(
        request, "embedding", source, method, trajectories, version=version
    )


@router.get("/models/{name}/relatives.json", response_model=Relatives | Remaining | Refused)
async def relatives(request: Request, served: Served, name: ModelName) -> Response:
    """The models with the nearest weights; while vectors are computed, how many remain."""
    id = await run_in_threadpool(served.zoo.find, name)
    version = await run_in_threadpool(served.version_of_all)
    return await served.computed(request, "relatives", id, version=version)


@router.get("/epochs.json")
def epochs(served: Served, metrics: Metrics = "") -> Epochs:
    """Metrics of every epoch of all models, column by column."""
    return epochs_table(served.zoo, metrics=metrics.split(",") if metrics else None)
