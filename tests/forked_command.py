"""vitarium's commands in processes of their own, forked from one that has imported the libraries."""

import os
import signal
import sys
from pathlib import Path

from vitarium.engine.pools._fork_server import ForkServer

SERVER = ForkServer(["vitarium.cli", "vitarium.engine.worker"], os.environ)
"""Its own environment is what no test has changed."""


class ForkedCommand:
    """`vitarium ARGUMENTS` with the environment of this process; its messages go to a file."""

    def __init__(self, *arguments: str, messages: Path) -> None:
        self._messages = messages
        with messages.open("w") as file:
            files = [file.fileno()]
            self.process = SERVER.fork("forked_command:run", arguments, files=files)

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def wait(self) -> int:
        return self.process.wait()

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    @property
    def messages(self) -> str:
        return self._messages.read_text()


def run() -> None:
    """What the process runs."""
    from vitarium.cli import main

    stderr = int(sys.argv.pop())
    os.dup2(stderr, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    main()
