"""The queue: bounded, the oldest frame goes first, nothing goes uncounted."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_video.video.stream_events import Mark, StreamFrame
from llava_video.video.stream_queue import StreamQueue


def frame(idx: int, side_px: int = 4) -> StreamFrame:
    picture = np.zeros((side_px, side_px, 3), dtype=np.uint8)
    return StreamFrame(idx=idx, picture=picture, pts_s=float(idx), wall_s=1000.0 + idx)


def told(queue: StreamQueue) -> list[object]:
    found: list[object] = []
    while (event := queue.take(0)) is not None:
        found.append(
            event.idx if isinstance(event, StreamFrame) else (event.kind, event.num_frames)
        )
    return found


def test_the_oldest_goes_and_is_told_before_the_next_frame() -> None:
    queue = StreamQueue(2, 10**6)
    for idx in range(5):
        queue.put(frame(idx))
    assert queue.depth == 2
    assert told(queue) == [("dropped", 3), 3, 4]
    assert (queue.num_dropped, queue.num_delivered) == (3, 2)
    queue.put(frame(5))
    assert told(queue) == [5]  # told once


def test_marks_stay_where_they_were() -> None:
    queue = StreamQueue(2, 10**6)
    queue.put(frame(0))
    queue.put(Mark(kind="resized", wall_s=0.0))
    queue.put(frame(1))
    queue.put(Mark(kind="lost", wall_s=0.0))
    queue.put(frame(2))
    assert told(queue) == [("resized", 0), ("dropped", 1), 1, ("lost", 0), 2]


def test_bytes_count_too_but_one_picture_always_may_come() -> None:
    queue = StreamQueue(10, 2 * 4 * 4 * 3)
    for idx in range(4):
        queue.put(frame(idx))
    assert queue.depth == 2
    queue.put(frame(4, side_px=64))
    assert told(queue) == [("dropped", 4), 4]


def test_marks_without_a_reader_are_bounded() -> None:
    queue = StreamQueue(2, 10**6)
    for _ in range(3000):
        queue.put(Mark(kind="lost", wall_s=0.0))
    assert len(told(queue)) == 1000
    assert queue.num_lost_marks == 2000


def test_a_recording_waits_for_its_reader() -> None:
    queue = StreamQueue(2, 10**6, waits=True)
    thread = threading.Thread(target=lambda: [queue.put(frame(idx)) for idx in range(20)])
    thread.start()
    found = []
    while len(found) < 20:
        event = queue.take(5)
        assert isinstance(event, StreamFrame)
        found.append(event.idx)
        assert queue.depth <= 2
    thread.join(5)
    assert (found, queue.num_dropped) == (list(range(20)), 0)


def test_who_waits_goes_on_when_the_reader_leaves() -> None:
    queue = StreamQueue(1, 10**6, waits=True)
    queue.put(frame(0))
    thread = threading.Thread(target=queue.put, args=(frame(1),))
    thread.start()
    queue.abandon()
    thread.join(5)
    assert not thread.is_alive()
    assert queue.take(None) is None
    assert queue.is_over


def test_the_end_wakes_the_reader_and_what_waits_is_taken_first() -> None:
    rung = threading.Event()
    queue = StreamQueue(4, 10**6, on_event=rung.set)
    queue.put(frame(0))
    assert rung.is_set()
    queue.close()
    assert not queue.is_over
    assert isinstance(queue.take(None), StreamFrame)
    assert queue.is_over
    begun_s = time.monotonic()
    assert queue.take(None) is None
    assert time.monotonic() - begun_s < 1


@given(st.lists(st.sampled_from(["put", "take", "lost"]), max_size=80), st.integers(1, 5))
def test_nothing_goes_uncounted(steps: list[str], most: int) -> None:
    queue = StreamQueue(most, 10**6)
    num, last, num_told = 0, -1, 0
    for step in [*steps, *["take"] * 200]:
        if step == "take":
            event = queue.take(0)
            if isinstance(event, StreamFrame):
                assert event.idx > last
                last = event.idx
            elif event is not None:
                num_told += event.num_frames
            continue
        if step == "lost":
            queue.count_dropped(1, 0.0, 0.0)
        else:
            queue.put(frame(num))
        num += 1
        assert queue.depth <= most
        assert num == queue.num_delivered + queue.num_dropped + queue.depth
    trailing = queue.num_dropped - num_told  # dropped after the last frame: none is there to tell
    assert trailing >= 0
    if "put" in steps and steps and steps[-1] != "lost":
        assert trailing == 0 or steps[-1] == "take"


def test_no_frame_is_kept_for_longer_than_it_waits() -> None:
    queue = StreamQueue(1, 10**6)
    queue.put(frame(0))
    with pytest.raises(AssertionError):
        assert queue.take(0) is None
    assert queue.take(0) is None
