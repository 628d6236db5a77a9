"""torch.compile, without what its libraries remark on the tools that they look for."""

import logging

import pytest

from vitarium.training import _compile

LOGGER = logging.getLogger("torch.utils.cpp_extension")


@pytest.fixture
def imports(monkeypatch):
    """Modules that were imported for compiling; each of them warns, as torch's does."""
    names = []

    def import_module(name):
        names.append(name)
        LOGGER.warning("No CUDA runtime is found")
        LOGGER.error("a fault")

    monkeypatch.setattr(_compile.importlib, "import_module", import_module)
    monkeypatch.setattr(_compile.torch, "compile", lambda function, **options: (function, options))
    return names


def test_remarks_on_tools_are_dropped_there_and_faults_are_not(imports, caplog):
    assert _compile.compiled(abs, dynamic=False) == (abs, {"dynamic": False})
    assert imports == [LOGGER.name]
    assert caplog.messages == ["a fault"]


def test_elsewhere_they_are_printed(imports, caplog):
    _compile.compiled(abs)
    caplog.clear()
    LOGGER.warning("a remark")
    assert caplog.messages == ["a remark"]
