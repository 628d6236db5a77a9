"""The server of the page: it answers from `vitarium.page`, and reads nothing else of the disk."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from vitarium.core.errors import InvalidInput, UnknownName, VitariumError
from vitarium.explorer.security import MAX_BODY, Access, Guard
from vitarium.explorer.worker import Worker
from vitarium.page import BUILT
from vitarium.page.model_page import Json, model_page, zoo_summary
from vitarium.page.models_table import ModelsTable
from vitarium.zoo import Zoo
from vitarium.zoo.listing import select

_GZIP_BYTES, _JSON = 1000, "application/json"
Handler = Callable[[Request], Awaitable[Response]]


def create_app(zoo: Zoo, access: Access) -> Starlette:
    """An ASGI application over a zoo.

    Answers below `api/`: `zoo.json`, `models.json`, `models/ID.json` (see `vitarium.page`),
    `models/ID/behavior.json` and `models/ID/attention.json` (see `behavior`), `pairs/ID/ID.json`
    (see `pairs`); POST
    `query` with `{"where": SQL}` gives the ids of matching models, POST `models/ID/tag` with
    `{"tag": ..., "remove": ...}` and `models/ID/note` with `{"note": ...}` change words beside a
    model.
    """

    def answer(payload: Callable[[Request], Any]) -> Handler:
        async def handle(request: Request) -> Response:
            return JSONResponse(await run_in_threadpool(payload, request))

        return handle

    def change(payload: Callable[[Request, dict[str, Any]], Any]) -> Handler:
        async def handle(request: Request) -> Response:
            values = await _body(request)
            return JSONResponse(await run_in_threadpool(payload, request, values))

        return handle

    def summary(_: Request) -> Json:
        # the browser hands the token to no other page
        live = {"can_write": True, "token": access.token, "stamp": table.stamp()}
        return {**zoo_summary(zoo), **live}

    def matching(_: Request, values: dict[str, Any]) -> Json:
        return {"ids": select(zoo, where=_text(values, "where"))}

    def tag(request: Request, values: dict[str, Any]) -> Json:
        change = zoo.untag if values.get("remove") else zoo.tag
        change(request.path_params["id"], _text(values, "tag"))
        return model_page(zoo, request.path_params["id"])

    def note(request: Request, values: dict[str, Any]) -> Json:
        zoo.note(request.path_params["id"], _text(values, "note"))
        return model_page(zoo, request.path_params["id"])

    table = ModelsTable(zoo)

    async def answer_table(_: Request) -> Response:
        content = await run_in_threadpool(table.content)
        return Response(content, media_type=_JSON)

    worker = Worker(zoo.path)

    def answer_of_worker(name: str) -> Handler:
        async def handle(request: Request) -> Response:
            names = [
                request.path_params[part] for part in ("id", "other") if part in request.path_params
            ]
            ids = [await run_in_threadpool(zoo.find, each) for each in names]
            return Response(await worker.answer(name, *ids, stamp=table.stamp()), media_type=_JSON)

        return handle

    @asynccontextmanager
    async def until_the_end(_: Starlette) -> AsyncIterator[None]:
        yield
        worker.close()

    model = "/api/models/{id:str}"
    routes = [
        Route("/api/zoo.json", answer(summary)),
        Route("/api/models.json", answer_table),
        Route(f"{model}/behavior.json", answer_of_worker("behavior")),
        Route(f"{model}/attention.json", answer_of_worker("attention")),
        Route("/api/pairs/{id:str}/{other:str}.json", answer_of_worker("pair")),
        Route(f"{model}.json", answer(lambda r: model_page(zoo, r.path_params["id"]))),
        Route("/api/query", change(matching), methods=["POST"]),
        Route(f"{model}/tag", change(tag), methods=["POST"]),
        Route(f"{model}/note", change(note), methods=["POST"]),
        Mount("/", StaticFiles(directory=BUILT, html=True)),
    ]
    middleware = [
        Middleware(Guard, access=access),
        Middleware(GZipMiddleware, minimum_size=_GZIP_BYTES, compresslevel=5),
    ]
    return Starlette(
        routes=routes,
        middleware=middleware,
        exception_handlers={VitariumError: _refused},
        lifespan=until_the_end,
    )


async def _refused(_: Request, error: Exception) -> Response:
    is_absent = isinstance(error, UnknownName) and error.kind == "model"
    return JSONResponse({"error": str(error)}, 404 if is_absent else 400)


async def _body(request: Request) -> dict[str, Any]:
    """Raises InvalidInput for what is no JSON object, or is too large."""
    pieces = bytearray()
    async for piece in request.stream():
        pieces += piece
        if len(pieces) > MAX_BODY:
            raise InvalidInput(f"a request has at most {MAX_BODY} bytes")
    try:
        values = json.loads(bytes(pieces) or b"{}")
    except (ValueError, RecursionError):
        raise InvalidInput("the request is no JSON") from None
    if not isinstance(values, dict):
        raise InvalidInput("the request is no JSON object")
    return values


def _text(values: dict[str, Any], name: str) -> str:
    value = values.get(name, "")
    if not isinstance(value, str):
        raise InvalidInput(f"{name} is a text")
    return value
