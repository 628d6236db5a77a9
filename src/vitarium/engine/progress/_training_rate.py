"""How fast all workers together train, over the last minute."""

from collections import deque

_WINDOW, _SHORTEST = 60.0, 2.0
"""Seconds over which a rate is taken, and that must have passed for one."""


class TrainingRate:
    """Adds up epochs and images as they are trained.

    Args:
        now: seconds, as in all methods.
    """

    def __init__(self, now: float) -> None:
        self._samples = deque([(now, 0.0, 0.0)])
        """Time, epochs and images until then."""
        self._epochs = self._images = 0.0
        self._done: dict[str, float] = {}
        self._images_per_epoch: dict[str, int] = {}

    def advance(
        self, model: str, done: float, images: int | None = None, *, epochs_before: int
    ) -> None:
        """A model has trained `done` epochs of its recipe.

        Args:
            images: of an epoch; None: as said before.
            epochs_before: its epochs when its worker began, if this is its first.
        """
        if images is not None:
            self._images_per_epoch[model] = images
        trained = done - self._done.get(model, max(epochs_before, 0))
        if trained > 0 or model not in self._done:
            self._done[model] = done
            self._epochs += trained
            self._images += trained * self._images_per_epoch.get(model, 0)

    def forget(self, model: str) -> None:
        """It has ended, or begins anew."""
        self._done.pop(model, None)
        self._images_per_epoch.pop(model, None)

    def per_second(self, now: float) -> tuple[float | None, float | None]:
        """Epochs and images; None before anything was trained for a while."""
        self._samples.append((now, self._epochs, self._images))
        while len(self._samples) > 2 and self._samples[1][0] <= now - _WINDOW:
            self._samples.popleft()
        start, epochs, images = self._samples[0]
        if now - start < _SHORTEST or self._epochs == epochs:
            return None, None
        seconds = now - start
        return (self._epochs - epochs) / seconds, (self._images - images) / seconds or None
