"""Windows that wait are bounded; what is dropped keeps its place and takes no memory."""

import threading

from watch_jobs import job_of

from llava_video.monitor.window_queue import Waiting, WindowQueue


def drained(queue: WindowQueue) -> list[Waiting]:
    found = []
    while (waiting := queue.take(0)) is not None:
        found.append(waiting)
    return found


def test_the_oldest_go_and_keep_their_place() -> None:
    queue = WindowQueue(["gate"], 2)
    for number in range(5):
        queue.put(job_of(number))
    found = drained(queue)
    assert [(one.job.window_idx, one.num_dropped) for one in found] == [
        (0, 1), (1, 1), (2, 1), (3, 0), (4, 0),
    ]  # fmt: skip
    assert [len(one.job.pictures) for one in found] == [0, 0, 0, 1, 1]
    assert [len(one.job.frames) for one in found] == [0, 0, 0, 1, 1]
    assert found[0].job.last.picture.size == 0
    assert queue.num_dropped == {"gate": 3}


def test_a_busy_camera_takes_no_other_ones_place() -> None:
    queue = WindowQueue(["gate", "yard"], 2)
    queue.put(job_of(0, "yard"))
    for number in range(9):
        queue.put(job_of(number, "gate"))
    assert queue.depths() == {"gate": 2, "yard": 1}
    assert queue.num_dropped == {"gate": 7, "yard": 0}
    cameras = [one.job.camera for one in drained(queue)]
    assert cameras[:2] == ["gate", "yard"]


def test_notes_are_bounded_and_count_all() -> None:
    queue = WindowQueue(["gate"], 1)
    for number in range(2001):
        queue.put(job_of(number))
    found = drained(queue)
    assert len(found) == 257
    assert sum(one.num_dropped for one in found) == 2000 == queue.num_dropped["gate"]
    assert [one.job.at_s for one in found] == sorted(one.job.at_s for one in found)
    assert found[0].job.start_s == job_of(0).start_s


def test_the_end_keeps_what_waits_or_drops_it() -> None:
    for keeps in (True, False):
        queue = WindowQueue(["gate"], 4)
        queue.put(job_of(0))
        queue.close(keeps=keeps)
        assert not queue.is_over
        queue.put(job_of(1))  # too late
        first, late = sorted(drained(queue), key=lambda one: one.job.window_idx)
        assert (first.num_dropped, late.num_dropped) == (0 if keeps else 1, 1)
        assert queue.is_over
        assert queue.take() is None


def test_a_queue_that_waits_drops_nothing() -> None:
    queue = WindowQueue(["gate"], 2, waits=True)
    thread = threading.Thread(target=lambda: [queue.put(job_of(n)) for n in range(20)])
    thread.start()
    found = [queue.take(5.0) for _ in range(20)]
    thread.join(5.0)
    assert [one.job.window_idx for one in found if one] == list(range(20))
    assert queue.num_dropped == {"gate": 0}


def test_the_end_lets_go_of_who_waits_for_room() -> None:
    queue = WindowQueue(["gate"], 1, waits=True)
    thread = threading.Thread(target=lambda: [queue.put(job_of(n)) for n in range(3)])
    thread.start()
    queue.close(keeps=False)
    thread.join(5.0)
    assert not thread.is_alive()
    assert sum(one.num_dropped for one in drained(queue)) == 3


def test_nothing_in_time_is_none() -> None:
    queue = WindowQueue(["gate"], 1)
    assert queue.take(0.01) is None
    assert not queue.is_over
