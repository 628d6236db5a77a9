"""Progress of long commands without a terminal, and what Ctrl-C leaves."""

import importlib
import io
import threading

import click
import pytest
import typer

from vitarium import Zoo
from vitarium.cli import _progress
from vitarium.cli._progress import AGAIN, ProgressLines, progress_bar, resumable
from vitarium.core import heartbeat
from vitarium.core.errors import InvalidInput
from vitarium.core.terminal import Terminal


def test_a_line_says_how_far_a_task_is_and_since_when():
    lines = ProgressLines("measuring", "numbers")
    assert lines.now(3) == "measuring, after 3s"
    lines.step("reading weights", 12, 1040)
    assert lines.now(150) == "reading weights: 12 of 1,040 numbers, after 2m 30s"
    assert lines.end(4000) == "measuring: done in 1h 6m"
    lines.step("x" * 100, 1, 2)
    assert lines.now(1) == f"{'x' * 48}: 1 of 2 numbers, after 1s"


def test_without_a_terminal_what_takes_long_prints_lines(monkeypatch, capsys):
    beats = threading.Event()
    note = _progress.print_note

    def noted(text, **settings):
        note(text, **settings)
        beats.set()

    monkeypatch.setattr(_progress, "print_note", noted)
    monkeypatch.setattr(heartbeat, "FIRST", 0.0)
    monkeypatch.setattr(heartbeat, "INTERVAL", 1e6)
    with progress_bar("studying", unit="models") as progress:
        progress.step("studying", 1, 4)
        assert beats.wait(60)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("studying")
    assert ", after " in first
    assert last.startswith("studying: done in ")


def test_what_is_done_soon_prints_nothing(monkeypatch, capsys):
    monkeypatch.setattr(heartbeat, "FIRST", 1e6)
    with progress_bar("studying") as progress:
        progress.step("studying", 4, 4)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("then", "words"), [(None, "to resume"), (AGAIN, "command again")])
def test_ctrl_c_says_what_is_kept_and_how_to_go_on(capsys, then, words):
    inside = resumable("All is kept", *([then] if then else []))
    with pytest.raises((typer.Exit, click.exceptions.Exit)) as ended, inside:
        raise KeyboardInterrupt
    assert ended.value.exit_code == 130
    message = capsys.readouterr().err
    assert "All is kept; run the same" in message
    assert words in message


@pytest.mark.parametrize(
    ("function", "command", "words"),
    [
        (
            "operators._runner.merge.merge",
            "merge zoo {child} --method lawa",
            "Models that were merged are kept in zoo; run the same command to resume",
        ),
        (
            "formats.export.export",
            "export zoo --exporter timm --out out",
            "Nothing was written to out; run the same command again",
        ),
        (
            "formats.foreign_zoo.recognized_importer",
            "import zoo --zoo other",
            "Nothing was imported yet; run the same command again",
        ),
        (
            "studies._runner.study.study",
            "study soups zoo",
            "Numbers that were measured are kept in zoo; run the same command to resume",
        ),
        (
            "studies._runner.study.study",
            "study lineage zoo",
            "No page was written; run the same command to resume",
        ),
        (
            "compression.compress.compress",
            "compress zoo {child}",
            "Finished epochs of students are kept in zoo; run the same command to resume",
        ),
        (
            "formats.hub.push.push",
            "push zoo me/zoo",
            "Files that were uploaded stay on the hub; run the same command to resume",
        ),
        (
            "zoo.combine.archive",
            "archive zoo --out out",
            "zoo is as it was; run the same command to resume",
        ),
        (
            "zoo.combine.merge_zoos",
            "merge-zoos zoo --into both",
            "Models that were copied are kept in both; run the same command to resume",
        ),
    ],
)
def test_ctrl_c_says_what_each_command_has_done(
    vitarium, written_zoo, monkeypatch, function, command, words
):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    written_zoo.path.rename(written_zoo.path.parent / "zoo")
    monkeypatch.chdir(written_zoo.path.parent)
    child = next(model.id for model in Zoo.open("zoo") if model.stage == "finetune")
    module, _, name = function.rpartition(".")
    monkeypatch.setattr(importlib.import_module(f"vitarium.{module}"), name, interrupted)
    status, _, errors = vitarium(*command.format(child=child).split())
    assert (status, errors) == (130, f"\nStopped. {words}.\n")


@pytest.mark.parametrize(("steps", "erased"), [(0, True), (1, False)])
def test_a_bar_that_never_moved_goes_when_there_is_an_error(monkeypatch, steps, erased):
    screen = io.StringIO()
    terminal = Terminal(file=screen, force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(_progress, "Terminal", lambda stderr: terminal)

    def fail():
        with progress_bar("measuring") as progress:
            for _ in range(steps):
                progress.step("measuring", 1, 2)
            raise InvalidInput("unknown measure")

    with pytest.raises(InvalidInput):
        fail()
    assert screen.getvalue().endswith("\x1b[1A\x1b[2K") is erased
