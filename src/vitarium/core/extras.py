"""Libraries that few users need: extras of the package bring them, and errors name the extra."""

from collections.abc import Mapping
from importlib.util import find_spec

from vitarium.core.errors import InvalidInput

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "explore": ("fastapi", "starlette", "uvicorn"),
    "landscape": ("curvlinops",),
    "mlflow": ("alembic", "mlflow", "sqlalchemy"),
    "study": ("altair", "jinja2", "markupsafe", "statsmodels", "vl_convert"),
    "tensorboard": ("tensorboard",),
    "tune": ("optuna",),
    "wandb": ("wandb",),
}
"""Extra of the package -> the modules that it brings; pyproject.toml names their distributions."""


class MissingExtra(InvalidInput, ImportError):
    """A library of an extra is not installed; the message is the command that installs it."""


def require(extra: str, feature: str) -> None:
    """Raises MissingExtra where a module of the extra is missing, which the feature needs."""
    missing = [module for module in EXTRAS[extra] if find_spec(module) is None]
    if missing:
        libraries = ", ".join(missing)
        raise MissingExtra(f"{feature} needs {libraries}: pip install 'vitarium[{extra}]'")
