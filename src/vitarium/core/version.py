"""The version of vitarium that is installed."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def installed_version() -> str:
    """As `vitarium.__version__`; "unknown" of a source tree that is not installed."""
    try:
        return version("vitarium")
    except PackageNotFoundError:
        return "unknown"
