"""Kept rows: the same rows as without, encoded once, in bounded memory."""

import dataclasses

import numpy as np
import pytest
import torch
from seeded_models import DIMENSIONS, GRID, clips_of, filled, noise_frames, video_plan

from llava_video.errors import ConfigError
from llava_video.model.kept_rows import KeptRows, frame_key
from llava_video.model.llava import LlavaModel
from llava_video.values import Clip, Newline

# Tokens of six frames.
LAYOUTS = [
    ({}, 6 * 20),
    ({"newline": Newline.CLIP}, 6 * 16 + 1),
    (GRID, 6 * 44),
]


@pytest.fixture(scope="module")
def model() -> LlavaModel:
    return filled(LlavaModel(DIMENSIONS))


def still_frames() -> np.ndarray:
    """Six frames: the first one four times, with others between."""
    frames = noise_frames(3)
    return frames[[0, 0, 1, 0, 2, 0]]


@pytest.mark.parametrize(("layout", "num_tokens"), LAYOUTS)
@pytest.mark.parametrize("tile_chunk", [1, 2, 64])
def test_rows_are_the_same_and_each_picture_is_encoded_once(
    model: LlavaModel, layout: dict[str, object], num_tokens: int, tile_chunk: int
) -> None:
    plan, frames, kept = video_plan(6, num_tokens, **layout), still_frames(), KeptRows(2**30)
    expected = list(model.visual_rows(plan, clips_of(frames, 4), tile_chunk))
    for turn in range(2):
        found = list(model.visual_rows(plan, clips_of(frames, 4), tile_chunk, kept))
        assert [len(rows) for rows in found] == [len(rows) for rows in expected]
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
            with torch.inference_mode():
                one.zero_()  # the reader's own
        # With a newline after the clip, the last frame is laid out unlike the others.
        num_kinds = 4 if layout.get("newline") is Newline.CLIP else 3
        assert (kept.num_made, kept.num_found) == (num_kinds, 6 * (turn + 1) - num_kinds)


def test_the_tower_sees_no_kept_frame(model: LlavaModel, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    tower = model.vision_tower.forward

    def forward(tiles: torch.Tensor) -> torch.Tensor:
        seen.append(len(tiles))
        return tower(tiles)

    monkeypatch.setattr(model.vision_tower, "forward", forward)
    plan, kept = video_plan(6, 120), KeptRows(2**30)
    list(model.visual_rows(plan, clips_of(still_frames(), 6), 8, kept))
    assert seen == [3]
    list(model.visual_rows(plan, clips_of(still_frames(), 6), 8, kept))
    assert seen == [3]


def test_one_level_of_one_pixel_is_another_picture() -> None:
    frames = noise_frames(1)
    plan = video_plan(2, 40)

    def key(pixels: np.ndarray, idx: int = 0, **changes: object) -> object:
        clip = Clip(pixels, np.zeros(1), np.zeros(1, dtype=np.int64))
        return frame_key(clip, dataclasses.replace(plan, **changes), idx)

    other = frames.copy()
    other[0, -1, -1, -1] ^= 1
    turned = frames.transpose(0, 2, 1, 3)
    # Not when it was shown, nor where its pixels stand in memory, nor whether it moves.
    moved = {"times_s": (5.0, 6.0), "source": "other", "kind": "image"}
    assert key(frames) == key(np.asfortranarray(frames), idx=1, **moved)
    different = [
        key(frames),
        key(other),
        key(turned),
        key(frames.reshape(turned.shape)),
        key(frames, pool_mode="average"),
        key(frames, fit="letterbox"),
        key(frames, pool_stride=plan.pool_stride + 1),
        key(frames, pool_of="features"),
        key(frames, newline=Newline.NONE),
        key(frames, idx=1, newline=Newline.CLIP),
        key(frames, idx=0, newline=Newline.CLIP, slow_every=2, fast_side=2),
        key(frames, idx=1, newline=Newline.CLIP, slow_every=2, fast_side=2),
    ]
    assert len(set(different)) == len(different)


def test_bytes_are_bounded_and_the_unused_go_first() -> None:
    kept = KeptRows(3 * 40)
    rows = {name: torch.full((10,), float(idx)) for idx, name in enumerate("abcd")}
    for name in "abc":
        kept.keep(name, rows[name])
    assert kept.find("a") is rows["a"]
    kept.keep("d", rows["d"])
    assert [kept.find(name) is not None for name in "abcd"] == [True, False, True, True]
    assert (kept.held_bytes, len(kept)) == (120, 3)
    kept.keep("large", torch.zeros(100))
    assert kept.find("large") is None
    kept.keep("a", torch.zeros(10))  # there already
    assert kept.held_bytes == 120
    kept.clear()
    assert (kept.held_bytes, len(kept)) == (0, 0)


def test_no_room_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        KeptRows(0)


def test_overlapping_windows_give_the_very_rows_that_were_made(model: LlavaModel) -> None:
    frames, kept = noise_frames(6), KeptRows(2**30)
    assert kept.reused_share == 0
    made = torch.cat(list(model.visual_rows(video_plan(6, 120), clips_of(frames), 1)))
    for start in range(3):  # windows of four frames
        clips = clips_of(frames[start : start + 4])
        rows = torch.cat(list(model.visual_rows(video_plan(4, 80), clips, 1, kept)))
        assert torch.equal(rows, made[20 * start : 20 * (start + 4)])
    assert (kept.num_found, kept.num_made, len(kept), kept.reused_share) == (6, 6, 6, 0.5)
    assert kept.held_bytes == made.nbytes


def test_what_is_kept_holds_no_memory_of_others(model: LlavaModel) -> None:
    kept = KeptRows(2**30)
    list(model.visual_rows(video_plan(4, 80), clips_of(noise_frames(4), 4), 4, kept))
    assert len(kept) == 4
    assert all(rows.untyped_storage().nbytes() == rows.nbytes for rows in kept._rows.values())


def test_what_was_made_is_kept_by_whoever_reads_no_further(model: LlavaModel) -> None:
    plan, frames, kept = video_plan(4, 80), noise_frames(4), KeptRows(2**30)
    rows = model.visual_rows(plan, clips_of(frames, 4), 4, kept)
    next(rows)
    rows.close()
    assert len(kept) == 4


def test_a_failed_call_counts_and_keeps_nothing(
    model: LlavaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(tiles: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("the tower fell")

    kept = KeptRows(2**30)
    monkeypatch.setattr(model.vision_tower, "forward", forward)
    with pytest.raises(RuntimeError, match="the tower fell"):
        list(model.visual_rows(video_plan(4, 80), clips_of(noise_frames(4), 4), 4, kept))
    assert (kept.num_found, kept.num_made, len(kept)) == (0, 0, 0)


def test_a_cache_too_small_for_one_frame_changes_nothing(model: LlavaModel) -> None:
    plan, kept = video_plan(6, 120), KeptRows(1)
    expected = torch.cat(list(model.visual_rows(plan, clips_of(still_frames(), 6), 2)))
    found = torch.cat(list(model.visual_rows(plan, clips_of(still_frames(), 6), 2, kept)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert len(kept) == 0


def test_what_waits_is_bounded(model: LlavaModel) -> None:
    plan, kept, taken = video_plan(200, 4000), KeptRows(2**30), 0
    frames = noise_frames(1)[[0] * 200]

    def watched():
        nonlocal taken
        for clip in clips_of(frames, 1):
            taken += 1
            yield clip

    rows = model.visual_rows(plan, watched(), 8, kept)
    next(rows)
    assert taken <= 64
    assert 1 + sum(1 for _ in rows) == 200
    assert kept.num_made == 1
