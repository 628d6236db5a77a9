"""What models do with images, and how two differ: computed when it is looked at."""

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from vitarium.explorer.routes.models import ModelName
from vitarium.explorer.served_zoo import Served, ServedZoo
from vitarium.page.answers import Attention, Behavior, Pair, Refused

router = APIRouter(prefix="/api", tags=["computed"])


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


async def _of_models(request: Request, served: ServedZoo, answer: str, *names: str) -> Response:
    """Of their weights after the last kept epochs."""
    ids = [await run_in_threadpool(served.zoo.find, name) for name in names]
    version = await run_in_threadpool(served.version_of, *ids)
    return await served.computed(request, answer, *ids, version=version)
