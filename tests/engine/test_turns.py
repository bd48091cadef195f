"""Turns: one at a time, in the order of asking, and nobody waits who is served."""

import signal
import sys
import threading
import time

import pytest

from llava_video.engine.turns import Turns


def wait_until(is_so) -> None:
    until_s = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < until_s
        time.sleep(0.001)


def begin(*calls):
    """Start threads one after another, each when the one before has asked."""
    threads = [threading.Thread(target=call, daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    return threads


def waiting(turns: Turns) -> int:
    return len(turns._waiting)


def test_one_has_the_turn_at_a_time():
    turns, inside, most = Turns(), [], []

    def work():
        for _ in range(200):
            with turns.turn():
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = begin(*[work] * 8)
    for thread in threads:
        thread.join(30)
    assert len(most) == 1600
    assert set(most) == {1}
    assert turns.try_take("last")


def test_it_is_passed_on_in_the_order_of_asking_even_to_its_last_holder():
    turns, order = Turns(), []
    assert turns.take("first", lambda: False)

    def ask(name):
        def call():
            with turns.turn():
                order.append(name)

        return call

    threads = []
    for number in range(5):
        threads += begin(ask(number))
        wait_until(lambda number=number: waiting(turns) == number + 1)
    turns.give_back("first")
    # A lock would be taken again by the thread that let go of it, before the others wake.
    with turns.turn():
        order.append("again")
    for thread in threads:
        thread.join(30)
    assert order == [0, 1, 2, 3, 4, "again"]


def test_who_is_served_is_woken_and_has_no_turn():
    turns, served, found = Turns(), set(), {}
    assert turns.take("first", lambda: False)

    def ask(name):
        def call():
            found[name] = turns.take(name, lambda: name in served)

        return call

    threads = []
    for number in range(3):
        threads += begin(ask(number))
        wait_until(lambda number=number: waiting(turns) == number + 1)
    served |= {0, 2}
    turns.give_back("first")
    for thread in threads:
        thread.join(30)
    assert found == {0: False, 1: True, 2: False}
    assert not turns.try_take("last")  # it is the second's
    turns.give_back(1)
    assert not turns.take("last", lambda: True)  # served already: nobody is asked
    assert turns.try_take("last")


@pytest.fixture
def ctrl_c():
    """Let SIGINT raise, which a worker of pytest ignores."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("is_passed", [False, True])
def test_who_is_interrupted_while_waiting_leaves_no_turn_behind(ctrl_c, is_passed):
    turns = Turns()
    assert turns.take("first", lambda: False)

    def interrupt():
        wait_until(lambda: waiting(turns) == 1)
        if is_passed:
            turns.give_back("first")
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threads = begin(interrupt)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - it may come behind the wait too
        try:
            turns.take("second", lambda: False)
            time.sleep(30)
        finally:
            turns.give_back("second")
    threads[0].join(30)
    assert waiting(turns) == 0
    assert turns.try_take("third") is is_passed


def test_nobody_gives_back_what_is_another_s():
    turns = Turns()
    turns.give_back("first")
    assert turns.take("first", lambda: False)
    turns.give_back("second")
    assert not turns.try_take("second")
    turns.give_back("first")
    assert turns.try_take("second")


def test_a_finalizer_in_the_middle_of_anything_waits_for_nothing():
    turns = Turns()
    assert turns.take("first", lambda: False)
    with turns._lock:  # as in the middle of `give_back`, on this very thread
        assert not turns.try_take("second")
    turns.give_back("first")
    with turns._lock:
        assert not turns.try_take("second")
    assert turns.try_take("second")


@pytest.mark.parametrize("line", range(20))
def test_ctrl_c_at_any_line_of_giving_back_leaves_the_turn_to_the_next(line):
    turns, found = Turns(), []
    assert turns.take("first", lambda: False)

    def ask():
        with turns.turn():
            found.append(1)

    threads = begin(ask)
    wait_until(lambda: waiting(turns) == 1)
    code, seen = Turns._end.__code__, []

    def trace(frame, event, _):
        if frame.f_code is not code:
            return None
        # Python looks for signals after a lock's release at the end of `with`, not before it.
        if event == "line" and frame.f_lineno not in seen[:1]:
            seen.append(frame.f_lineno)
            if len(seen) == line + 1:
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        turns.give_back("first")
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    threads[0].join(30)
    assert found == [1]
    assert turns.try_take("third")
