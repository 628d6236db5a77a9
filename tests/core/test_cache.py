"""Where caches lie, and that there may be none."""

import os
from pathlib import Path

import pytest

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
