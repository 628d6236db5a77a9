"""The package as users install it: a wheel that declares what it imports."""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from vitarium.core import extras, registry
from vitarium.core.extras import EXTRAS, MissingExtra, require

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OF_OTHERS = {"pydantic_core": "pydantic"}
"""Module -> the distribution that is declared and brings it."""
IN_THE_WHEEL = """
import contextlib, importlib, io, json, pkgutil, sys, vitarium
from vitarium import cli

sys.modules["altair"] = None  # as it is where `study` is not installed
sys.argv = ["vitarium", "plugins", "--json"]
with contextlib.redirect_stdout(io.StringIO()) as plugins, contextlib.suppress(SystemExit):
    cli.main()
del sys.modules["altair"]
walked = pkgutil.walk_packages(vitarium.__path__, "vitarium.")
names = [module.name for module in walked if not module.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
print(json.dumps([vitarium.__file__, len(names), json.loads(plugins.getvalue())]))
"""


def canonical(distribution):
    return re.sub(r"[-_.]+", "-", distribution).lower()


def declared(requirements):
    return {canonical(re.match(r"[\w.-]+", each).group()) for each in requirements}


def imported():
    """Module -> a file that imports it, of all that is neither Python's nor ours."""
    modules = {}
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            modules |= {name.partition(".")[0]: file for name in names}
    return {
        module: file
        for module, file in modules.items()
        if module not in sys.stdlib_module_names and module != "vitarium"
    }


installed_packages = cache(packages_distributions)
"""It reads the metadata of all that is installed."""


def distributions(module):
    """What brings the module."""
    name = OF_OTHERS.get(module, module)
    return set(map(canonical, installed_packages().get(name, [name])))


def test_whatever_is_imported_is_declared():
    groups = PROJECT["optional-dependencies"]
    extra = set().union(*(declared(groups[name]) for name in groups if name != "dev"))
    known = declared(PROJECT["dependencies"]) | extra
    for module, file in imported().items():
        assert distributions(module) & known, f"{file} imports {module}, which is not declared"


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_brings_the_modules_that_its_errors_speak_of(extra):
    brought = declared(PROJECT["optional-dependencies"][extra])
    assert all(distributions(module) & brought for module in EXTRAS[extra])
    assert brought <= declared(PROJECT["optional-dependencies"]["dev"])


@pytest.mark.parametrize("extra", EXTRAS)
def test_what_is_missing_is_named_with_its_extra(extra, monkeypatch):
    require(extra, "this")
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=rf"^this needs .*: pip install 'vitarium\[{extra}\]'$"):
        require(extra, "this")


def test_without_its_extra_a_study_is_refused_in_a_line(written_zoo):
    """The command line as it is where `study` is not installed."""
    code = (
        "import sys; sys.modules['altair'] = None; sys.argv[0] = 'vitarium'; "
        "from vitarium.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "study", "diversity", str(written_zoo.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == "error: a study needs altair: pip install 'vitarium[study]'\n"
    assert done.returncode == 2


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A virtual environment with vitarium's wheel, and this one's packages behind it."""
    folder = tmp_path_factory.mktemp("package")
    source, environment = folder / "source", folder / "environment"
    shutil.copytree(
        ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = ["wheel", "--no-build-isolation", "--no-deps", "--no-index"]
    run([*pip, *build, "--wheel-dir", folder, source])
    (wheel,) = folder.glob("*.whl")
    run([sys.executable, "-m", "venv", "--without-pip", environment])
    python = environment / "bin" / "python"
    run([*pip, "--python", python, "install", "--no-deps", "--no-index", wheel])
    (packages,) = environment.glob("lib/python*/site-packages")
    # their .pth files are not read, so an editable vitarium among them is not seen
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    return environment / "bin"


def surroundings():
    """A folder and environment variables by which no other vitarium comes before the wheel's."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {"cwd": "/", "env": variables}


def run(command):
    command = list(map(str, command))
    done = subprocess.run(command, capture_output=True, text=True, check=False, **surroundings())
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_installed_command_runs(installed, written_zoo):
    version = run([installed / "vitarium", "--version"])
    assert PROJECT["version"] in version
    rows = json.loads(run([installed / "vitarium", "ls", written_zoo.path, "--json"]))
    assert len(rows) == len(written_zoo.ids())


def listen_to_ctrl_c():
    """Also where this process was started in the background, with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_the_installed_demo_grows_until_ctrl_c_and_says_how_to_go_on(installed, tmp_path):
    zoo, messages = tmp_path / "zoo", tmp_path / "messages"
    command = [installed / "vitarium", "demo", "--zoo", zoo, "--workers", "0", "--device", "cpu"]
    with messages.open("w") as file:
        process = subprocess.Popen(
            command, stderr=file, preexec_fn=listen_to_ctrl_c, **surroundings()
        )
    try:
        while not any('"number": 1' in e.read_text() for e in zoo.glob("models/*/epochs.jsonl")):
            assert process.poll() is None, messages.read_text()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130, messages.read_text()
    finally:
        process.kill()
        process.wait()
    assert "run the same command to resume" in " ".join(messages.read_text().split())


@pytest.fixture(scope="module")
def in_the_wheel(installed):
    return json.loads(run([installed / "python", "-I", "-c", IN_THE_WHEEL]))


def test_every_module_of_the_wheel_can_be_imported(installed, in_the_wheel):
    file, count, _ = in_the_wheel
    assert Path(file).is_relative_to(installed.parent)
    assert count > 300


def test_without_an_extra_all_other_plugins_are_listed(in_the_wheel):
    *_, plugins = in_the_wheel
    assert {row["kind"] for row in plugins} == set(registry.KINDS) - {"study"}


def test_the_wheel_has_all_that_is_no_module(installed):
    (package,) = installed.parent.glob("lib/python*/site-packages/vitarium")
    for file in (ROOT / "src" / "vitarium").rglob("*"):
        if file.suffix in {".yaml", ".toml", ".html", ".css", ".js", ".typed"}:
            assert (package / file.relative_to(ROOT / "src" / "vitarium")).is_file(), file
