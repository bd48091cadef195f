"""A line of metrics → TensorBoard's event files: one curve per number of the line.

Needs the `tensorboard` package (extra `train`), through the writer that torch brings.
"""

from collections.abc import Callable, Iterator, Mapping
from numbers import Real
from pathlib import Path
from typing import Any, Final, Protocol

from llava_video import backends

FOLDER: Final = "tensorboard"  # in the run's

_AXES = ("step", "steps")  # what a curve is drawn over, and its end


class Writer(Protocol):
    """What is used of torch's `SummaryWriter`."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Note one number."""

    def flush(self) -> None:
        """Write what was noted to the disk."""

    def close(self) -> None:
        """Let the file go."""


def open_writer(folder: Path, purge_step: int) -> Writer:
    """Open an event file.

    Args:
        folder: of the files of one run.
        purge_step: what an earlier file has from this step on is not shown.

    Raises:
        BackendMissingError: without TensorBoard.
    """
    backends.require("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    writer: Writer = SummaryWriter(str(folder), purge_step=purge_step)
    return writer


class Curves:
    """The curves of one run.

    Args:
        folder: of the event files.
        make: opens one.
    """

    def __init__(self, folder: Path, make: Callable[[Path, int], Writer] = open_writer) -> None:
        self._folder, self._make = folder, make
        self._writer: Writer | None = None

    def begin(self, done_steps: int) -> None:
        """Go on behind so many steps: what a killed run wrote after them is not shown."""
        self._writer = self._make(self._folder, done_steps + 1)

    def write(self, line: Mapping[str, Any]) -> None:
        """Add a point to every curve.

        Args:
            line: as in `metrics.jsonl`, with its "step".
        """
        if self._writer is None:
            return
        for name, value in scalars(line):
            self._writer.add_scalar(name, value, line["step"])
        self._writer.flush()  # a killed run leaves what it logged

    def close(self) -> None:
        """Let the file go."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def scalars(line: Mapping[str, Any], place: str = "train/") -> Iterator[tuple[str, float]]:
    """Yield the name and the value of every number of a line, those of a mapping in it too.

    >>> list(scalars({"step": 3, "loss": 0.5, "grad_norm": None, "broken": {"marks": 2}}))
    [('train/loss', 0.5), ('train/broken/marks', 2.0)]
    """
    for name, value in line.items():
        if isinstance(value, Mapping):
            yield from scalars(value, f"{place}{name}/")
        elif isinstance(value, Real) and name not in _AXES:
            yield place + name, float(value)
