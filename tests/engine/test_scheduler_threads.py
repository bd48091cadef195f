import threading
import time

import pytest

from llava_video.engine.request import Finished, answer_of


class TestThreads:
    def test_many_callers_get_the_answers_of_one_at_a_time(
        self, make_engine, mixed, run_all, facts
    ):
        engine = make_engine(prefill_chunk_tokens=16, max_running=5)
        expected = [facts(answer_of(engine, request)) for request in mixed(10)]
        results = {}

        def call(name):
            results[name] = [facts(answer) for answer in run_all(engine, mixed(10))]

        threads = [threading.Thread(target=call, args=(name,)) for name in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert not any(thread.is_alive() for thread in threads)
        assert [results[name] for name in range(5)] == [expected] * 5
        assert engine.arena.used_tokens == 0

    def test_to_ask_nobody_waits_for_a_step_to_end(self, make_engine, ask, run_all):
        engine = make_engine()
        stepper, sizes, drawn = engine._stepper, [], []
        step, begun, may_go_on = stepper.step, threading.Event(), threading.Event()

        def held(jobs):
            sizes.append(len(jobs))
            begun.set()
            may_go_on.wait(30)
            step(jobs)

        def several():
            for number in range(3):
                drawn.append(number)
                yield ask("how many", request_id=number)

        stepper.step = held
        calls = (lambda: run_all(engine, [ask("what")]), lambda: list(engine.run(several())))
        threads = [threading.Thread(target=call) for call in calls]
        threads[0].start()
        assert begun.wait(30)
        threads[1].start()
        until_s = time.monotonic() + 30
        while len(drawn) < 3 and time.monotonic() < until_s:
            time.sleep(0.001)
        assert (drawn, sizes) == ([0, 1, 2], [1])  # the first step is under way yet
        may_go_on.set()
        for thread in threads:
            thread.join(timeout=60)
        assert sizes[1] == 4

    def test_tight_memory_blocks_nobody_for_ever(self, make_engine, mixed, run_all, facts):
        engine = make_engine(max_cache_tokens=48, slab_tokens=48)
        expected = [facts(answer_of(engine, request)) for request in mixed(5)]
        results = {}

        def call(name):
            results[name] = [facts(answer) for answer in run_all(engine, mixed(5))]

        threads = [threading.Thread(target=call, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert [results.get(name) for name in range(4)] == [expected] * 4

    def test_an_idle_iterator_blocks_nobody(self, make_engine, ask, mixed, run_all):
        engine = make_engine(max_cache_tokens=64, slab_tokens=64)
        idle = engine.run([ask("x" * 20, max_new_tokens=30)])
        next(idle)
        answers = run_all(engine, mixed(5))  # these run the idle one's steps too
        assert all(isinstance(answer.text, str) for answer in answers)
        assert isinstance(list(idle)[-1], Finished)  # its events waited for it

    def test_callers_that_leave_early_disturb_nobody(self, make_engine, mixed, run_all, facts):
        engine = make_engine(prefill_chunk_tokens=16)
        expected = [facts(answer_of(engine, request)) for request in mixed(6)]
        results, stop = {}, threading.Event()

        def leave():
            num = 0
            while not stop.is_set():
                events = engine.run(mixed(4, keep=True))
                for _ in range(num % 9 + 1):
                    event = next(events)
                    if isinstance(event, Finished) and event.answer.sequence:
                        event.answer.sequence.release()
                events.close()
                num += 1

        def call(name):
            results[name] = [facts(answer) for answer in run_all(engine, mixed(6))]

        leavers = [threading.Thread(target=leave) for _ in range(2)]
        callers = [threading.Thread(target=call, args=(name,)) for name in range(2)]
        for thread in (*leavers, *callers):
            thread.start()
        for thread in callers:
            thread.join(timeout=60)
        stop.set()
        for thread in leavers:
            thread.join(timeout=60)
        assert not any(thread.is_alive() for thread in (*leavers, *callers))
        assert [results.get(name) for name in range(2)] == [expected] * 2
        assert engine.arena.used_tokens == 0

    def test_sequences_are_released_by_any_thread(self, make_engine, ask, mixed, run_all):
        engine = make_engine()
        kept = [answer_of(engine, ask(f"{i}", keep=True)).sequence for i in range(20)]

        def release():
            for sequence in kept:
                time.sleep(0.002)
                sequence.release()

        thread = threading.Thread(target=release)
        thread.start()
        answers = run_all(engine, mixed(10))
        thread.join(timeout=60)
        assert len(answers) == 10
        assert engine.arena.used_tokens == 0
        engine.close()

    def test_what_was_asked_and_given_up_is_let_go_of(self, make_engine, ask):
        engine = make_engine()

        def requests():
            yield ask("one", request_id=1)
            raise ValueError("no more")

        with pytest.raises(ValueError, match="no more"):
            list(engine.run(requests()))
        assert not engine._asked
        assert not engine._waiting

    def test_a_finalizer_within_a_turn_s_end_frees_at_the_next_step(self, make_engine, ask):
        engine = make_engine()
        idle = engine.run([ask("x" * 20, max_new_tokens=30)])
        next(idle)
        assert engine.arena.used_tokens > 0
        with engine._turns._lock:  # where a collection of garbage may close an iterator
            idle.close()
        assert engine.arena.used_tokens > 0
        answer_of(engine, ask("y"))
        assert engine.arena.used_tokens == 0
