"""Where caches lie, and that there may be none."""

import os
import sys
from pathlib import Path

import pytest

from vitarium.core import cache
from vitarium.core.cache import cache_folder, zoo_cache


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"VITARIUM_CACHE": "/own", "XDG_CACHE_HOME": "/caches"}, "/own"),
        ({"XDG_CACHE_HOME": "/caches"}, "/caches/vitarium"),
        ({"XDG_CACHE_HOME": "", "HOME": "/home/ann"}, "/home/ann/.cache/vitarium"),
    ],
)
def test_the_environment_says_where_caches_lie(monkeypatch, environment, folder):
    for name in ("VITARIUM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder)


def test_without_a_home_there_is_no_cache_and_no_error(monkeypatch):
    def homeless(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("VITARIUM_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", homeless)
    assert not os.access(cache_folder(), os.F_OK)
    with pytest.raises(OSError, match="Not a directory"):
        cache_folder().mkdir(parents=True)


def test_every_zoo_has_a_cache_of_its_own_whatever_it_is_called_by(tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(tmp_path / "zoo")
    assert zoo_cache(tmp_path / "link") == zoo_cache(tmp_path / "zoo")
    assert zoo_cache(tmp_path / "zoo") != zoo_cache(tmp_path / "other")
    monkeypatch.chdir(tmp_path)
    assert zoo_cache(Path("zoo")) == zoo_cache(tmp_path / "zoo")


@pytest.fixture
def answers(monkeypatch, tmp_path):
    """Remembers numbers that are counted up, as a process without torch."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.delenv("VITARIUM_PLUGINS", raising=False)
    monkeypatch.setenv("VITARIUM_CACHE", str(tmp_path / "cache"))
    numbers = iter(range(100))
    return lambda: cache.remembered("number", lambda: next(numbers))


def test_what_follows_from_our_files_is_computed_once(answers):
    assert [answers(), answers()] == [0, 0]


def test_a_file_that_changed_an_extra_or_a_plugin_from_outside_have_it_computed_anew(
    answers, monkeypatch, tmp_path
):
    assert answers() == 0
    monkeypatch.setattr(cache, "find_spec", lambda module: None)
    assert [answers(), answers()] == [1, 1]
    (tmp_path / "vitarium" / "core").mkdir(parents=True)
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "vitarium" / "core" / "cache.py"))
    (tmp_path / "vitarium" / "new.py").write_text("")
    assert [answers(), answers()] == [2, 2]
    (tmp_path / "vitarium" / "new.py").write_text("x = 1")
    assert [answers(), answers()] == [3, 3]
    monkeypatch.setenv("VITARIUM_PLUGINS", "mine")
    assert [answers(), answers()] == [4, 5]
    monkeypatch.delenv("VITARIUM_PLUGINS")
    assert answers() == 3


def test_what_is_damaged_or_cannot_be_kept_is_computed_anew(answers, monkeypatch):
    assert answers() == 0
    (cache_folder() / "remembered" / "number.json").write_text('{"value": 7}')
    assert [answers(), answers()] == [1, 1]
    monkeypatch.setenv("VITARIUM_CACHE", os.devnull)
    assert [answers(), answers()] == [2, 3]


def test_what_follows_from_something_that_changed_meanwhile_is_not_remembered(answers):
    """Else an answer that knows nothing of the change would be given after it."""
    source = {"models": 1}

    def counted_while_one_more_comes():
        models = source["models"]
        source["models"] = 2
        return models

    def count(compute):
        return cache.remembered("models", compute, stamps=lambda: dict(source))

    assert count(counted_while_one_more_comes) == 1
    assert count(lambda: source["models"]) == 2
    assert count(lambda: "computed again") == 2
