import pytest
import torch
from windowed_attention import asked, blocks_of, contiguous, error, masked_run, rotated

WIDTH = 3
STEPS = 11
FRAME_TOKENS = 6


def stored(engine, sequence, num_tokens, layer_idx):
    """Return the last keys and values of a sequence, float64."""
    parts = [engine.arena.stored(layer_idx, span).plain(torch.float64) for span in sequence.past]
    return (torch.cat(each)[-num_tokens:] for each in zip(*parts, strict=True))


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
def test_three_thousand_frames(tiny, make_engine, opened, frame, sinks, question):
    """Memory stays, and so does the answer: what layers can see of is as long as a few windows."""
    engine = make_engine(slab_tokens=64)
    window, shown = check_memory(engine, opened, frame, num_steps=3_000)
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
