"""Models as files for other programs."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from vitarium.core.errors import NotApplicable
from vitarium.explorer.downloads import LAST, Format
from vitarium.explorer.routes.models import ModelName
from vitarium.explorer.served_zoo import Served

router = APIRouter(prefix="/api", tags=["downloads"])
_CHUNK_BYTES = 2**20
_FILE = {"type": "string", "format": "binary"}
_MEDIA_TYPES = {".zip": "application/zip", ".safetensors": "application/octet-stream"}


@router.get(
    "/models/{name}/download/{exporter}",
    response_class=StreamingResponse,
    responses={200: {"content": {kind: {"schema": _FILE} for kind in _MEDIA_TYPES.values()}}},
)
async def download(
    request: Request,
    served: Served,
    name: ModelName,
    exporter: Format,
    epoch: Annotated[int | None, Query(ge=0, description="Default: the last kept.")] = None,
) -> StreamingResponse:
    """A model after an epoch, as an exporter writes it: a file, or a folder as a ZIP archive."""
    id = await run_in_threadpool(served.zoo.find, name)
    folder = await run_in_threadpool(tempfile.mkdtemp, prefix="vitarium-download-")
    try:
        number = LAST if epoch is None else str(epoch)
        content = await served.worker.answer(
            "download",
            [id, number, exporter, folder],
            version=await run_in_threadpool(served.version_of, id),
            is_gone=request.is_disconnected,
            folder=Path(folder),
        )
        answer = json.loads(content)
        if "refused" in answer:
            raise NotApplicable(answer["refused"])
        path = Path(answer["path"])
        file, nbytes = path.open("rb"), path.stat().st_size
    finally:  # an open file stays until it is closed, however that comes about
        await run_in_threadpool(shutil.rmtree, folder, ignore_errors=True)
    headers = {
        "content-disposition": f'attachment; filename="{answer["name"]}"',
        "content-length": str(nbytes),
    }
    return StreamingResponse(_pieces(file), headers=headers, media_type=_MEDIA_TYPES[path.suffix])


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(_CHUNK_BYTES):
            yield piece
