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
# A 1080p frame then is a clip of its own, as the reader gave it: gathering eight of them costs a
# copy each and, since blocks of more than 32 MiB come from the system page by page, 2 ms a frame.
_MOST_CLIP_BYTES = 8 * 2**20
# Ascending distinct frame indices in, (index, upright frame) out, in the same order; frames that
# cannot be decoded are left out.
FramesOf = Callable[[Sequence[int]], Iterator[tuple[int, Frame]]]


def clips_at(
    info: VideoInfo,
    times_s: Sequence[float],
    frames_of: FramesOf,
    *,
    chunk_frames: int,
    name: str = "the video",
) -> Iterator[Clip]:
    """Yield the frames shown at these times, at most `chunk_frames` in a clip and few large ones.

    Args:
        info: the video's times and size.
        times_s: seconds from the first frame, ascending; equal ones repeat the frame.
        frames_of: the reader.
        chunk_frames: frames held at once, repeats included; >= 1.
        name: of the video, for people.

    Raises:
        ConfigError: times that are not finite and ascending, or chunk_frames < 1; at once.
        DecodeError: not one of the frames can be decoded; while iterating.
    """
    times = checked_times(times_s, chunk_frames)
    num_frames = clip_frames(info, chunk_frames)
    return _clips(info, info.frame_idxs_at(times), frames_of, num_frames, name)


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


def clip_frames(info: VideoInfo, chunk_frames: int) -> int:
    """Return how many frames go into one clip: as many as asked for, and few large ones."""
    frame_bytes = max(1, info.height_px * info.width_px * 3)
    return max(1, min(chunk_frames, _MOST_CLIP_BYTES // frame_bytes))


def _clips(
    info: VideoInfo,
    frame_idxs: npt.NDArray[np.int64],
    frames_of: FramesOf,
    chunk_frames: int,
    name: str,
) -> Iterator[Clip]:
    distinct, repeats = np.unique(frame_idxs, return_counts=True)
    if not len(distinct):
        return
    num_repeats = dict(zip(distinct.tolist(), repeats.tolist(), strict=True))
    given: set[int] = set()
    gathered: list[tuple[int, Frame]] = []
    for idx, frame in frames_of(distinct.tolist()):
        given.add(idx)
        for _ in range(num_repeats[idx]):
            gathered.append((idx, frame))
            if len(gathered) == chunk_frames:
                yield _clip(info, gathered)
                gathered = []
    if gathered:
        yield _clip(info, gathered)
    lost = [idx for idx in distinct.tolist() if idx not in given]
    _report_lost(info, lost, len(distinct), name)


def _clip(info: VideoInfo, gathered: Sequence[tuple[int, Frame]]) -> Clip:
    frame_idxs = np.array([idx for idx, _ in gathered], dtype=np.int64)
    frames = [frame for _, frame in gathered]
    stacked = np.ascontiguousarray(frames[0])[None] if len(frames) == 1 else np.stack(frames)
    return Clip(frames=stacked, pts_s=info.pts_s[frame_idxs], frame_idxs=frame_idxs)


def _report_lost(info: VideoInfo, lost: list[int], num_asked: int, name: str) -> None:
    if not lost:
        return
    first_s = float(info.pts_s[lost[0]])
    if len(lost) == num_asked:
        raise DecodeError(
            f"{name}: none of the {num_asked} frames asked for can be decoded, from "
            f"{first_s:.2f} s on: the data is damaged.",
            "check that the file plays there, or choose another span.",
            pts_s=first_s,
        )
    _log.warning(
        "%s: %d of %d frames cannot be decoded, the first at %.2f s",
        name,
        len(lost),
        num_asked,
        first_s,
    )
