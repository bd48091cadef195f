"""A run ends where nothing comes out any more, and never over broken videos."""

from pathlib import Path

import pytest

from llava_video.archive.breaker import MOST_ALIKE, Breaker, fault_of_place
from llava_video.archive.unit import UnitError
from llava_video.archive.work import CRASH
from llava_video.errors import CapacityError

BUG = UnitError(kind="RuntimeError", message="shapes do not fit.")


def test_so_many_alike_end_a_run() -> None:
    breaker = Breaker()
    for _ in range(MOST_ALIKE - 1):
        breaker.note_failure(BUG, Path("run"))
    with pytest.raises(CapacityError, match="shapes do not fit") as caught:
        breaker.note_failure(BUG, Path("run"))
    assert "archive retry run --only RuntimeError" in caught.value.hint


def test_a_result_or_another_class_begins_anew() -> None:
    breaker = Breaker()
    for number in range(10 * MOST_ALIKE):
        if number % MOST_ALIKE == 0:
            breaker.note_result()
        if number % MOST_ALIKE == MOST_ALIKE - 1:
            breaker.note_failure(UnitError(kind="KeyError", message="x"), Path("run"))
        else:
            breaker.note_failure(BUG, Path("run"))


@pytest.mark.parametrize(
    "kind",
    ["ConfigError", "SourceError", "ChangedFileError", "AccessRefusedError", "DecodeError", CRASH],
)
def test_broken_videos_are_never_too_many(kind: str) -> None:
    breaker = Breaker()
    for _ in range(10 * MOST_ALIKE):
        breaker.note_failure(UnitError(kind=kind, message="broken."), Path("run"))


def test_what_is_broken_is_said() -> None:
    error = UnitError(kind="ServerClosedError", message="no key.", hint="export it.")
    fault = fault_of_place("server", error)
    assert (fault.message, fault.hint) == (
        "the server is closed, and the run ends; what is done is kept. no key.",
        "export it.",
    )
    cuda = UnitError(kind="AcceleratorError", message="CUDA error: an illegal memory access.")
    assert "device is broken" in fault_of_place("device", cuda).message
    assert "driver" in fault_of_place("device", cuda).hint
