"""What a scan measures: by hand, against wrong measures, and in bounded memory."""

import tracemalloc
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_video.values import Clip
from llava_video.video.scan import (
    block_change,
    scan_changes,
    scan_cuts,
    thumbnail,
    thumbnail_change,
)

GREY = np.full((90, 160, 3), 100, np.uint8)


class Frames:
    """A decoder of frames in memory, one a second; `lost` ones are left out, as damage is."""

    def __init__(self, frames: Sequence[Any], lost: Sequence[int] = ()) -> None:
        height_px, width_px = np.asarray(frames[0]).shape[:2]
        self.info = SimpleNamespace(height_px=height_px, width_px=width_px)
        self.frames, self.lost, self.asked, self.chunks = frames, lost, [], []

    def clips_at(self, times_s: Sequence[float], *, chunk_frames: int = 8) -> Iterator[Clip]:
        self.asked.append(list(times_s))
        self.chunks.append(chunk_frames)
        idxs = np.array([int(t) for t in times_s if int(t) not in self.lost])
        for at in range(0, len(idxs), chunk_frames):
            part = idxs[at : at + chunk_frames]
            yield Clip(np.stack([self.frames[i] for i in part]), part.astype(float), part)


def square(at_px: tuple[int, int], side_px: int, contrast: int) -> np.ndarray:
    frame = GREY.copy()
    frame[at_px[0] : at_px[0] + side_px, at_px[1] : at_px[1] + side_px] += np.uint8(contrast)
    return frame


def test_a_thumbnail_has_the_luma_of_its_part() -> None:
    frame = np.zeros((180, 320, 3), np.uint8)
    frame[:, 160:] = (200, 100, 50)
    cells = thumbnail(frame)
    assert cells.shape == (18, 32)
    assert cells[:, :16] == pytest.approx(0)
    # 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    assert cells[:, 16:] == pytest.approx(124.2, abs=0.01)


@pytest.mark.parametrize("size_px", [(1, 1), (7, 11), (2160, 3), (97, 1001)])
def test_a_thumbnail_of_any_size(size_px: tuple[int, int]) -> None:
    frame = np.full((*size_px, 3), 77, np.uint8)
    assert thumbnail(frame) == pytest.approx(77, abs=0.01)


def test_noise_hardly_changes_a_thumbnail_and_a_cut_does() -> None:
    rng = np.random.default_rng(3)
    noisy = [np.clip(GREY + rng.normal(0, 8, GREY.shape), 0, 255).astype(np.uint8) for _ in "12"]
    big = [frame.repeat(8, 0).repeat(8, 1) for frame in (GREY, GREY)]
    assert thumbnail_change(thumbnail(big[0]), thumbnail(big[1])) == 0
    # 64 samples of a luma noise of 8 * 0.668: 0.67 levels a cell, times sqrt(2) * 0.8 for two.
    assert thumbnail_change(thumbnail(noisy[0]), thumbnail(noisy[1])) < 1.5
    assert thumbnail_change(thumbnail(GREY), thumbnail(GREY + 60)) == pytest.approx(60, abs=0.01)


def test_the_largest_block_by_hand() -> None:
    assert block_change(GREY, GREY) == 0
    # A whole block is covered from side 15 on, wherever the square lies.
    for offset in range(8):
        assert block_change(GREY, square((16 + offset, 24 + offset), 15, 11)) == 11
        assert block_change(GREY, square((16 + offset, 24 + offset), 8, 44)) >= 11
    assert block_change(GREY, square((20, 28), 8, 44)) == 11  # a quarter of each of four blocks


def test_a_mean_over_the_frame_would_hide_it() -> None:
    moved = square((16, 24), 15, 60)
    assert block_change(GREY, moved) == 60
    assert np.abs(moved.astype(int) - GREY).mean() < 1


def test_a_difference_of_block_means_would_hide_what_moves_within_a_block() -> None:
    one, other = square((16, 24), 4, 100), square((20, 28), 4, 100)
    assert block_change(one, other) == 2 * 16 * 100 / 64
    assert one[16:24, 24:32].mean() == other[16:24, 24:32].mean()


def test_a_change_of_colour_alone_is_seen() -> None:
    red, green = GREY.copy(), GREY.copy()
    red[16:24, 24:32], green[16:24, 24:32] = (200, 100, 50), (50, 176, 52)
    assert abs(thumbnail(red) - thumbnail(green)).max() < 1  # of the same luma
    assert block_change(red, green) == 150


@settings(max_examples=100)
@given(
    size_px=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 2**32 - 1),
    levels=st.sampled_from([1, 30, 256]),
)
def test_blocks_by_their_definition(size_px, seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = (rng.integers(0, levels, (*size_px, 3), dtype=np.uint8) for _ in "12")
    height_px, width_px = size_px
    means = [
        np.abs(one[y : y + 8, x : x + 8].astype(int) - other[y : y + 8, x : x + 8]).mean((0, 1))
        for y in range(0, height_px, 8)
        for x in range(0, width_px, 8)
    ]
    assert block_change(one, other) == pytest.approx(np.max(means))
    assert block_change(one, other) == block_change(other, one)


def test_cuts_are_measured_from_look_to_look() -> None:
    frames = [GREY, GREY, GREY + 50, GREY + 50, GREY]
    scan = scan_cuts(Frames(frames), [0.0, 1.0, 2.0, 4.0])
    assert scan.frame_idxs.tolist() == [0, 1, 2, 4]
    assert scan.changes == pytest.approx([np.inf, 0, 50, 50], abs=0.01)
    assert scan.num_asked == 4


def test_changes_are_measured_from_the_last_new_frame() -> None:
    """Each is 4 levels from the one before: the third is 12 from the first, and new."""
    frames = [GREY + np.uint8(4 * i) for i in range(7)]
    scan = scan_changes(Frames(frames), [float(i) for i in range(7)], threshold=10.0)
    assert scan.changes.tolist() == [np.inf, 4, 8, 12, 4, 8, 12]
    from_the_one_before = [4.0] * 6  # would drop all of them
    assert max(from_the_one_before) < 10


def test_a_change_of_the_threshold_itself_is_none() -> None:
    frames = [GREY, GREY + 10, GREY + 11]
    scan = scan_changes(Frames(frames), [0.0, 1.0, 2.0], threshold=10.0)
    assert scan.changes.tolist() == [np.inf, 10, 11]
    assert scan_changes(Frames(frames), [0.0, 1.0, 2.0], threshold=0.0).changes.tolist() == [
        np.inf,
        10,
        1,
    ]


def test_lost_frames_are_left_out_and_counted() -> None:
    frames = [GREY, GREY + 90, GREY, GREY + 20]
    for scan in (
        scan_cuts(Frames(frames, lost=[1]), [0.0, 1.0, 2.0, 3.0]),
        scan_changes(Frames(frames, lost=[1]), [0.0, 1.0, 2.0, 3.0], threshold=1.0),
    ):
        assert scan.frame_idxs.tolist() == [0, 2, 3]
        assert scan.num_asked == 4
        assert scan.changes == pytest.approx([np.inf, 0, 20], abs=0.01)


def test_frames_are_seen_once_in_small_pieces() -> None:
    frames = Frames([GREY] * 20)
    scan_cuts(frames, [float(i) for i in range(20)])
    assert frames.asked == [[float(i) for i in range(20)]]
    assert frames.chunks == [8]


def test_one_clip_and_one_frame_are_held() -> None:
    frame_bytes = 720 * 1280 * 3
    levels = np.random.default_rng(0).permutation(np.arange(120, dtype=np.uint8) * 2)

    def clip_of(idxs: list[int]) -> Clip:
        frames = np.empty((len(idxs), 720, 1280, 3), np.uint8)
        frames[:] = levels[idxs, None, None, None]
        return Clip(frames, np.array(idxs, dtype=float), np.array(idxs))

    class Made(Frames):
        def clips_at(self, times_s: Sequence[float], *, chunk_frames: int = 8) -> Iterator[Clip]:
            for at in range(0, len(times_s), 8):
                yield clip_of([int(t) for t in times_s[at : at + 8]])

    for num_frames in (8, 120):
        tracemalloc.start()
        times_s = [float(i) for i in range(num_frames)]
        scan_changes(Made([GREY]), times_s, threshold=1.0)
        peak_frames = tracemalloc.get_traced_memory()[1] / frame_bytes
        tracemalloc.stop()
        # Eight of the clip, the one kept, and three while two are compared.
        assert peak_frames < 13, num_frames
