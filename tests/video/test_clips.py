import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from llava_video.errors import ConfigError, DecodeError
from llava_video.values import VideoInfo
from llava_video.video.clips import Frame, clips_at

INFO = VideoInfo(
    duration_s=10.0,
    num_frames=20,
    frame_rate_hz=2.0,
    height_px=2,
    width_px=3,
    codec="raw",
    container="array",
    pts_s=np.arange(20) / 2,
    tick_s=0.01,
)


class _Reader:
    """Frame i is filled with i; some are lost; notes what it was asked for."""

    def __init__(self, lost: Sequence[int] = ()) -> None:
        self.lost, self.asked, self.num_given = set(lost), [], 0

    def __call__(self, idxs: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        self.asked.append(list(idxs))
        for idx in idxs:
            if idx not in self.lost:
                self.num_given += 1
                yield idx, np.full((2, 3, 3), idx, np.uint8)


@hypothesis.given(
    strategies.lists(strategies.floats(-1, 12), max_size=40),
    strategies.integers(1, 9),
    strategies.sets(strategies.integers(0, 19), max_size=5),
)
def test_whatever_is_asked(times_s: list[float], chunk_frames: int, lost: set[int]) -> None:
    times_s = sorted(times_s)
    # Two frames a second: the frame shown at t is floor(2 t), within half a tick.
    wanted = [int(np.clip(np.floor((t + 0.005) * 2), 0, 19)) for t in times_s]
    expected = [idx for idx in wanted if idx not in lost]
    reader = _Reader(sorted(lost))
    clips = clips_at(INFO, times_s, reader, chunk_frames=chunk_frames)
    if wanted and not expected:
        with pytest.raises(DecodeError):
            list(clips)
        return
    given = list(clips)
    assert [idx for clip in given for idx in clip.frame_idxs.tolist()] == expected
    assert [f[0, 0, 0] for clip in given for f in clip.frames] == expected
    assert [t for clip in given for t in clip.pts_s.tolist()] == [idx / 2 for idx in expected]
    assert [len(clip.frames) for clip in given[:-1]] == [chunk_frames] * (len(given) - 1)
    assert all(1 <= len(clip.frames) <= chunk_frames for clip in given)
    # Each distinct frame is asked for once, in one pass.
    assert reader.asked == ([sorted(set(wanted))] if wanted else [])


def test_frames_are_pulled_as_they_are_used() -> None:
    reader = _Reader()
    clips = clips_at(INFO, np.arange(20) / 2, reader, chunk_frames=4)
    assert reader.num_given == 0
    next(clips)
    assert reader.num_given == 4


def test_a_clip_is_not_overwritten_by_the_next() -> None:
    clips = clips_at(INFO, [0.0, 0.5, 1.0], _Reader(), chunk_frames=1)
    first = next(clips)
    next(clips)
    assert (first.frames == 0).all()


def test_lost_frames_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        list(clips_at(INFO, [0.0, 0.5, 1.0], _Reader([1]), chunk_frames=2))
    assert "1 of 3 frames cannot be decoded, the first at 0.50 s" in caplog.text


def test_nothing_decodes() -> None:
    with pytest.raises(
        DecodeError, match=r"none of the 2 frames.*from 1\.50 s.*another span"
    ) as caught:
        list(clips_at(INFO, [1.5, 2.0], _Reader([3, 4]), chunk_frames=2))
    assert caught.value.pts_s == 1.5


@pytest.mark.parametrize("times_s", [[1, 0], [0, float("nan")], [float("inf")], [[0, 1]]])
def test_times_are_checked_before_anything_is_decoded(times_s: list[float]) -> None:
    with pytest.raises(ConfigError, match="ascending"):
        clips_at(INFO, times_s, _Reader(), chunk_frames=2)


def test_large_frames_come_one_by_one_and_uncopied() -> None:
    # 8 MiB hold no two frames of 1500 x 1000 px, 4.3 MiB each.
    pixels = np.zeros((1000, 1500, 3), np.uint8)
    info = replace(INFO, height_px=1000, width_px=1500)
    clips = list(
        clips_at(info, [0.0, 0.5], lambda idxs: ((i, pixels) for i in idxs), chunk_frames=8)
    )
    assert [len(clip.frames) for clip in clips] == [1, 1]
    assert all(np.shares_memory(clip.frames, pixels) for clip in clips)
    turned = next(clips_at(info, [0.0], lambda _: iter([(0, np.rot90(pixels))]), chunk_frames=1))
    assert turned.frames.flags.c_contiguous


def test_chunks_hold_a_frame() -> None:
    with pytest.raises(ConfigError, match="chunk_frames"):
        clips_at(INFO, [0.0], _Reader(), chunk_frames=0)
