"""Reads what is new in a zoo in a process of its own.

Reading many models takes memory, and models of other versions take their plug-ins, and so torch:
the server stays as small as it is without.
"""

from multiprocessing import get_context
from pathlib import Path

from vitarium.zoo import _index as index

_MANY = 100
"""Models from which a process of its own is worth its start."""


def update_index(zoo: Path) -> None:
    """Bring a zoo's index up to date, where many of its models are not in it as they are.

    What fails there fails again, and is said, where the zoo is asked next.
    """
    if index.count_changed(zoo) >= _MANY:
        process = get_context("spawn").Process(target=_load, args=(zoo,), daemon=True)
        process.start()
        process.join()


def _load(zoo: Path) -> None:
    index.load(zoo)
