"""Which version of vitarium this is."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def installed_version() -> str:
    """As the package's metadata says; "unknown" in a source tree that is not installed."""
    try:
        return version("vitarium")
    except PackageNotFoundError:
        return "unknown"
