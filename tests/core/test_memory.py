"""Freed memory stays with the process."""

import platform
import resource
import subprocess
import sys

import pytest

STEPS = """
import resource, sys
import numpy as np
from vitarium.core.memory import keep_freed_memory
kept = sys.argv[1] == "keep" and keep_freed_memory()
def step():
    arrays = [np.ones(300_000) for _ in range(20)]  # 2.4 MB each
    return sum(array[0] for array in arrays)
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(how):
    run = subprocess.run(
        [sys.executable, "-c", STEPS, how], capture_output=True, text=True, check=True
    )
    kept, count = run.stdout.split()
    return kept == "True", int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_steps_take_no_pages_that_they_had_before():
    kept, count = pages("keep")
    assert kept
    assert count <= 0.1 * pages("leave")[1]
    assert count * resource.getpagesize() < 48e6  # less than a single step's arrays
