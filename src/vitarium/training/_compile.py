"""torch.compile without remarks of libraries on what they look for, and what cannot be compiled."""

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import torch

from vitarium.architectures.base import SamplesSubnetworks
from vitarium.blueprint import Recipe
from vitarium.core.devices import meta_device
from vitarium.core.errors import InvalidInput
from vitarium.core.registry import Section
from vitarium.training._companions import runs_parts

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


def check_compiles(recipe: Recipe) -> None:
    """Raises InvalidInput where a model cannot be compiled for its training."""
    objective, reason = recipe.objective, ""
    if objective.plugin.facts.get("records_blocks", False):
        reason = (
            f"objective '{objective.name}' looks into the model's blocks, which a compiled model "
            "has no more"
        )
    elif runs_parts(recipe):
        reason = (
            f"objective '{objective.name}' runs parts of the model by themselves, which a compiled "
            "model has no more"
        )
    elif recipe.drop_path_schedule != "constant":
        reason = (
            "drop_path_schedule: rates that change in every step would have the model compiled as "
            "often"
        )
    elif samples_subnetworks(recipe.architecture):
        reason = (
            f"architecture '{recipe.architecture.name}': each of its sub-networks would be compiled"
        )
    if reason:
        raise InvalidInput(f"{reason}: train without compilation")


@cache
def samples_subnetworks(architecture: Section) -> bool:
    """Whether other parts of its models learn in each step."""
    with meta_device():
        model = architecture(1)
    return any(isinstance(module, SamplesSubnetworks) for module in model.modules())


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
