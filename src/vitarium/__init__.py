"""vitarium: grow, keep, measure and use populations of vision transformers.

    import vitarium
    growth = vitarium.grow("demo", "demo-zoo")
    zoo = vitarium.Zoo.open("demo-zoo")
    zoo.models()

Nothing heavy is imported before it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitarium.architectures.create import create_model
    from vitarium.blueprint import Blueprint, Plan, plan
    from vitarium.compressing import compress
    from vitarium.engine import Growth, grow
    from vitarium.errors import VitariumError
    from vitarium.exchange.exporting import export
    from vitarium.exchange.hub_push import push
    from vitarium.exchange.importing import import_zoo
    from vitarium.lineage import recover
    from vitarium.measuring import measure
    from vitarium.merging import merge
    from vitarium.store import Zoo
    from vitarium.studies import study

__all__ = [
    "Blueprint",
    "Growth",
    "Plan",
    "VitariumError",
    "Zoo",
    "compress",
    "create_model",
    "export",
    "grow",
    "import_zoo",
    "measure",
    "merge",
    "plan",
    "push",
    "recover",
    "study",
]

_HOMES = {
    "Blueprint": "vitarium.blueprint",
    "Growth": "vitarium.engine",
    "Plan": "vitarium.blueprint",
    "VitariumError": "vitarium.errors",
    "Zoo": "vitarium.store",
    "compress": "vitarium.compressing",
    "create_model": "vitarium.architectures.create",
    "export": "vitarium.exchange.exporting",
    "grow": "vitarium.engine",
    "import_zoo": "vitarium.exchange.importing",
    "measure": "vitarium.measuring",
    "merge": "vitarium.merging",
    "plan": "vitarium.blueprint",
    "push": "vitarium.exchange.hub_push",
    "recover": "vitarium.lineage",
    "study": "vitarium.studies",
}

__version__: str


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOMES:
        raise AttributeError(f"module 'vitarium' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("vitarium")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "unknown"
