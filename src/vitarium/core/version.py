"""Versions of what is installed."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def installed_version(package: str = "vitarium") -> str:
    """Of a package; "unknown" where it is not installed, e.g. of a source tree."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
