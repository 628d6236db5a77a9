"""Runs commands one after the other in this process, on streams of any encoding.

Also as a program: `command_runner.py COMMANDS OUTCOMES` reads a JSON list of commands, runs all of
them on streams of its own standard output's encoding, and writes what became of each.
"""

import io
import json
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str

    @property
    def errors(self):
        """The lines that say what went wrong."""
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


CRASH = -1
"""Status of a command that ended in an exception, or in an error of no class of ours."""


def run(command, encoding="utf-8"):
    """What `vitarium ARGUMENT ...` writes, read as UTF-8, and its exit status."""
    from vitarium import cli

    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="") for _ in range(2)]
    before = sys.argv, sys.stdout, sys.stderr, cli.fault
    sys.argv = ["vitarium", *command]
    sys.stdout, sys.stderr = streams
    cli.fault = _no_error_of_ours
    try:
        cli.main()
    except SystemExit as ended:
        status = ended.code or 0
    except BaseException:
        status = CRASH
        streams[1].reconfigure(errors="backslashreplace")
        traceback.print_exc()
    finally:
        sys.argv, sys.stdout, sys.stderr, cli.fault = before
    for stream in streams:
        stream.flush()
    return Outcome(status, *(stream.buffer.getvalue().decode(encoding) for stream in streams))


def _no_error_of_ours(error, path, *, writing):
    """In the place of the command line's last net: the library is to raise errors of its own."""
    raise AssertionError(f"the library raised {error!r}") from error


if __name__ == "__main__":
    commands = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    outcomes = [asdict(run(command, sys.stdout.encoding)) for command in commands]
    Path(sys.argv[2]).write_text(json.dumps(outcomes), "utf-8")
