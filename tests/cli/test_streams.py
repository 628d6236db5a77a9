"""Output goes into any encoding, and a stream that takes nothing is no crash."""

import io
import json
import os
import subprocess
import sys
import warnings

import pytest
import typer

from vitarium import cli
from vitarium.cli import _streams as streams
from vitarium.cli import _tables as tables


@pytest.fixture
def written(monkeypatch):
    """Gives what is printed on a terminal of an encoding, as bytes."""

    def on(encoding, *texts):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
        monkeypatch.setattr(sys, "stdout", stream)
        streams.prepare_streams()
        for text in texts:
            print(text, end="")
        stream.flush()
        return stream.buffer.getvalue()

    return on


@pytest.mark.parametrize(
    ("text", "ascii_bytes"),
    [
        ("── ━ │ ┃ ├─ └─ ╭╮ ╪ ═", b"-- - | | +- +- ++ + -"),
        ("…", b"..."),
        ("a → b ← c", b"a -> b <- c"),
        ("\u22121 \u2013 2", b"-1 - 2"),
        ("2 \u00d7 3 · 4 ± 5 ²", b"2 x 3 * 4 +- 5 ^2"),
        ("“a” \u2018b\u2019\u00a0c", b"\"a\" 'b' c"),
        ("✓ ≥ ≤ ≈ ≠", b"+ >= <= ~ !="),
        ("ü 模", b"\\xfc \\u6a21"),
        (os.fsdecode(b"zoo-\xff"), b"zoo-\\xff"),
    ],
)
def test_what_ascii_has_not_is_written_as_its_look_alike_or_escaped(written, text, ascii_bytes):
    assert written("ascii", text) == ascii_bytes


def test_an_encoding_keeps_what_it_has(written):
    assert written("latin-1", "ü \u00d7 ─") == b"\xfc \xd7 -"
    assert written("utf-8", "ü ─", os.fsdecode(b"\xff")) == "ü ─\\xff".encode()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_and_csv_lose_no_character(written, monkeypatch, encoding):
    written(encoding)
    value = {"é": "a…b─", "path": os.fsdecode(b"\xff"), "face": "\U0001f600"}
    tables.print_json(value)
    sys.stdout.flush()
    assert json.loads(sys.stdout.buffer.getvalue().decode(encoding)) == value
    assert "\u2026" in streams.exactly("…").encode().decode("unicode_escape") or encoding == "utf-8"


def test_a_warning_is_one_line_and_shown_once(capsys):
    with streams.warnings_in_a_line():
        for _ in range(2):
            warnings.warn("two\n  lines", stacklevel=1)
    assert capsys.readouterr().err == "warning: two lines\n"


def test_ctrl_c_is_one_word_and_status_130(monkeypatch, capsys):
    def interrupted(*arguments, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr("vitarium.core.registry.plugins", interrupted)
    monkeypatch.setattr(sys, "argv", ["vitarium", "plugins"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (OSError(5, "I/O", "/x"), 1, "error: cannot read /x: the disk reports an error; see the"),
        (FileNotFoundError(2, "none", "/x"), 2, "error: cannot read /x: there is no such file"),
        (OSError(28, "No space left on device"), 1, "error: cannot write the output: No space"),
        (OSError("no\n connection"), 1, "error: no connection"),
        (UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "x"), 2, "error: 'a\\udcff' is no UTF-8"),
    ],
)
def test_what_no_error_of_ours_was_made_of_is_one_line_all_the_same(
    monkeypatch, capsys, error, status, line
):
    def fails(*arguments):
        raise error

    monkeypatch.setattr("vitarium.core.registry.plugins", fails)
    monkeypatch.setattr(sys, "argv", ["vitarium", "plugins"])
    monkeypatch.setattr(cli, "silence", lambda stream: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    err = capsys.readouterr().err
    assert (ended.value.code, err.count("\n")) == (status, 1)
    assert err.startswith(line)


@pytest.mark.parametrize(
    ("streams", "status", "message"),
    [
        ("> /dev/full", 1, "error: cannot write the output: No space left on device\n"),
        ("> /dev/full 2>&1", 1, ""),
        (">&-", 0, ""),
        ("<&- > /dev/null", 0, ""),
        ("2>&- >&- <&-", 0, ""),
        ("--nothing > /dev/full 2>&-", 2, ""),
    ],
)
def test_closed_and_full_streams_are_no_crash(streams, status, message):
    command = f"{sys.executable} -m vitarium --version {streams}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("PYTHONUNBUFFERED", None)  # what waits to be written may fail at the very end
    done = subprocess.run(
        ["sh", "-c", command], env=environment, stderr=subprocess.PIPE, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (status, message)


@pytest.mark.parametrize(
    ("encoding", "columns"), [("ascii", "20"), ("latin-1", "200"), ("utf-8", "20")]
)
def test_every_help_is_said_in_any_width_and_encoding(monkeypatch, encoding, columns):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("NO_COLOR", "1")

    def walk(command, path=()):
        yield path
        for name, below in getattr(command, "commands", {}).items():
            yield from walk(below, (*path, name))

    for path in walk(typer.main.get_command(cli.app)):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "argv", ["vitarium", *path, "--help"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        stream.flush()
        assert ended.value.code in (0, None), path
        assert b"Usage" in stream.buffer.getvalue()
