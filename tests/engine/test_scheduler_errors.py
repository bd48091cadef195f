import gc

import pytest
import torch

from llava_video.engine.request import (
    Failed,
    Finished,
    Progress,
    TextPart,
    TextPiece,
    VisualPart,
    answer_of,
)
from llava_video.errors import CapacityError, CheckpointError, ConfigError


class TestErrors:
    def test_a_failing_video_fails_its_request_only(
        self, engine, ask, video, mixed, run_all, facts
    ):
        broken = video([1, 2, 3, 4], fail_at=3)
        requests = [*mixed(5), ask("A ", broken, "?", request_id=50)]
        *answers, error = run_all(engine, requests)
        assert isinstance(error, RuntimeError)
        assert str(error) == "the file ends here"
        assert [facts(a) for a in answers] == [facts(a) for a in run_all(engine, mixed(5))]
        assert broken.clips.closed == 1

    @pytest.mark.parametrize(
        "options",
        [{"response_format": {"type": "foo"}}, {"response_format": {"uniqueItems": True}}],
    )
    def test_a_bad_request_fails_alone(self, engine, ask, run_all, options):
        error, answer = run_all(engine, [ask("a", **options), ask("a", request_id=1)])
        assert isinstance(error, ConfigError)
        assert answer.new_tokens == 12

    def test_ids_the_model_does_not_know_are_refused(self, engine, ask):
        with pytest.raises(ConfigError, match="320"):
            answer_of(engine, ask(TextPart((5, 320))))

    def test_one_id_for_two_requests_is_refused(self, engine, ask):
        with pytest.raises(ConfigError, match="under way twice"):
            list(engine.run([ask("a"), ask("b")]))

    def test_logits_that_are_not_finite_name_the_dtype(
        self, tiny, make_engine, ask, run_all, replaced
    ):
        inner = tiny.model.language_model

        def overflowing(hidden, *others):
            bad = hidden[:, :1] == inner.embed(torch.tensor([ord("Z")]))[0, 0]
            return torch.where(bad, torch.nan, inner(hidden, *others))

        engine = make_engine(model=replaced(overflowing, inner.logits))
        error, answer = run_all(engine, [ask("aZ"), ask("aY", request_id=1)])
        assert isinstance(error, CheckpointError)
        assert "float32" in error.message
        assert answer.token_ids == answer_of(make_engine(), ask("aY")).token_ids

    @pytest.mark.parametrize(
        "cause",
        [
            torch.OutOfMemoryError("no memory"),
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate …"),
        ],
    )
    def test_a_step_without_memory_in_halves_either_fails_what_runs_and_frees_it(
        self, tiny, make_engine, ask, run_all, replaced, cause
    ):
        inner = tiny.model.language_model
        calls = []

        def breaking(*args):
            calls.append(1)
            if len(calls) in (3, 4):
                raise cause
            return inner(*args)

        engine = make_engine(model=replaced(breaking, inner.logits))
        errors = run_all(engine, [ask("a"), ask("b", request_id=1)])
        assert [type(error) for error in errors] == [CapacityError, CapacityError]
        assert "prefill_chunk_tokens" in errors[0].hint
        assert engine.arena.used_tokens == 0
        assert answer_of(engine, ask("a")).new_tokens == 12

    def test_no_memory_for_a_video_is_a_capacity_error(self, engine, ask, video):
        def greedy():
            raise MemoryError("no room for a frame")
            yield

        part = video([1])
        with pytest.raises(CapacityError, match="no room for a frame"):
            answer_of(engine, ask("a", VisualPart(plan=part.plan, clips=greedy, key="x")))

    def test_a_source_that_does_not_close_keeps_nothing(self, engine, ask, video, caplog):
        part = video(range(9))

        def stubborn():
            try:
                yield from part.clips()
            finally:
                raise OSError("cannot close")

        request = ask("a", VisualPart(plan=part.plan, clips=stubborn, key="x"))
        events = engine.run([request])
        next(events)
        next(events)
        events.close()
        assert engine.arena.used_tokens == 0
        assert "did not close" in caplog.text

    def test_an_interrupt_is_raised_and_frees_everything(self, engine, ask, video):
        def interrupted():
            raise KeyboardInterrupt
            yield

        part = video([1])
        part = VisualPart(plan=part.plan, clips=interrupted, key="x")
        with pytest.raises(KeyboardInterrupt):
            answer_of(engine, ask("a", part))
        assert engine.arena.used_tokens == 0
        assert answer_of(engine, ask("a")).new_tokens == 12

    def test_requests_that_cannot_be_drawn_end_the_call(self, engine, ask):
        def requests():
            yield ask("a")
            raise OSError("the list ends here")

        with pytest.raises(OSError, match="the list ends here"):
            list(engine.run(requests()))

    def test_a_closed_engine_answers_nothing(self, make_engine, ask):
        engine = make_engine()
        events = engine.run([ask("a")])
        next(events)
        engine.close()
        last = list(events)[-1]
        assert isinstance(last, Failed)
        with pytest.raises(ConfigError, match="closed"):
            answer_of(engine, ask("a"))


class TestCancelling:
    @pytest.mark.parametrize("num_events", [1, 2, 4, 9, 14])
    def test_leaving_early_frees_everything(self, engine, ask, video, num_events):
        part = video(range(12))
        requests = [ask("A ", part, "?", keep=True), ask("b", request_id=1, keep=True)]
        events = engine.run(requests)
        for _ in range(num_events):
            next(events)
        assert engine.arena.used_tokens > 0
        events.close()
        assert engine.arena.used_tokens == 0
        assert part.clips.closed == part.clips.opened

    def test_an_iterator_that_is_dropped_frees_everything(self, engine, ask):
        events = engine.run([ask("a", keep=True)])
        next(events)
        del events
        gc.collect()
        assert engine.arena.used_tokens == 0

    def test_an_answer_that_was_kept_but_not_taken_is_released(self, engine, ask):
        events = engine.run([ask("a", keep=True, max_new_tokens=1)])
        assert isinstance(next(events), Progress)
        events.close()
        assert engine.arena.used_tokens == 0

    def test_a_taken_answer_stays_the_callers(self, engine, ask):
        events = engine.run([ask("a", keep=True, max_new_tokens=1)])
        (answer,) = [event.answer for event in events if isinstance(event, Finished)]
        assert engine.arena.used_tokens == 1  # the prompt; the one token said was not read
        answer.sequence.release()

    def test_a_cancelled_request_tells_what_it_has(self, engine, ask):
        told = []
        request = ask("Hello", max_new_tokens=200, cancelled=lambda: len(told) > 6, request_id=3)
        free = answer_of(engine, ask("Hello", max_new_tokens=20)).text
        for event in engine.run([request]):
            told += [event.text] if isinstance(event, TextPiece) else []
            last = event
        assert last.answer.finish_reason == "cancelled"
        assert last.answer.text == "".join(told)
        assert free.startswith(last.answer.text)
        assert 6 < len(told) < 12

    @pytest.mark.parametrize("keep", [False, True])
    def test_a_request_can_be_cancelled_before_its_answer_begins(self, engine, ask, video, keep):
        part = video(range(50))
        request = ask("A ", part, "?", cancelled=lambda: part.clips.given > 10, keep=keep)
        answer = answer_of(engine, request)
        assert (answer.text, answer.finish_reason) == ("", "cancelled")
        assert answer.sequence is None
        assert part.clips.closed == 1
        assert part.clips.given < 16

    def test_a_choice_can_be_cancelled(self, engine, ask):
        answer = answer_of(
            engine, ask("a", response_format=["yes", "no"], cancelled=lambda: True, keep=True)
        )
        assert (answer.parsed, answer.confidence) == (None, None)
        assert answer.finish_reason == "cancelled"
