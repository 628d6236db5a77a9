"""Images of a batch decoded by as many threads as this process computes with."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from vitarium.data.base import Images

AHEAD = 2
"""Images per thread that are decoded, or about to be, before they are asked for."""


def decode_ahead(images: Images, numbers: Sequence[int]) -> Iterator[Tensor]:
    """The images of these numbers, in that order; those that follow are decoded meanwhile.

    Pillow decodes without Python's lock. Processes of a loader have one thread, and so no others;
    nor are there others for images that are not `thread_safe`.
    """
    safe = getattr(images, "thread_safe", False)
    threads = min(torch.get_num_threads(), len(numbers)) if safe else 1
    if threads <= 1:
        yield from map(images.__getitem__, numbers)
        return
    waiting: deque[Future[Tensor]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for number in numbers:
                waiting.append(pool.submit(images.__getitem__, number))
                if len(waiting) > AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
