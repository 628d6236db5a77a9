"""What models do with images, and how two differ: computed when it is looked at."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from vitarium.explorer.routes.models import ModelName
from vitarium.explorer.served_zoo import Served, ServedZoo
from vitarium.page.answers.behavior import Attention, Behavior
from vitarium.page.answers.comparisons import Barrier, Matrix, Pair
from vitarium.page.answers.models import Refused, Reproduction

router = APIRouter(prefix="/api", tags=["computed"])
Models = Annotated[str, Query(description="Ids, or beginnings of them, with commas between them.")]


@router.get("/models/{name}/behavior.json", response_model=Behavior | Refused)
async def behavior(request: Request, served: Served, name: ModelName) -> Response:
    """Accuracy per class, calibration, and the errors of which a model is surest."""
    return await _of_models(request, served, "behavior", name)


@router.get("/models/{name}/attention.json", response_model=Attention | Refused)
async def attention(request: Request, served: Served, name: ModelName) -> Response:
    """Attention by block and head, and its rollout, on some test images."""
    return await _of_models(request, served, "attention", name)


@router.get("/pairs/{name}/{other}.json", response_model=Pair | Refused)
async def pair(request: Request, served: Served, name: ModelName, other: ModelName) -> Response:
    """How two models differ in predictions, representations and weights."""
    return await _of_models(request, served, "pair", name, other)


@router.get("/pairs/{name}/{other}/barrier.json", response_model=Barrier | Refused)
async def barrier(request: Request, served: Served, name: ModelName, other: ModelName) -> Response:
    """Loss and accuracy along the straight line between two models' weights."""
    return await _of_models(request, served, "barrier", name, other)


@router.get("/matrices/{of}.json", response_model=Matrix | Refused)
async def matrix(
    request: Request, served: Served, of: Literal["agreement", "weights"], models: Models
) -> Response:
    """How alike models are, pair by pair: predictions, or weights."""
    answer = "agreement" if of == "agreement" else "weight_distances"
    ids = [await run_in_threadpool(served.zoo.find, name) for name in models.split(",")]
    version = await run_in_threadpool(served.versions_of, *ids)
    return await served.computed(request, answer, *ids, version=version)


@router.get("/models/{name}/reproduction.json", response_model=Reproduction | Refused)
async def reproduction(request: Request, served: Served, name: ModelName) -> Response:
    """The blueprint that grows a model again, or the command that merges it."""
    id = await run_in_threadpool(served.zoo.find, name)
    version = await run_in_threadpool(served.description_of, id)
    path = str(served.zoo.path)
    return await served.computed(request, "reproduction", id, path, version=version)


async def _of_models(request: Request, served: ServedZoo, answer: str, *names: str) -> Response:
    """Of their weights after the last kept epochs."""
    ids = [await run_in_threadpool(served.zoo.find, name) for name in names]
    version = await run_in_threadpool(served.version_of, *ids)
    return await served.computed(request, answer, *ids, version=version)
