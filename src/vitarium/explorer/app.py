"""The server of the page: it answers from `vitarium.page`, and reads nothing else of the disk."""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware import Middleware
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES

import vitarium
from vitarium.core.errors import UnknownName, VitariumError
from vitarium.explorer.computation import ComputationFailed
from vitarium.explorer.routes import (
    changes,
    computed,
    downloads,
    embeddings,
    live,
    models,
    studies,
)
from vitarium.explorer.security import Access, Guard
from vitarium.explorer.served_zoo import ServedZoo
from vitarium.explorer.worker import Abandoned
from vitarium.page import BUILT
from vitarium.page.answers.models import Refusal
from vitarium.zoo import Zoo

_PARTS = (embeddings, models, live, computed, downloads, studies, changes)
ROUTERS = tuple(part.router for part in _PARTS)
"""All that is answered below `api/`, and pages of studies below `studies/`."""
_GZIP_BYTES = 1000
_COMPRESSED = (*DEFAULT_EXCLUDED_CONTENT_TYPES, "application/octet-stream")
"""What gzip makes no smaller, weights among them."""
_CLIENT_CLOSED = 499
_NAMED_IN_ADDRESSES = ("model", "study", "recovered lineage")
"""Kinds of names, of which an unknown one is an address where there is nothing."""
_REFUSALS: Mapping[int | str, dict[str, Any]] = {
    400: {"model": Refusal, "description": "The zoo cannot answer that"},
    404: {"model": Refusal, "description": "There is no such model, study or lineage"},
    422: {"model": Refusal, "description": "The request is malformed"},
}


def create_app(zoo: Zoo, access: Access) -> FastAPI:
    """An ASGI application over a zoo; `api/openapi.json` describes what it answers.

    Answers are documented by the functions of `routes`, and have the shapes of `page.answers`.
    """
    served = ServedZoo(zoo, access)

    @asynccontextmanager
    async def until_the_end(_: FastAPI) -> AsyncIterator[None]:
        served.worker.open()
        yield
        served.worker.close()

    app = FastAPI(
        title="vitarium explore",
        version=vitarium.__version__,
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        openapi_url="/api/openapi.json",
        responses={**_REFUSALS},
        lifespan=until_the_end,
        middleware=[
            Middleware(Guard, access=access),
            Middleware(
                GZipMiddleware,
                minimum_size=_GZIP_BYTES,
                compresslevel=5,
                exclude_content_types=_COMPRESSED,
            ),
        ],
        exception_handlers={
            VitariumError: _refused,
            RequestValidationError: _malformed,
            HTTPException: _not_served,
            ComputationFailed: _failed,
            Abandoned: _abandoned,
        },
    )
    app.state.served = served
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/", StaticFiles(directory=BUILT, html=True))
    return app


async def _refused(_: Request, error: Exception) -> Response:
    is_absent = isinstance(error, UnknownName) and error.kind in _NAMED_IN_ADDRESSES
    return JSONResponse({"error": str(error)}, 404 if is_absent else 400)


async def _malformed(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors()]
    return JSONResponse({"error": "; ".join(faults)}, 422)


async def _not_served(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    logging.getLogger("uvicorn.error").error("%s: %s", request.url.path, error)
    last_line = str(error).strip().splitlines()[-1]
    return JSONResponse({"error": f"it could not be computed: {last_line}"}, 500)


async def _abandoned(_: Request, error: Exception) -> Response:
    return Response(status_code=_CLIENT_CLOSED)  # nobody reads it
