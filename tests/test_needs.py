"""On a machine without a browser or Debian's data, tests are skipped; in .ci/run they fail."""

from pathlib import Path

import pytest

import needs

ROOT = Path(__file__).parents[1]


@pytest.fixture(params=["browser", "fashion_mnist"])
def missing(request, monkeypatch, tmp_path):
    """What asks for something that this machine has not."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(needs, "DEBIAN", tmp_path / "not-installed")
    return getattr(needs, request.param)


def test_what_is_missing_is_named_with_the_command_that_installs_it(missing, monkeypatch):
    monkeypatch.delenv("VITARIUM_TEST_EVERYTHING", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"needs .*: apt-get install "):
        missing()


def test_where_everything_is_to_be_tested_it_is_a_failure(missing, monkeypatch):
    monkeypatch.setenv("VITARIUM_TEST_EVERYTHING", "1")
    with pytest.raises(pytest.fail.Exception, match=r"needs .*: apt-get install "):
        missing()


def test_ci_installs_all_of_it_and_tests_everything():
    script = (ROOT / ".ci" / "run").read_text()
    assert "export VITARIUM_TEST_EVERYTHING=1" in script
    assert "dataset-fashion-mnist chromium" in script
