import dataclasses

import numpy as np
import pytest
import torch
from seeded_models import DIMENSIONS, clips_of, filled, noise_frames, video_plan

from llava_video.errors import ConfigError
from llava_video.model.encoded_frames import EncodedFrames, frame_key
from llava_video.model.llava import LlavaModel
from llava_video.values import Clip, Newline

ROWS = 4 * 5  # 4 x 4 patches and a newline per row
ROW_BYTES = DIMENSIONS.text.hidden_size * 4


@pytest.fixture(scope="module")
def model():
    return filled(LlavaModel(DIMENSIONS))


@pytest.fixture
def tiles_seen(model, monkeypatch):
    """Return a list that takes the number of tiles of every call of the tower."""
    seen = []
    tower = model.vision_tower.forward
    monkeypatch.setattr(
        model.vision_tower, "forward", lambda tiles: seen.append(len(tiles)) or tower(tiles)
    )
    return seen


def rows_of(model, frames, *, encoded=None, chunk=1, **changes):
    plan = video_plan(len(frames), ROWS * len(frames))
    plan = dataclasses.replace(plan, **changes)
    return torch.cat(list(model.visual_rows(plan, clips_of(frames), chunk, encoded=encoded)))


def test_known_frames_pass_no_tower_and_give_their_rows(model, tiles_seen):
    frames, store = noise_frames(6), EncodedFrames(10**9)
    expected = rows_of(model, frames)
    tiles_seen.clear()
    for start in range(3):  # windows of four frames
        part = rows_of(model, frames[start : start + 4], encoded=store)
        assert torch.equal(part, expected[ROWS * start : ROWS * (start + 4)])
    assert tiles_seen == [1] * 6
    assert (store.num_hits, store.num_misses, len(store)) == (6, 6, 6)
    assert store.held_bytes == 6 * ROWS * ROW_BYTES
    assert store.reused_share == 0.5


@pytest.mark.parametrize("chunk", [2, 3, 5])
def test_order_holds_where_calls_mix_known_and_new_frames(model, tiles_seen, chunk):
    frames, store = noise_frames(5), EncodedFrames(10**9)
    rows_of(model, frames[1:4:2], encoded=store, chunk=chunk)
    tiles_seen.clear()
    order = [0, 1, 2, 3, 4, 2, 2, 0]
    mine = rows_of(model, frames[order], encoded=store, chunk=chunk)
    assert torch.allclose(mine, rows_of(model, frames[order]), rtol=0, atol=1e-5)
    assert sum(tiles_seen[: -len(order)]) == 3


def test_one_pixel_is_another_frame(model, tiles_seen):
    frames, store = noise_frames(1), EncodedFrames(10**9)
    rows_of(model, frames, encoded=store)
    other = frames.copy()
    other[0, 13, 7, 2] ^= 1
    tiles_seen.clear()
    assert torch.equal(rows_of(model, other, encoded=store), rows_of(model, other))
    assert tiles_seen == [1, 1]


def test_the_key_names_pixels_size_and_layout():
    frames = noise_frames(1, 40, 60)
    plan = video_plan(3, 3 * ROWS)

    def key(picture, plan=plan, frame_idx=0):
        return frame_key(Clip(picture, np.zeros(1), np.zeros(1, np.int64)), plan, frame_idx)

    clip_end = dataclasses.replace(plan, newline=Newline.CLIP)
    slow = dataclasses.replace(plan, slow_every=2, fast_side=2)
    keys = [
        key(frames),
        key(frames.reshape(1, 60, 40, 3)),
        key(frames, dataclasses.replace(plan, pool_mode="average")),
        key(frames, dataclasses.replace(plan, fit="letterbox")),
        key(frames, dataclasses.replace(plan, pool_of="features")),
        key(frames, clip_end, 1),
        key(frames, clip_end, 2),
        key(frames, slow, 0),
        key(frames, slow, 1),
    ]
    assert len(set(keys)) == len(keys)
    # Not when it was shown, nor where its pixels stand in memory.
    moved = dataclasses.replace(plan, times_s=(7.0, 8.0, 9.0), source="other")
    assert key(np.asfortranarray(frames), moved, 1) == keys[0]


def test_bytes_are_bounded_and_the_least_used_goes_first(model, tiles_seen):
    frames, store = noise_frames(4), EncodedFrames(2 * ROWS * ROW_BYTES + 1)
    for idx in (0, 1, 0, 2):  # 1 leaves
        rows_of(model, frames[idx : idx + 1], encoded=store)
    tiles_seen.clear()
    rows_of(model, frames[[0]], encoded=store)
    rows_of(model, frames[[2]], encoded=store)
    assert not tiles_seen
    rows_of(model, frames[[1]], encoded=store)
    assert tiles_seen == [1]
    assert (len(store), store.held_bytes) == (2, 2 * ROWS * ROW_BYTES)
    store.clear()
    assert (len(store), store.held_bytes) == (0, 0)


def test_a_frame_larger_than_the_store_is_not_kept(model):
    frames, store = noise_frames(2), EncodedFrames(ROWS * ROW_BYTES - 1)
    expected = rows_of(model, frames)
    assert torch.equal(rows_of(model, frames, encoded=store), expected)
    assert (len(store), store.held_bytes, store.num_misses) == (0, 0, 2)


def test_what_is_kept_holds_no_memory_of_others(model):
    frames, store = noise_frames(4), EncodedFrames(10**9)
    rows_of(model, frames, encoded=store, chunk=4)
    assert all(rows.untyped_storage().nbytes() == rows.nbytes for rows in store._rows.values())


def test_a_failed_call_counts_nothing():
    store = EncodedFrames(100)

    def fail(places):
        raise MemoryError

    with pytest.raises(MemoryError):
        store.rows_of([b"a", b"b"], fail)
    assert (store.num_hits, store.num_misses, len(store), store.reused_share) == (0, 0, 0, 0.0)


def test_a_store_of_nothing():
    with pytest.raises(ConfigError, match="at least 1"):
        EncodedFrames(0)
