import weakref

import pytest
import torch

from llava_video.engine.failing import as_failure, failing
from llava_video.engine.request import Failed
from llava_video.errors import CapacityError


def test_an_error_ends_its_request(make_job, ask):
    job, arena, told = make_job(ask("ab", request_id=3))
    job.admit()
    error = ValueError("user code")
    with failing(job):
        raise error
    assert told == [Failed(3, error)]
    assert (job.has_ended, arena.used_tokens) == (True, 0)


def test_an_interrupt_goes_through(make_job, ask):
    job, _, told = make_job(ask("ab"))
    with pytest.raises(KeyboardInterrupt), failing(job):
        raise KeyboardInterrupt
    assert told == []


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("no room"),
        torch.OutOfMemoryError("no room"),
        RuntimeError("can't allocate memory: no room"),
    ],
)
def test_no_memory_is_a_capacity_error(error):
    failure = as_failure(error)
    assert isinstance(failure, CapacityError)
    assert "no room" in failure.message
    assert "tile_chunk" in failure.hint
    assert failure.__cause__ is error


def test_errors_stay_and_interrupts_become_one():
    error = ValueError("as it is")
    assert as_failure(error) is error
    assert "KeyboardInterrupt" in str(as_failure(KeyboardInterrupt()))


def test_an_error_that_is_kept_keeps_no_rows(make_job, ask):
    job, _, told = make_job(ask("ab"))
    made = []

    def read():
        rows = torch.zeros(3)
        made.append(weakref.ref(rows))
        raise ValueError("user code")

    with failing(job):
        read()
    assert told[0].error.__traceback__ is not None
    assert made[0]() is None
