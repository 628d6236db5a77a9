"""torch.compile without remarks of libraries on what they look for."""

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

_EXTENSIONS = "torch.utils.cpp_extension"
"""Looks for CUDA, ROCm and SYCL when it is imported, which compiling does; the logger, too."""


def compiled(function: Any, **options: Any) -> Any:
    """As torch.compile: a module or function that is compiled when it is first called.

    What its libraries warn of while they look for tools is no fault: a compilation for which one is
    missing raises. That is not printed.
    """
    with _without_warnings(_EXTENSIONS), suppress(ImportError):  # of which compiling itself speaks
        importlib.import_module(_EXTENSIONS)
    return torch.compile(function, **options)


@contextmanager
def _without_warnings(logger_name: str) -> Iterator[None]:
    """Inside, what this logger has to say below an error is dropped."""
    logger = logging.getLogger(logger_name)

    def is_error(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR

    logger.addFilter(is_error)
    try:
        yield
    finally:
        logger.removeFilter(is_error)
