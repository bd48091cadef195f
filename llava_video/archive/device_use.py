"""The GPU's driver → how busy it says the GPU was, on the mean of the moments that were asked.

What the driver counts is the time in which any kernel ran, whoever started it and however small a
part of the GPU it filled. Knows no engine.
"""

import sys
import threading
import time
from typing import Any, Final

from llava_video.backends import version

_EVERY_S: Final = 1.0
_PERCENT: Final = 100.0


class DeviceUse:
    """The share of time in which this process's GPU was at work; any thread may ask.

    Without a GPU, or without the package that asks its driver, nothing is said.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Where it is not loaded the model is elsewhere, and so is its GPU.
        self._torch: Any = sys.modules.get("torch")
        has_gpu = self._torch is not None and self._torch.cuda.is_available()
        self._is_there = has_gpu and version("pynvml") is not None
        self._asked_s = float("-inf")
        self._sum, self._count = 0.0, 0

    def mean(self) -> float | None:
        """Return the mean so far, 0..1, with a look at the driver where the last is a second old.

        None where nobody can say.
        """
        with self._lock:
            now_s = time.monotonic()
            if self._is_there and now_s - self._asked_s >= _EVERY_S:
                self._asked_s = now_s
                self._look()
            return self._sum / self._count if self._count else None

    def _look(self) -> None:
        try:
            self._sum += self._torch.cuda.utilization() / _PERCENT
            self._count += 1
        except (RuntimeError, ModuleNotFoundError):  # a driver that does not count, as of a slice
            self._is_there = False
