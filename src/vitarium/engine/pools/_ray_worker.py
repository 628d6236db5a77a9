"""A worker on a Ray cluster. It runs on the cluster's nodes and needs nothing of Ray itself."""

import os
import queue
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from vitarium.blueprint import Recipe
from vitarium.engine.shipping import FileSent, Goods, run_shipped
from vitarium.engine.tuning.calibration import Calibration, Speed, TrainMode
from vitarium.engine.tuning.gain import Gain
from vitarium.engine.worker import Job, Message, attempt, run_job
from vitarium.training import Precision


class RayWorker:
    """Trains one job after another with `threads` threads; made an actor by `ray_cluster`.

    Relative paths are taken from `folder`, the engine's own, where the node has it.
    """

    def __init__(self, threads: int, folder: str) -> None:
        self.threads = threads
        with suppress(OSError):
            os.chdir(folder)

    def sees(self, file: Path, content: bytes) -> bool:
        """Whether the file is here and the same."""
        try:
            return file.read_bytes() == content
        except OSError:
            return False

    def speed(
        self, device: str, recipe: Mapping[str, Any], num_outputs: int, mode: TrainMode
    ) -> Speed:
        """As Calibration.speed, of this node."""
        return Calibration(device, self.threads).speed(Recipe.read(recipe), num_outputs, mode)

    def gain(
        self,
        device: str,
        recipe: Mapping[str, Any],
        num_outputs: int,
        mode: TrainMode,
        faster: TrainMode,
        series: int,
    ) -> Gain:
        """As Calibration.gain, of this node."""
        calibration = Calibration(device, self.threads)
        return calibration.gain(Recipe.read(recipe), num_outputs, mode, faster, series=series)

    def precisions(self, device: str) -> list[Precision]:
        """As Calibration.precisions, of this node."""
        return Calibration(device, self.threads).precisions()

    def run(self, job: Job, goods: Goods | None) -> Iterator[Message | FileSent]:
        """Train the models, and give what happens as it happens.

        With `goods` they are trained in a temporary zoo, and its files are given too.
        """
        messages: queue.SimpleQueue[Message | FileSent | None] = queue.SimpleQueue()

        def train() -> None:
            torch.set_num_threads(self.threads)  # holds for the thread that calls it
            if goods is None:
                run_job(job, messages.put)
            else:
                run_shipped(job, goods, messages.put)

        def work() -> None:
            try:
                attempt(train, messages.put)
            finally:
                messages.put(None)

        threading.Thread(target=work, daemon=True).start()
        while (message := messages.get()) is not None:
            yield message
