"""vitarium: grow, keep, measure and use populations of vision transformers.

    import vitarium
    growth = vitarium.grow("demo", "demo-zoo")
    zoo = vitarium.Zoo.open("demo-zoo")
    zoo.models()

Nothing heavy is imported before it is used; the names and where they are: `__init__.pyi`.
"""

from typing import Any

import lazy_loader

_attribute, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from vitarium.core.version import installed_version

        return installed_version()
    return _attribute(name)
