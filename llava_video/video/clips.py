"""Frames one by one, as a reader gives them → clips of bounded size, in the order asked for.

What every reader shares: times to frame indices, repeats, and what to do about frames that a
damaged file does not give. Knows no reader.
"""

import logging
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from llava_video.errors import ConfigError, DecodeError
from llava_video.values import Clip, VideoInfo

_log = logging.getLogger(__name__)

Frame = npt.NDArray[np.uint8]
# Ascending distinct frame indices in, (index, upright frame) out, in the same order; frames that
# cannot be decoded are left out.
FramesOf = Callable[[Sequence[int]], Iterator[tuple[int, Frame]]]


def clips_at(
    info: VideoInfo, times_s: Sequence[float], frames_of: FramesOf, *, chunk_frames: int
) -> Iterator[Clip]:
    """Yield the frames shown at these times, at most `chunk_frames` in a clip.

    Args:
        info: the video's times and size.
        times_s: seconds from the first frame, ascending; equal ones repeat the frame.
        frames_of: the reader.
        chunk_frames: frames held at once, repeats included; >= 1.

    Raises:
        ConfigError: times that are not finite and ascending, or chunk_frames < 1; at once.
        DecodeError: not one of the frames can be decoded; while iterating.
    """
    times = checked_times(times_s, chunk_frames)
    return _clips(info, info.frame_idxs_at(times), frames_of, chunk_frames)


def checked_times(times_s: Sequence[float], chunk_frames: int) -> npt.NDArray[np.float64]:
    """Return the times as an array.

    Raises:
        ConfigError: they are not finite and ascending, or chunk_frames < 1.
    """
    times = np.asarray(times_s, dtype=np.float64)
    if times.ndim != 1 or not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise ConfigError("the times to decode are not finite and ascending.", "sort them.")
    if chunk_frames < 1:
        raise ConfigError(f"chunk_frames = {chunk_frames}.", "at least 1.")
    return times


def _clips(
    info: VideoInfo, frame_idxs: npt.NDArray[np.int64], frames_of: FramesOf, chunk_frames: int
) -> Iterator[Clip]:
    distinct, repeats = np.unique(frame_idxs, return_counts=True)
    if not len(distinct):
        return
    num_repeats = dict(zip(distinct.tolist(), repeats.tolist(), strict=True))
    given: set[int] = set()
    chunk: Frame | None = None
    chunk_idxs: list[int] = []
    for idx, frame in frames_of(distinct.tolist()):
        given.add(idx)
        for _ in range(num_repeats[idx]):
            if chunk is None:  # a new one each time: the last clip may still be in use
                chunk = np.empty((chunk_frames, *frame.shape), dtype=np.uint8)
            chunk[len(chunk_idxs)] = frame
            chunk_idxs.append(idx)
            if len(chunk_idxs) == chunk_frames:
                yield _clip(info, chunk, chunk_idxs)
                chunk, chunk_idxs = None, []
    if chunk is not None:
        yield _clip(info, chunk[: len(chunk_idxs)], chunk_idxs)
    _report_lost(info, [idx for idx in distinct.tolist() if idx not in given], len(distinct))


def _clip(info: VideoInfo, frames: Frame, idxs: list[int]) -> Clip:
    frame_idxs = np.array(idxs, dtype=np.int64)
    return Clip(frames=frames, pts_s=info.pts_s[frame_idxs], frame_idxs=frame_idxs)


def _report_lost(info: VideoInfo, lost: list[int], num_asked: int) -> None:
    if not lost:
        return
    first_s = float(info.pts_s[lost[0]])
    if len(lost) == num_asked:
        raise DecodeError(
            f"none of the {num_asked} frames asked for can be decoded, from {first_s:.2f} s on: "
            "the data is damaged.",
            "check that the file plays there, or choose another span.",
            pts_s=first_s,
        )
    _log.warning(
        "%d of %d frames cannot be decoded, the first at %.2f s", len(lost), num_asked, first_s
    )
