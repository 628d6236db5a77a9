"""How a machine's devices and cores are shared out among workers."""

from dataclasses import dataclass

import torch

from vitarium.core.cores import available_cores
from vitarium.core.devices import find_devices
from vitarium.core.errors import InvalidInput


@dataclass(frozen=True)
class Machine:
    """Devices to train on, processes to train in, and threads for each."""

    devices: tuple[str, ...]
    workers: int
    threads: int

    @classmethod
    def find(
        cls, device: str = "auto", workers: int | None = None, threads: int | None = None
    ) -> "Machine":
        """Choose what was left open. Raises InvalidInput for a device that is not there.

        On CPUs one single-thread process per core trains more images per second than fewer
        processes with more threads; on GPUs the default is one process each.
        """
        if workers is not None and workers < 0:
            raise InvalidInput(f"{workers} workers: give 1 or more, or 0 to train in this process")
        if threads is not None and threads < 1:
            raise InvalidInput(f"{threads} threads: give 1 or more")
        devices = find_devices(device)
        cores = available_cores()
        if workers is None:
            workers = max(1, cores // (threads or 1)) if devices == ("cpu",) else len(devices)
        if threads is None:
            threads = max(1, cores // workers) if workers else torch.get_num_threads()
        return cls(devices, workers, threads)
