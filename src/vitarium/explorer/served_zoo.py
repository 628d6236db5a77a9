"""What the routes answer from: a zoo, its table, and the worker beside the server."""

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request, Response

from vitarium.core import files
from vitarium.core.errors import InvalidInput
from vitarium.core.version import installed_version
from vitarium.explorer.index_process import update_index
from vitarium.explorer.security import Access
from vitarium.explorer.worker import Worker
from vitarium.page.live import GrowthWatch
from vitarium.page.models_table import TableCache
from vitarium.zoo import Zoo, studies
from vitarium.zoo._model_files import model_stamps

JSON = "application/json"


@dataclass(frozen=True, eq=False)
class ServedZoo:
    """A zoo that is looked at; `app.state.served` of the application."""

    zoo: Zoo
    access: Access
    table: TableCache = field(init=False)
    growth: GrowthWatch = field(init=False)
    worker: Worker = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", TableCache(self.zoo, update_index=update_index))
        object.__setattr__(self, "growth", GrowthWatch(self.zoo.path))
        object.__setattr__(self, "worker", Worker(self.zoo.path))

    def stamp(self) -> str:
        """Another text once a model, a measured number or a study has changed."""
        return f"{self.table.stamp()}-{studies.stamp(self.zoo.path)}"

    def version_of(self, *ids: str) -> str:
        """Another text once a model of these is described otherwise, or has newer kept weights.

        Raises UnknownName, CorruptFile, and InvalidInput where no weights are kept.
        """
        folders = [self.zoo.folder(id) for id in ids]
        parts = [(files.digest(f.path / "model.json"), *f.checkpoint()) for f in folders]
        return files.checksum(repr((installed_version(), parts)).encode())

    def versions_of(self, *ids: str) -> str:
        """As `version_of` of each, also where no weights are kept."""
        versions = []
        for id in ids:
            try:
                versions.append(self.version_of(id))
            except InvalidInput:
                versions.append(self.description_of(id))
        return files.checksum(repr(versions).encode())

    def description_of(self, id: str) -> str:
        """Another text once a model is described otherwise. Raises CorruptFile."""
        digest = files.digest(self.zoo.folder(id).path / "model.json")
        return files.checksum(repr((installed_version(), digest)).encode())

    def version_of_all(self) -> str:
        """Another text once a model is added, removed, or has newer epochs."""
        stamps = model_stamps(self.zoo.path)
        return files.checksum(repr((installed_version(), stamps)).encode())

    async def computed(
        self, request: Request, name: str, *arguments: str, version: str
    ) -> Response:
        """An answer of the worker (see `computation.FUNCTIONS`) as a response."""
        content = await self.worker.answer(
            name, arguments, version=version, is_gone=request.is_disconnected
        )
        return Response(content, media_type=JSON)


def _served(request: Request) -> ServedZoo:
    """Raises NotAZoo where it has been moved or deleted."""
    served: ServedZoo = request.app.state.served
    Zoo.open(served.zoo.path)
    return served


Served = Annotated[ServedZoo, Depends(_served)]
"""Of a route's parameter: the zoo that is looked at."""
