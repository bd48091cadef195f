import dataclasses

import pytest
import torch
from windowed_attention import asked, blocks_of, contiguous, masked_run

from llava_video.engine.elements import VisualRun
from llava_video.engine.oracle import OracleEngine
from llava_video.engine.request import answer_of
from llava_video.engine.settings import EngineSettings
from llava_video.engine.sliding import SlidingWindow
from llava_video.errors import BudgetError, CapacityError, ConfigError

WIDTH = 3
STEPS = 11
FRAME_TOKENS = 6


class TestQuestions:
    def test_several_at_once_leave_the_window_as_it_was(
        self, tiny, make_engine, opened, frame, ask, run_all, question
    ):
        engine = make_engine(kept_prefixes=2)
        window = opened(engine)
        for idx in range(STEPS):
            window.add(frame(idx))
        sequence, used = window.sequence, engine.arena.used_tokens
        before = asked(tiny, engine, window, question)
        requests = [
            ask(" What?", request_id=0),
            ask(" Is it red?", request_id=1, response_format=["yes", "no"]),
            ask(" What?", request_id=2),
        ]
        answers = run_all(engine, map(window.branch, requests))
        alone = run_all(engine, [window.branch(requests[1])])[0]
        assert answers[0].token_ids == answers[2].token_ids != ()
        assert answers[1].parsed == alone.parsed
        assert answers[1].confidence == pytest.approx(alone.confidence, abs=1e-5)
        assert answers[0].reused_tokens == window.num_tokens
        assert (window.sequence, engine.arena.used_tokens) == (sequence, used)
        assert torch.equal(asked(tiny, engine, window, question), before)
        assert not len(engine._prefixes)  # keys that will move must not be given to others

    def test_the_answer_is_that_of_the_definition(
        self, tiny, make_engine, opened, sinks, frame, ask
    ):
        engine = make_engine(penalty=1.0, eos_ids=())
        window = opened(engine)
        parts = [frame(idx) for idx in range(STEPS)]
        for part in parts:
            window.add(part)
        request = ask(" What?", max_new_tokens=6)
        ids = list(answer_of(engine, window.branch(request)).token_ids)
        words = torch.tensor([*request.text_ids, *ids[:-1]])
        rows = tiny.model.language_model.embed(words).detach()
        run = masked_run(
            tiny.model.language_model,
            [*blocks_of(tiny, sinks, parts), rows],
            contiguous(WIDTH),
            question=True,
        )
        assert run.logits[-len(ids) :].argmax(dim=-1).tolist() == ids

    def test_a_branch_of_before_a_slide_sees_what_it_saw(
        self, tiny, make_engine, opened, frame, question
    ):
        engine = make_engine()
        window = opened(engine)
        for idx in range(WIDTH + 2):
            window.add(frame(idx))
        before = asked(tiny, engine, window, question)
        with window.sequence.fork() as branch:
            window.add(frame(9))
            assert not torch.equal(asked(tiny, engine, window, question), before)
            window.sequence.release()
            window._held = branch.fork()
            assert torch.equal(asked(tiny, engine, window, question), before)

    def test_of_another_engine(self, make_engine, opened, frame, ask):
        window = opened()
        window.add(frame(0))
        with pytest.raises(ConfigError, match="another engine's"):
            answer_of(make_engine(), window.branch(ask(" What?")))

    def test_nothing_was_shown(self, opened, ask):
        with pytest.raises(ConfigError, match="no frame was added"):
            opened().branch(ask(" What?"))


class TestRefusals:
    def test_what_a_window_cannot_be(self, tiny, make_engine, sinks):
        engine = make_engine()
        with pytest.raises(ConfigError, match="at least 1 frame"):
            SlidingWindow(engine, sinks, num_frames=0)
        with pytest.raises(ConfigError, match="words before frames"):
            SlidingWindow(engine, (), num_frames=2)
        with pytest.raises(ConfigError, match="keeps no cache"):
            SlidingWindow(OracleEngine(tiny.tokenizer), sinks, num_frames=2)

    def test_float32_angles(self, tiny, make_engine, sinks):
        engine = make_engine(rope="compat")
        try:
            with pytest.raises(ConfigError, match='rope="exact"'):
                SlidingWindow(engine, sinks, num_frames=2)
        finally:
            tiny.model.language_model.rope = EngineSettings().rope

    def test_a_closed_engine(self, make_engine, sinks):
        engine = make_engine()
        engine.close()
        with pytest.raises(ConfigError, match="closed"):
            SlidingWindow(engine, sinks, num_frames=2)

    def test_a_window_larger_than_the_context(self, opened, sinks, frame):
        have = len(sinks) + WIDTH * FRAME_TOKENS
        opened(context_tokens=have).add(frame(0))
        with pytest.raises(BudgetError, match="fewer frames") as refused:
            opened(context_tokens=have - 1).add(frame(0))
        assert (refused.value.need_tokens, refused.value.have_tokens) == (have, have - 1)

    def test_a_frame_larger_than_the_context(self, opened, sinks, frame):
        with pytest.raises(BudgetError, match=r"1 frame\(s\)") as refused:
            opened(context_tokens=len(sinks) + FRAME_TOKENS - 1).add(frame(0))
        assert refused.value.need_tokens == len(sinks) + FRAME_TOKENS

    def test_more_frames_than_one(self, opened, video):
        with pytest.raises(ConfigError, match="one frame at a time"):
            opened().add(video([1, 2]))

    def test_a_frame_that_cannot_be_read_changes_nothing(
        self, tiny, make_engine, opened, frame, question
    ):
        engine = make_engine()
        window = opened(engine)
        for idx in range(WIDTH + 1):
            window.add(frame(idx))
        before, used = asked(tiny, engine, window, question), engine.arena.used_tokens
        with pytest.raises(RuntimeError, match="the file ends here"):
            window.add(frame(7, fail_at=7))
        assert engine.arena.used_tokens == used
        assert torch.equal(asked(tiny, engine, window, question), before)
        window.add(frame(8))
        assert window.frame_keys == ("bars 2", "bars 3", "bars 8")

    def test_no_memory_for_the_next_frame(self, make_engine, opened, sinks, frame):
        num = len(sinks) + WIDTH * FRAME_TOKENS
        engine = make_engine(max_cache_tokens=num)
        window = opened(engine)
        for idx in range(WIDTH - 1):
            window.add(frame(idx))
        with pytest.raises(CapacityError):  # a place for the token that nobody asked for is missing
            window.add(frame(5))
        assert window.frame_keys == ("bars 0", "bars 1")

    def test_what_goes_on_from_tokens_reuses_no_others(self, opened, frame, ask):
        window = opened()
        window.add(frame(0))
        branch = window.branch(ask(" What?"))
        with pytest.raises(ConfigError, match="reuses others"):
            dataclasses.replace(branch, reuse=window.sequence)


def test_a_closed_window_begins_again(opened, frame):
    window = opened()
    window.add(frame(0))
    window.close()
    assert window.frame_keys == ()
    window.add(frame(1))
    assert window.frame_keys == ("bars 1",)
    assert isinstance(window.sequence.elements[-1], VisualRun)
