"""README, as a reader follows it: every command and every line of Python, one after the other."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.evidence

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def run(command: list[str], folder: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"


def test_what_readme_says_works_as_printed(tmp_path):
    lines = [line for block in blocks("") for line in block.splitlines()]
    commands = [line for line in lines if line.startswith("vitarium ")]
    assert len(commands) > 15
    for command in ("vitarium demo", *commands):
        run(["bash", "-c", command], tmp_path)
    (code,) = blocks("python")
    run([sys.executable, "-c", code], tmp_path)
