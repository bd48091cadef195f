import dataclasses

import pytest
import torch
from windowed_attention import contiguous, masked_run, rotated

from llava_video.engine.oracle import OracleEngine
from llava_video.engine.request import answer_of
from llava_video.engine.sequence import VisualRun
from llava_video.engine.settings import EngineSettings
from llava_video.engine.sliding import SlidingWindow
from llava_video.engine.step import Work, run_step
from llava_video.errors import BudgetError, CapacityError, ConfigError
from llava_video.values import Newline

WIDTH = 3
STEPS = 11
FRAME_TOKENS = 6


@pytest.fixture
def sinks(tiny):
    return tiny.tokenizer.encode("You see: ")


@pytest.fixture
def question(tiny):
    return tiny.model.language_model.embed(torch.tensor(tiny.tokenizer.encode(" What?"))).detach()


@pytest.fixture
def frame(video):
    """Return a maker of the stream's frames, of 6 tokens, or every third of 4."""

    def make(idx, *, mixed=False, **options):
        plan = {}
        if mixed and idx % 3 == 1:
            plan = {"newline": Newline.NONE, "num_tokens": 4}
        return video([idx], plan=plan, **options)

    return make


@pytest.fixture
def opened(make_engine, sinks):
    """Return a maker of windows that are closed before their engine is looked at."""
    made = []

    def make(engine=None, **options):
        engine = engine or make_engine()
        made.append(SlidingWindow(engine, sinks, **{"num_frames": WIDTH, **options}))
        return made[-1]

    yield make
    for window in made:
        window.close()


def rows_of(tiny, part):
    return torch.cat(list(tiny.model.visual_rows(part.plan, part.clips(), 2)))


def blocks_of(tiny, sinks, parts):
    embedded = tiny.model.language_model.embed(torch.tensor(sinks)).detach()
    return [embedded, *(rows_of(tiny, part) for part in parts)]


@torch.inference_mode()
def asked(tiny, engine, window, rows):
    """Return the logits (n, vocab) of a question's rows over a fork of the window."""
    with window.sequence.fork() as fork:
        fork.reserve(len(rows))
        return run_step(tiny.model.language_model, engine.arena, [Work(fork, rows, len(rows))])


def stored(engine, sequence, num_tokens, layer_idx):
    """Return the last keys and values of a sequence, float64."""
    parts = [engine.arena.stored(layer_idx, span).plain(torch.float64) for span in sequence.past]
    return (torch.cat(each)[-num_tokens:] for each in zip(*parts, strict=True))


def error(result, expected):
    return float((result.double() - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("chunk_tokens", [4, 2048])
def test_every_step_is_that_of_the_masked_definition(
    tiny, make_engine, opened, sinks, frame, question, mixed, chunk_tokens
):
    engine = make_engine(prefill_chunk_tokens=chunk_tokens)
    window = opened(engine)
    parts = [frame(idx, mixed=mixed) for idx in range(STEPS)]
    blocks = blocks_of(tiny, sinks, parts)
    whole = masked_run(tiny.model.language_model, blocks, contiguous(WIDTH))
    theta, start = tiny.model.language_model.config.rope_theta, len(sinks)
    for step, part in enumerate(parts):
        window.add(part)
        seen = slice(max(0, step - WIDTH + 1), step + 1)
        assert window.frame_keys == tuple(each.key for each in parts[seen])
        stop = start + part.num_tokens
        assert window.sequence.next_idx == stop  # as if nothing had ever left
        for layer_idx in range(len(whole.keys)):
            keys, values = stored(engine, window.sequence, part.num_tokens, layer_idx)
            turned = rotated(whole.keys[layer_idx][start:stop], torch.arange(start, stop), theta)
            assert error(keys, turned) < 1e-5
            assert error(values, whole.values[layer_idx][start:stop]) < 1e-5
        run = masked_run(
            tiny.model.language_model,
            [*blocks[: step + 2], question],
            contiguous(WIDTH),
            question=True,
        )
        logits = asked(tiny, engine, window, question)
        assert error(logits, run.logits[-len(question) :]) < 1e-5
        start = stop


class TestWrongFormulas:
    """Each plausible mistake is off by far more than the test above allows."""

    @pytest.fixture
    def off_by(self, tiny, make_engine, opened, sinks, frame, question):
        """Return a function: a wrong view of the stream → its error at the last question."""
        engine = make_engine()
        window = opened(engine)
        parts = [frame(idx) for idx in range(STEPS)]
        for part in parts:
            window.add(part)
        logits = asked(tiny, engine, window, question)
        blocks = blocks_of(tiny, sinks, parts)

        def off_by(view, which=slice(None)):
            some = [blocks[0], *blocks[1:][which], question]
            run = masked_run(tiny.model.language_model, some, view, question=True)
            return error(logits, run.logits[-len(question) :])

        return off_by

    def test_the_right_one_is_accepted(self, off_by):
        assert off_by(contiguous(WIDTH)) < 1e-5

    def test_positions_that_do_not_move(self, off_by):
        def view(block, counts):
            first, _, _ = contiguous(WIDTH)(block, counts)
            return first, 0, first

        assert off_by(view) > 1e-3

    def test_a_window_cut_within_a_frame(self, off_by):
        def view(block, counts):
            first, sink, position = contiguous(WIDTH)(block, counts)
            return first + (2 if block > WIDTH else 0), sink, position

        assert off_by(view) > 1e-3

    def test_a_window_of_one_frame_more_or_less(self, off_by):
        assert off_by(contiguous(WIDTH + 1)) > 1e-3
        assert off_by(contiguous(WIDTH - 1)) > 1e-3

    def test_rows_computed_anew_in_place_of_cached_ones(self, off_by):
        assert off_by(contiguous(WIDTH), slice(-WIDTH, None)) > 1e-3

    def test_sinks_far_away(self, off_by):
        def view(block, counts):
            first, _, _ = contiguous(WIDTH)(block, counts)
            return first, -10_000, counts[0]

        assert off_by(view) > 1e-3


@pytest.mark.parametrize("kv_format", ["plain", "int8", "int4"])
def test_ten_thousand_slides_leave_the_sinks_as_a_fresh_write_would(
    tiny, make_engine, opened, sinks, frame, kv_format
):
    """No error adds up: after a far slide each stored code is that of one write at its index."""
    engine = make_engine()
    window = opened(engine, kv_format=kv_format)
    window.add(frame(0))
    far = 10_000 * FRAME_TOKENS
    window.sequence._dropped_tokens += far  # as if so many tokens had come and gone
    for idx in range(1, WIDTH + 2):
        window.add(frame(idx))
    sequence, num_sinks = window.sequence, len(sinks)
    assert sequence.next_idx == num_sinks + far + (WIDTH + 2) * FRAME_TOKENS
    fresh = engine.arena.reserve(num_sinks, kv_format)
    window._sinks.write(engine.arena, fresh.span, far + 2 * FRAME_TOKENS)
    span = sequence.past[0].part(0, num_sinks)
    for layer_idx in range(engine.arena.num_layers):
        mine, other = (engine.arena.stored(layer_idx, each) for each in (span, fresh.span))
        assert torch.equal(mine.k, other.k)
        assert torch.equal(mine.v, other.v)
        if mine.k_scales is not None:
            assert torch.equal(mine.k_scales, other.k_scales)
    engine.arena.release(fresh)


@pytest.mark.parametrize(("kv_format", "most"), [("int8", 2e-3), ("int4", 3e-2)])
def test_a_coarser_cache_is_that_of_the_definition_rounded(
    tiny, make_engine, opened, sinks, frame, question, kv_format, most
):
    """But for codes that the last bit of a float32 decides; a plain cache is ten times as far."""
    engine = make_engine()
    window = opened(engine, kv_format=kv_format)
    parts = [frame(idx) for idx in range(STEPS)]
    for part in parts:
        window.add(part)
    logits = asked(tiny, engine, window, question)
    blocks = [*blocks_of(tiny, sinks, parts), question]

    def off_by(stored_as):
        run = masked_run(
            tiny.model.language_model,
            blocks,
            contiguous(WIDTH),
            question=True,
            kv_format=stored_as,
        )
        return error(logits, run.logits[-len(question) :])

    assert off_by(kv_format) < most < off_by("plain") / 8


def test_memory_is_used_again(make_engine, opened, frame):
    """Of 300 frames no step holds more than the window, in the places of the first slab."""
    check_memory(make_engine(slab_tokens=64), opened, frame, num_steps=300)


@pytest.mark.slow
def test_ten_thousand_frames(tiny, make_engine, opened, frame, sinks, question):
    """Memory stays, and so does the answer: what layers can see of is as long as a few windows."""
    engine = make_engine(slab_tokens=64)
    window, shown = check_memory(engine, opened, frame, num_steps=10_000)
    num_layers = engine.arena.num_layers
    last = shown[-(num_layers * WIDTH + WIDTH) :]
    run = masked_run(
        tiny.model.language_model,
        [*blocks_of(tiny, sinks, last), question],
        contiguous(WIDTH),
        question=True,
    )
    assert error(asked(tiny, engine, window, question), run.logits[-len(question) :]) < 1e-5


def check_memory(engine, opened, frame, num_steps):
    """Show frames; return the window and the frames."""
    window = opened(engine)
    shown = [frame(idx * 7 % 251) for idx in range(WIDTH + 1 + num_steps)]
    arena, most_spans = engine.arena, 0
    for part in shown[: WIDTH + 1]:
        window.add(part)
    held_bytes, used_tokens = arena.held_bytes, arena.used_tokens
    num_slabs = arena._num_slabs_made
    assert used_tokens == window.num_tokens
    for part in shown[WIDTH + 1 :]:
        window.add(part)
        assert (arena.held_bytes, arena.used_tokens) == (held_bytes, used_tokens)
        assert len(arena._owners) <= WIDTH + 1
        most_spans = max(most_spans, len(window.sequence.past))
    assert arena._num_slabs_made == num_slabs
    assert most_spans <= WIDTH + 1
    assert len(arena._shrunk) <= WIDTH + 1
    return window, shown


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
