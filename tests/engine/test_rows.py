import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_video.engine.request import TextPart
from llava_video.engine.rows import PromptRows
from llava_video.errors import ConfigError, DecodeError


@pytest.fixture
def parts(video):
    """Text, a video of three frames, text, a video of one frame, text: 4 + 18 + 2 + 6 + 1 rows."""
    first, second, last = TextPart((10, 11, 12, 13)), TextPart((14, 15)), TextPart((16,))
    return [first, video([1, 2, 3]), second, video([7]), last]


def all_rows(model, parts):
    """Build the prompt at once."""
    pieces = []
    for part in parts:
        if isinstance(part, TextPart):
            pieces.append(model.language_model.embed(torch.tensor(part.ids)))
        else:
            pieces += list(model.visual_rows(part.plan, part.clips(), 4))
    return torch.cat(pieces)


@torch.inference_mode()
def test_rows_do_not_depend_on_how_they_are_taken(tiny, parts):
    expected = all_rows(tiny.model, parts)
    assert len(expected) == 31

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.integers(1, 31), min_size=1, max_size=31))
    def check(sizes):
        rows = PromptRows(tiny.model, parts, tile_chunk=1)
        taken = []
        for size in [*sizes, 31]:
            size = min(size, rows.num_left)
            if size:
                taken.append(rows.take(size))
                assert len(taken[-1]) == size
        assert rows.num_left == 0
        assert rows.frames_done == rows.num_frames == 4
        torch.testing.assert_close(torch.cat(taken), expected, rtol=0, atol=1e-5)

    check()


@torch.inference_mode()
def test_frames_are_pulled_only_when_their_rows_are_asked_for(tiny, video):
    part = video(range(20), chunk_frames=1)
    rows = PromptRows(tiny.model, [TextPart((1, 2)), part, TextPart((3,))], tile_chunk=1)
    rows.take(2)
    assert part.clips.opened == 0
    for num_frames in (1, 2, 3):
        rows.take(6)
        # The frame asked for, and no other but one on its way through the stages.
        assert num_frames <= part.clips.given <= num_frames + 1
    assert rows.vision_s > 0
    rows.close()
    assert part.clips.closed == 1
    assert part.clips.given < 6


@torch.inference_mode()
def test_what_is_held_does_not_grow_with_the_video(tiny, video):
    part = video(range(200), chunk_frames=4)
    rows = PromptRows(tiny.model, [part], tile_chunk=2)
    held = []
    while rows.num_left:
        rows.take(min(7, rows.num_left))
        held.append(sum(len(piece) for piece in rows._ready))
    assert max(held) <= 6  # the rest of one frame's rows


@torch.inference_mode()
@pytest.mark.parametrize("planned", [11, 13])
def test_more_or_fewer_rows_than_planned_is_an_error(tiny, video, planned):
    part = video([1, 2], plan={"num_tokens": planned})
    rows = PromptRows(tiny.model, [part, TextPart((1,))], tile_chunk=1)
    with pytest.raises(ConfigError, match="planned"):
        rows.take(rows.num_left)
    assert part.clips.closed == 1


@torch.inference_mode()
def test_rows_too_many_at_the_end_of_the_prompt_are_noticed(tiny, video):
    # The first of two frames makes all the rows planned: nothing would ask for the second.
    part = video([1, 2], plan={"num_tokens": 6})
    rows = PromptRows(tiny.model, [part], tile_chunk=1)
    with pytest.raises(ConfigError, match="planned"):
        rows.take(6)
    assert part.clips.closed == 1


@torch.inference_mode()
def test_missing_frames_are_an_error(tiny, video):
    part = video([1, 2])
    part.clips.idxs.pop()
    with pytest.raises(DecodeError, match="frames were planned"):
        PromptRows(tiny.model, [part], tile_chunk=1).take(12)


@torch.inference_mode()
def test_long_texts_are_embedded_in_pieces(tiny):
    ids = tuple(i % 250 for i in range(1300))
    rows = PromptRows(tiny.model, [TextPart(ids)], tile_chunk=1)
    first = rows.take(10)
    assert sum(len(piece) for piece in rows._ready) <= 512
    rest = rows.take(1290)
    expected = tiny.model.language_model.embed(torch.tensor(ids))
    torch.testing.assert_close(torch.cat([first, rest]), expected, rtol=0, atol=0)
