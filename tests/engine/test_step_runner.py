import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_video.engine.request import Finished, answer_of
from llava_video.engine.sequence import Sequence
from llava_video.engine.step import Work, run_step
from llava_video.engine.step_runner import StepRunner
from llava_video.errors import CapacityError


class Small:
    """A language model that has memory for so many rows; counts the rows of its calls."""

    def __init__(self, inner, max_rows, error=None):
        self.inner, self.max_rows = inner, max_rows
        self.error = error or torch.OutOfMemoryError("tried to allocate 2.00 GiB")
        self.calls = []

    def forward(self, hidden, *others):
        self.calls.append(len(hidden))
        if len(hidden) > self.max_rows:
            raise self.error
        return self.inner(hidden, *others)


@pytest.fixture
def small(tiny, replaced):
    """Return a maker of models with little memory, and of their language models."""

    def make(max_rows, **options):
        inner = tiny.model.language_model
        memory = Small(inner, max_rows, **options)
        return replaced(memory.forward, inner.logits), memory

    return make


def works_of(tiny, arena, sizes, num_logits):
    """Return works of new sequences: so many tokens each, and logits of so many of the last."""
    works = []
    for idx, (size, wanted) in enumerate(zip(sizes, num_logits, strict=True)):
        sequence = Sequence(arena, position_scale=1.0 + idx % 2)
        sequence.reserve(size)
        hidden = tiny.model.language_model.embed(torch.arange(size) % 90 + 30 + idx)
        works.append(Work(sequence=sequence, hidden=hidden, num_logits=min(wanted, size)))
    return works


def no_give_back():
    pass


def test_halves_give_what_the_whole_gives(tiny, small, make_job, ask):
    _, arena, _ = make_job(ask("a"))

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), min_size=1, max_size=5))
    @torch.inference_mode()
    def check(shapes):
        sizes, num_logits = zip(*shapes, strict=True)
        works = works_of(tiny, arena, sizes, num_logits)
        expected = run_step(tiny.model.language_model, arena, works)
        half = -(-sum(sizes) // 2)
        model, memory = small(max(half, sum(sizes) - 1))
        runner = StepRunner(model.language_model, arena, 16, no_give_back)
        again = works_of(tiny, arena, sizes, num_logits)
        torch.testing.assert_close(runner.run(again), expected, rtol=0, atol=1e-4)
        if len(memory.calls) > 1:
            assert memory.calls[0] == sum(sizes)
            assert sum(memory.calls[1:]) == sum(sizes)
            assert max(memory.calls[1:]) <= half
        for work in (*works, *again):
            work.sequence.release()

    check()


@pytest.mark.parametrize(
    ("num_tokens", "chunk_tokens", "left_tokens"),
    [(16, 16, 8), (15, 15, 8), (9, 16, 8), (8, 16, 16), (1, 1, 1)],
)
def test_chunks_are_half_from_then_on_where_the_chunk_was_to_blame(
    tiny, small, make_job, ask, num_tokens, chunk_tokens, left_tokens
):
    _, arena, _ = make_job(ask("a"))
    model, memory = small(num_tokens - 1 or 1)
    if num_tokens == 1:
        memory.max_rows = 0
    runner = StepRunner(model.language_model, arena, chunk_tokens, no_give_back)
    works = works_of(tiny, arena, [num_tokens], [1])
    with torch.inference_mode():
        if num_tokens == 1:
            with pytest.raises(CapacityError):
                runner.run(works)
        else:
            runner.run(works)
    assert runner.chunk_tokens == left_tokens


@torch.inference_mode()
def test_memory_is_given_back_before_the_second_try(tiny, small, make_job, ask):
    _, arena, _ = make_job(ask("a"))
    model, memory = small(7)
    given = []
    runner = StepRunner(model.language_model, arena, 8, lambda: given.append(len(memory.calls)))
    runner.run(works_of(tiny, arena, [8], [1]))
    assert given == [1]


@torch.inference_mode()
def test_what_the_failed_step_held_is_free_at_the_second_try(tiny, make_job, ask, replaced):
    """An error's traceback holds the frames, and they the tensors, of the step that failed."""
    _, arena, _ = make_job(ask("a"))
    inner, held = tiny.model.language_model, []

    def forward(hidden, *others):
        if not held:
            activations = torch.empty(1000)
            held.append(weakref.ref(activations))
            raise torch.OutOfMemoryError("no memory")
        gc.collect()
        assert held[0]() is None
        return inner(hidden, *others)

    model = replaced(forward, inner.logits)
    runner = StepRunner(model.language_model, arena, 8, no_give_back)
    runner.run(works_of(tiny, arena, [8], [1]))


@torch.inference_mode()
def test_without_memory_for_half_it_says_what_was_planned_and_free(tiny, small, make_job, ask):
    _, arena, _ = make_job(ask("a"))
    model, memory = small(3)
    runner = StepRunner(model.language_model, arena, 8, no_give_back)
    with pytest.raises(CapacityError, match=r"8 tokens.*prefill_chunk_tokens = 8; .* MiB") as error:
        runner.run(works_of(tiny, arena, [8], [1]))
    assert memory.calls == [8, 4]  # caught once
    assert "2.00 GiB" in error.value.message
    assert "prefill_chunk_tokens" in error.value.hint


@torch.inference_mode()
def test_other_errors_are_not_caught(tiny, small, make_job, ask):
    _, arena, _ = make_job(ask("a"))
    model, memory = small(3, error=RuntimeError("shapes differ"))
    runner = StepRunner(model.language_model, arena, 8, no_give_back)
    with pytest.raises(RuntimeError, match="shapes differ"):
        runner.run(works_of(tiny, arena, [8], [1]))
    assert memory.calls == [8]


class TestInTheEngine:
    def test_prompts_go_on_in_smaller_chunks(self, small, make_engine, ask, run_all, caplog):
        requests = [ask("x" * 50, request_id=i, max_new_tokens=5) for i in range(3)]
        expected = [answer.token_ids for answer in run_all(make_engine(), requests)]
        model, memory = small(20)
        engine = make_engine(model=model, prefill_chunk_tokens=32)
        assert [answer.token_ids for answer in run_all(engine, requests)] == expected
        assert memory.calls[:3] == [32, 16, 16]
        assert max(memory.calls[1:]) <= 18  # 16 of a prompt beside what is said
        assert "run in halves" in caplog.text
        memory.calls.clear()
        assert answer_of(engine, ask("x" * 50)).new_tokens == 12
        assert memory.calls[0] == 16

    def test_what_fails_leaves_the_model_usable_and_nothing_held(
        self, small, make_engine, ask, video, run_all
    ):
        model, memory = small(3)
        engine = make_engine(model=model, prefill_chunk_tokens=32, kept_prefixes=1)
        part = video([1])
        requests = [ask("x" * 50), ask("y" * 50, request_id=1)]
        assert [type(error) for error in run_all(engine, requests)] == [CapacityError] * 2
        assert engine.arena.held_tokens == 0
        memory.max_rows = 32
        assert answer_of(engine, ask("x" * 50)).new_tokens == 12
        assert part.clips.opened == 0

    def test_kept_prefixes_give_way(self, tiny, make_engine, ask, video, replaced):
        inner, fail = tiny.model.language_model, []

        def forward(hidden, *others):
            if fail and len(hidden) > 4:
                fail.clear()
                raise torch.OutOfMemoryError("no memory")
            return inner(hidden, *others)

        model = replaced(forward, inner.logits)
        model.visual_rows = tiny.model.visual_rows
        engine = make_engine(model=model, kept_prefixes=1)
        answer_of(engine, ask("A ", video([1, 2]), "?"))
        assert engine.arena.used_tokens > 0
        fail.append(True)
        events = list(engine.run([ask("x" * 9, keep=True)]))
        (answer,) = [event.answer for event in events if isinstance(event, Finished)]
        assert engine.arena.used_tokens == answer.sequence.num_tokens
        answer.sequence.release()
