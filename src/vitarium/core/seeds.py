"""Randomness has one root: every random stream is derived from a model's seed, by name.

A stream is named, never continued: the draws for step 7 of epoch 3 do not depend on what was
drawn before. So a resumed run needs no generator states to give the bits of an unbroken one,
and the number of loader workers changes nothing.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive(seed: int, *names: str | int) -> int:
    """The 63-bit seed of a stream, e.g. derive(42, "dropout", 3, 7): the start of a SHA-256."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def reseed(seed: int) -> None:
    """Set Python's, NumPy's and torch's CPU generators; and CUDA's where it is in use."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    # torch.manual_seed would queue one more lazy call for each draw in a process without CUDA.
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


@contextmanager
def preserved() -> Iterator[None]:
    """Whatever is drawn inside, the global generators come out as they went in."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, all global generators run from `seed`; outside, nothing has changed."""
    with preserved():
        reseed(seed)
        yield
