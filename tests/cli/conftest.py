"""The command line in this process."""

import pytest

from vitarium import cli
from vitarium.core import heartbeat


@pytest.fixture
def vitarium(monkeypatch, capsys):
    """Run a command in this process; give its exit status, output and errors."""

    monkeypatch.setattr(heartbeat, "FIRST", 1e6)  # lines of progress come by the clock

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["vitarium", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        message = capsys.readouterr()
        return ended.value.code or 0, message.out, message.err

    return run
