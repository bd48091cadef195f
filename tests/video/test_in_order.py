"""Whatever the threads do, items come in order, few are held, and nothing is left running."""

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_video.video.in_order import in_order


def workers(work: Any, num: int) -> list[AbstractContextManager[Any]]:
    return [nullcontext(work) for _ in range(num)]


def decoding_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "llava-video decoding"]


@given(
    lengths=st.lists(st.integers(0, 6), max_size=12),
    num_workers=st.integers(1, 4),
    max_items=st.integers(1, 8),
)
@settings(max_examples=60)
def test_items_come_in_the_order_of_the_tasks(
    lengths: list[int], num_workers: int, max_items: int
) -> None:
    tasks = list(enumerate(lengths))
    work = lambda task: ((task[0], i) for i in range(task[1]))  # noqa: E731 - a generator's worth
    got = list(in_order(tasks, workers(work, num_workers), max_items=max_items))
    assert got == [(idx, i) for idx, length in tasks for i in range(length)]
    assert not decoding_threads()


def test_a_slow_first_task_does_not_keep_the_second_from_beginning() -> None:
    begun = threading.Event()

    def work(task: int) -> Iterator[int]:
        if task == 0:
            assert begun.wait(10)
        begun.set()
        yield task

    # On one thread the first would wait for the second for ever.
    assert list(in_order([0, 1], workers(work, 2), max_items=4)) == [0, 1]


def test_no_more_are_held_than_allowed() -> None:
    num_given, most = 0, 0
    lock = threading.Lock()

    def work(task: int) -> Iterator[int]:
        nonlocal num_given
        for i in range(50):
            with lock:
                num_given += 1
            yield task * 50 + i

    items = in_order(range(4), workers(work, 3), max_items=5)
    for num_taken, item in enumerate(items, start=1):
        assert item == num_taken - 1
        time.sleep(0.001)  # the threads run ahead, if anything lets them
        with lock:
            most = max(most, num_given - num_taken)
    # Five held, one more of the task whose turn it is, and one in the hands of each thread.
    assert 5 <= most <= 5 + 1 + 3


def test_an_error_comes_after_the_items_before_it() -> None:
    def work(task: int) -> Iterator[int]:
        yield task
        if task == 2:
            raise KeyError("broken")
        yield task + 100

    got = []
    items = in_order(range(50), workers(work, 3), max_items=4)
    with pytest.raises(KeyError, match="broken"):
        got.extend(items)
    assert got == [0, 100, 1, 101, 2]
    assert not decoding_threads()


def test_a_worker_that_cannot_begin() -> None:
    class Broken(nullcontext[Any]):
        def __enter__(self) -> Any:
            raise OSError("no file")

    with pytest.raises(OSError, match="no file"):
        list(in_order([1, 2, 3], [Broken(), Broken()], max_items=2))


def test_closing_ends_the_threads_and_their_work() -> None:
    ended: list[int] = []

    def work(task: int) -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            ended.append(task)

    items = in_order(range(10), workers(work, 2), max_items=3)
    assert next(items) == 0
    assert len(decoding_threads()) == 2
    items.close()
    assert not decoding_threads()
    assert sorted(ended) == [0, 1]


def test_no_thread_before_the_first_item_and_none_for_nothing() -> None:
    items = in_order([1], workers(lambda task: iter([task]), 2), max_items=1)
    assert not decoding_threads()
    assert list(items) == [1]
    assert list(in_order([], workers(lambda task: iter([task]), 2), max_items=1)) == []


def test_workers_are_entered_and_left_in_their_own_threads() -> None:
    seen: list[tuple[str, int]] = []

    class Worker(AbstractContextManager[Any]):
        def __enter__(self) -> Any:
            seen.append(("in", threading.get_ident()))
            return lambda task: iter([threading.get_ident()])

        def __exit__(self, *_: object) -> None:
            seen.append(("out", threading.get_ident()))

    (ident,) = in_order([0], [Worker(), Worker()], max_items=1)
    assert seen == [("in", ident), ("out", ident)]
    assert ident != threading.get_ident()
