from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_video.engine.request import TextPart, VisualPart
from llava_video.engine.rows import PromptRows, parts_after
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


class TestFused:
    """A prompt that is fused with its frames: none of it before the last of them."""

    @torch.inference_mode()
    def test_frames_go_in_a_call_at_a_time(self, mini, fused):
        part = fused("ab", [1, 2, 3, 4, 5], "c", chunk_frames=1)
        rows = PromptRows(mini, [part], tile_chunk=2)
        assert (rows.num_left, rows.num_frames, rows.is_fusing) == (2 + 20 + 1, 5, True)
        assert part.visual.clips.opened == 0
        done = []
        while rows.is_fusing:
            rows.fuse()
            done.append((rows.frames_done, part.visual.clips.given, len(rows._ready)))
        assert done == [(2, 2, 0), (4, 4, 0), (5, 5, 1)]
        assert part.visual.clips.closed == 1
        assert rows.vision_s > 0
        pieces = [rows.take(2), rows.take(13), rows.take(8)]
        assert rows.num_left == 0
        prompt = mini.fused_prompt((97, 98, -1, 99), 5)
        list(mini.fuse(prompt, part.visual.plan, part.visual.clips(), 64))
        torch.testing.assert_close(torch.cat(pieces), prompt.rows(), rtol=1e-5, atol=1e-5)

    @torch.inference_mode()
    def test_taking_fuses_first(self, mini, fused):
        one, other = (PromptRows(mini, [fused("a", [4, 7], "b")], tile_chunk=1) for _ in range(2))
        while one.is_fusing:
            one.fuse()
        assert torch.equal(one.take(10), other.take(10))

    @torch.inference_mode()
    def test_closing_halfway_stops_the_frames(self, mini, fused):
        part = fused("a", range(20), "b", chunk_frames=1)
        rows = PromptRows(mini, [part], tile_chunk=2)
        rows.fuse()
        rows.close()
        assert (part.visual.clips.given, part.visual.clips.closed) == (2, 1)

    @torch.inference_mode()
    def test_a_wrong_plan_and_missing_frames_are_errors(self, mini, fused):
        part = fused("a", [1, 2], "b", plan={"num_tokens": 9})
        with pytest.raises(ConfigError, match="9 visual tokens were planned, 8 are made"):
            PromptRows(mini, [part], tile_chunk=1).take(1)
        part = fused("a", [1, 2], "b")
        part.visual.clips.idxs.pop()
        with pytest.raises(DecodeError, match="frames were planned"):
            PromptRows(mini, [part], tile_chunk=1).take(1)
        assert part.visual.clips.closed == 1


def test_parts_without_their_first_elements(video, fused):
    """A visual is one element, whatever its tokens, and is never cut."""
    shown, text, more = video([1, 2]), TextPart((1, 2, 3)), TextPart((4, 5))
    parts = [text, shown, more]
    assert parts_after(parts, 0) == parts
    assert parts_after(parts, 2) == [TextPart((3,)), shown, more]
    assert parts_after(parts, 3) == [TextPart(()), shown, more]
    assert parts_after(parts, 5) == [TextPart(()), TextPart((5,))]
    whole = fused("ab", [1], "c")
    assert parts_after([whole], 0) == [whole]


def test_rows_come_to_where_the_language_model_begins():
    """The tower may stand elsewhere."""
    device = torch.device("meta")
    model = SimpleNamespace(
        device=device,
        language_model=SimpleNamespace(embed=lambda ids: torch.zeros(len(ids), 4, device=device)),
        visual_rows=lambda plan, clips, tile_chunk: iter([torch.zeros(6, 4)]),
    )
    plan = SimpleNamespace(num_tokens=6, num_frames=1)
    shown = VisualPart(plan=plan, clips=lambda: iter(()), key="")
    rows = PromptRows(model, [TextPart((1, 2)), shown], 2).take(8)
    assert (rows.shape, rows.device) == ((8, 4), device)
