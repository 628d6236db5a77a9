"""Memory that a training step frees stays with the process, for the next step."""

import ctypes
import sys
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGEST = 2**31 - 1


@cache
def keep_freed_memory() -> bool:
    """Have glibc keep freed memory, in this process from now on; whether it does.

    Else each step gives activations of some megabytes back to the system and takes them anew, page
    by page, filled with zeros: on CPUs up to a few per cent of a step's time. Where there is no
    glibc (macOS, Windows, musl) nothing changes, and False is returned.
    """
    if not sys.platform.startswith("linux"):
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(
        set_option and set_option(_MMAP_THRESHOLD, _LARGEST) and set_option(_TRIM_THRESHOLD, -1)
    )
