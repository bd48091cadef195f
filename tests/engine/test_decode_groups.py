import gc
import itertools
import threading

import pytest
import torch

from llava_video.engine.job import Job
from llava_video.engine.request import Finished, Progress, answer_of
from llava_video.engine.step_graphs import StepGraphs
from llava_video.errors import CapacityError


def groups_of(engine):
    return engine._stepper._groups


class Counted:
    """Counts the steps that the groups of an engine launch, by the rows they have."""

    def __init__(self, engine, capture=None):
        self.sizes = []
        graphs = groups_of(engine).graphs = StepGraphs(capture)
        run = graphs.run

        def note(key, step):
            self.sizes.append(key[1][0])
            run(key, step)

        graphs.run = note


class ByHand:
    def __init__(self, step):
        self.replay = step


@pytest.fixture
def requests(ask, mixed):
    """Return a maker of requests of every kind: free, typed, chosen from, sampled, stopped."""

    def make():
        text = "Roll"
        return [
            *mixed(10),
            ask(text, request_id=10, temperature=0.8, top_p=0.9, seed=3, max_new_tokens=30),
            ask(text, request_id=11, temperature=1.2, top_k=7, repetition_penalty=1.3),
            ask(text, request_id=12, response_format={"type": "integer"}, max_new_tokens=8),
            ask(text, request_id=13, stop=("e", "a"), temperature=1.0, max_new_tokens=40),
            ask(text, request_id=14, max_new_tokens=1),
            ask(text, request_id=15, max_new_tokens=2, position_scale=1.5),
        ]

    return make


@pytest.mark.parametrize("capture", [None, ByHand])
@pytest.mark.parametrize("max_running", [1, 3, 16])
def test_free_running_gives_the_tokens_of_plain_steps(
    make_engine, requests, run_all, facts, max_running, capture
):
    options = {"prefill_chunk_tokens": 7, "max_running": max_running}
    expected = [facts(answer) for answer in run_all(make_engine(**options), requests())]
    engine = make_engine(free_running="on", **options)
    counted = Counted(engine, capture)
    assert [facts(answer) for answer in run_all(engine, requests())] == expected
    assert len(counted.sizes) > 20
    assert max(counted.sizes) <= 2 ** (max_running - 1).bit_length()


@pytest.mark.parametrize("kv_format", ["int8", "int4"])
def test_so_it_does_over_a_quantised_cache(make_engine, mixed, run_all, facts, kv_format):
    expected = [facts(a) for a in run_all(make_engine(), mixed(6, kv_format=kv_format))]
    engine = make_engine(free_running="on")
    counted = Counted(engine)
    assert [facts(a) for a in run_all(engine, mixed(6, kv_format=kv_format))] == expected
    assert counted.sizes


def test_formats_stand_in_slabs_and_groups_of_their_own(make_engine, ask, run_all):
    engine = make_engine(free_running="on")
    counted = Counted(engine)
    formats = ["plain", "int8", "plain"]
    requests = [ask("ab", request_id=i, kv_format=f) for i, f in enumerate(formats)]
    answers = run_all(engine, requests)
    assert answers[0].token_ids == answers[2].token_ids
    assert set(counted.sizes) == {1, 2}


def test_many_threads_get_the_answers_of_plain_steps(make_engine, mixed, run_all, facts):
    expected = [facts(answer) for answer in run_all(make_engine(), mixed(8))]
    engine = make_engine(free_running="on", max_running=5)
    results = {}

    def call(name):
        results[name] = [facts(answer) for answer in run_all(engine, mixed(8))]

    threads = [threading.Thread(target=call, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert [results.get(name) for name in range(3)] == [expected] * 3


def test_choices_and_schemas_go_through_plain_steps(make_engine, ask, run_all):
    engine = make_engine(free_running="on")
    counted = Counted(engine)
    run_all(
        engine,
        [
            ask("a", response_format=["yes", "no"]),
            ask("a", response_format={"type": "boolean"}, request_id=1),
            ask("a", max_new_tokens=1, request_id=2),  # its one token comes with the prompt
        ],
    )
    assert counted.sizes == []


def test_by_itself_a_cpu_runs_plain_steps(make_engine, ask):
    engine = make_engine()
    counted = Counted(engine)
    answer_of(engine, ask("a"))
    assert counted.sizes == []


def test_reference_angles_are_not_made_on_the_device(tiny, make_engine, ask):
    compat = make_engine(free_running="on", rope="compat")
    try:
        counted = Counted(compat)
        assert answer_of(compat, ask("a")).new_tokens == 12
        assert counted.sizes == []
    finally:
        tiny.model.language_model.rope = "exact"


def test_a_prefix_in_another_slab_goes_through_plain_steps(make_engine, ask, video):
    def parts(question):
        return "A ", video([1, 2, 3]), question

    engine = make_engine(free_running="on", slab_tokens=32)
    counted = Counted(engine)
    with answer_of(engine, ask(*parts(" what?"), keep=True)).sequence as kept:
        assert counted.sizes
        counted.sizes.clear()
        again = answer_of(engine, ask(*parts(" what?"), reuse=kept))
        assert again.token_ids == answer_of(make_engine(), ask(*parts(" what?"))).token_ids
    assert counted.sizes == []


def test_groups_go_with_their_slabs(make_engine, ask):
    engine = make_engine(free_running="on")
    for _ in range(3):
        counted = Counted(engine, ByHand)
        answer_of(engine, ask("Hello"))
        assert len(counted.sizes) == 11
        assert groups_of(engine)._groups == {}  # nothing is kept, so the slab is gone
        assert len(groups_of(engine).graphs) == 0
    with answer_of(engine, ask("Hello", keep=True)).sequence:
        assert len(groups_of(engine)._groups) == 1
    answer_of(engine, ask("Hello"))
    assert groups_of(engine)._groups == {}


def test_leaving_early_frees_everything(make_engine, mixed):
    engine = make_engine(free_running="on", prefill_chunk_tokens=7)
    for num_events in (3, 12, 25, 40):
        events = engine.run(mixed(6, max_new_tokens=30, keep=True))
        for event in itertools.islice(events, num_events):
            if isinstance(event, Finished) and event.answer.sequence:
                event.answer.sequence.release()
        assert engine.arena.used_tokens > 0
        events.close()
        assert engine.arena.used_tokens == 0


def num_jobs():
    return sum(type(thing) is Job for thing in gc.get_objects())


@pytest.mark.parametrize("ending", ["answered", "left"])
def test_what_was_asked_is_let_go_of(make_engine, ask, ending):
    """Not at the next step, which may never come: a request holds decoders and files."""
    engine = make_engine(free_running="on")
    with answer_of(engine, ask("x", keep=True)).sequence:  # its slab stays
        gc.collect()
        before = num_jobs()
        events = engine.run([ask("Hello", max_new_tokens=30)])
        for _ in range(9):
            next(events)
        assert num_jobs() == before + 1
        if ending == "answered":
            list(events)
        events.close()
        del events
        gc.collect()
        assert num_jobs() == before
    assert engine.arena.used_tokens == 0


def test_cancelling_in_the_middle_keeps_what_was_said(make_engine, ask):
    engine = make_engine(free_running="on")
    told = []
    request = ask("Hello", max_new_tokens=200, cancelled=lambda: len(told) > 6)
    for event in engine.run([request]):
        told += [event] if isinstance(event, Progress) and event.stage == "generate" else []
        last = event
    assert last.answer.finish_reason == "cancelled"
    assert len(last.answer.token_ids) == len(told)
    assert last.answer.token_ids == answer_of(make_engine(), ask("Hello")).token_ids[: len(told)]


@pytest.mark.parametrize("num_failures", [1, 2])
def test_without_memory_a_step_is_launched_once_more(
    tiny, make_engine, ask, run_all, monkeypatch, num_failures, caplog
):
    engine = make_engine(free_running="on")
    expected = answer_of(make_engine(), ask("Hello")).token_ids
    model, run = tiny.model.language_model, tiny.model.language_model.run
    fails, calls = [True] * num_failures, []

    def failing(hidden, *others):
        calls.append(len(hidden))
        if len(calls) > 4 and fails:
            fails.pop()
            raise torch.OutOfMemoryError("no memory")
        return run(hidden, *others)

    monkeypatch.setattr(model, "run", failing)
    first, second = run_all(engine, [ask("Hello"), ask("Hello", request_id=1)])
    if num_failures == 1:
        assert first.token_ids == second.token_ids == expected
        assert "no memory for a step of 2 tokens" in caplog.text
    else:
        assert isinstance(first, CapacityError)
        assert isinstance(second, CapacityError)
    assert engine.arena.used_tokens == 0
    assert answer_of(engine, ask("Hello")).token_ids == expected


@pytest.mark.gpu
@pytest.mark.parametrize("cuda_graphs", ["auto", "off"])
def test_on_a_gpu_graphs_give_the_tokens_of_eager_steps(
    tiny, make_engine, requests, run_all, facts, cuda_graphs
):
    model = tiny.model.to("cuda")
    try:
        plain = make_engine(model=model, free_running="off")
        expected = [facts(answer) for answer in run_all(plain, requests())]
        engine = make_engine(model=model, cuda_graphs=cuda_graphs)
        assert [facts(answer) for answer in run_all(engine, requests())] == expected
    finally:
        tiny.model.to("cpu")
