"""A server over a small zoo: in this process, and for a browser on a port."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient

from vitarium import Zoo
from vitarium.explorer.app import create_app
from vitarium.explorer.security import CHANGE_HEADER, Access
from vitarium.explorer.serve import _listening


@pytest.fixture
def access() -> Access:
    return Access("127.0.0.1")


@pytest.fixture
def client(kept_zoo: Zoo, access: Access) -> TestClient:
    return TestClient(create_app(kept_zoo, access), base_url="http://127.0.0.1:8000")


@pytest.fixture
def change(client: TestClient, access: Access) -> Any:
    """POST with the page's own token; the answer's status and values."""

    def post(address: str, **values: Any) -> tuple[int, dict[str, Any]]:
        response = client.post(address, json=values, headers={CHANGE_HEADER: access.token})
        return response.status_code, response.json()

    return post


@contextmanager
def served(zoo: Zoo, access: Access) -> Iterator[str]:
    """The page's address, while a server answers there."""
    with _listening("127.0.0.1", 0) as listening:
        config = uvicorn.Config(create_app(zoo, access), log_level="warning")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()
