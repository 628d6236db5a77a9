"""What some tests need of the machine beside Python's packages.

Without it they are skipped, and the reason is the command that installs it. Where the environment
variable VITARIUM_TEST_EVERYTHING is set, as in .ci/run, they fail.
"""

import os
import shutil

import pytest

from vitarium.data.datasets.fashion_mnist import DEBIAN

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def fashion_mnist() -> None:
    """Fashion-MNIST as Debian packs it."""
    if not DEBIAN.is_dir():
        _skip("Fashion-MNIST: apt-get install dataset-fashion-mnist")


def browser() -> str:
    """A browser's command, to look at pages with."""
    command = next(filter(None, map(shutil.which, BROWSERS)), None)
    if command is None:
        _skip("a browser: apt-get install chromium")
    return command


def _skip(what: str) -> None:
    if os.environ.get("VITARIUM_TEST_EVERYTHING"):
        pytest.fail(f"needs {what}", pytrace=False)
    pytest.skip(f"needs {what}")
