"""Serves the page of a zoo until Ctrl-C."""

import socket
import webbrowser
from collections.abc import Callable
from pathlib import Path

import uvicorn

from vitarium.core.errors import InvalidInput
from vitarium.explorer.app import create_app
from vitarium.explorer.security import Access
from vitarium.explorer.worker import Worker
from vitarium.zoo import Zoo

_SHUTDOWN_SECONDS = 2


def serve(
    zoo: Zoo | str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    listener: Callable[[str], None] = print,
    open_browser: bool = False,
) -> None:
    """Serve the page of a zoo until Ctrl-C.

    Args:
        host: address to listen on. Loopback: this machine alone can open the page. Else the address
            of the page has a token, without which nobody can.
        port: 0: one that is free.
        listener: is called with the page's address once it can be opened.
        open_browser: open it in the default browser.

    Raises NotAZoo, and InvalidInput where it is not possible to listen there.
    """
    zoo, access = Zoo.open(zoo), Access(host)
    with _listening(host, port) as listening:
        name = f"[{host}]" if ":" in host else host
        address = f"http://{name}:{listening.getsockname()[1]}/"
        if not access.is_loopback:
            address += f"?token={access.token}"
        app = create_app(zoo, access)
        config = uvicorn.Config(
            app,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
        listener(address)  # requests wait in the socket until the server takes them
        if open_browser:
            webbrowser.open(address)
        _Server(config, app.state.served.worker).run(sockets=[listening])


class _Server(uvicorn.Server):
    """Ends what is computed as soon as it is to stop: nobody waits for that any more."""

    def __init__(self, config: uvicorn.Config, worker: Worker) -> None:
        super().__init__(config)
        self._worker = worker

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._worker.close()
        await super().shutdown(sockets)


def _listening(host: str, port: int) -> socket.socket:
    """Raises InvalidInput."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidInput(f"cannot listen on {host}, port {port}: {reason}") from None
