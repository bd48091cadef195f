"""A video's timestamps → which frames lie in a span, evenly spread or at a rate.

The primitives that every rule of sampling is made of: pure arithmetic on presentation times. The
frame at a time t is the one with the largest pts <= t + half a tick. Knows no pixel and no budget.
"""

import math

import numpy as np
import numpy.typing as npt

from llava_video.errors import ConfigError
from llava_video.planning.reference_sampling import uniform_indices
from llava_video.planning.settings import SamplingSettings
from llava_video.values import VideoInfo

# Sums of ticks differ from typed decimals by less than this; no two frames are as close.
SAME_TIME_S = 1e-6

Indices = npt.NDArray[np.int64]


def video_end_s(info: VideoInfo) -> float:
    """Return when the video ends: its stated duration, or the last frame and one mean gap more."""
    last_s = float(info.pts_s[-1])
    if info.duration_s is not None:
        return max(info.duration_s, last_s + info.tick_s)
    gap_s = last_s / (info.num_frames - 1) if info.num_frames > 1 else info.tick_s
    return last_s + max(gap_s, info.tick_s)


def span_end_s(info: VideoInfo, span: tuple[int, int]) -> float:
    """Return when the frame after a span of frames is shown, or the video ends, s."""
    _, stop = span
    return video_end_s(info) if stop >= info.num_frames else float(info.pts_s[stop])


def span_of(info: VideoInfo, sampling: SamplingSettings) -> tuple[int, int, tuple[str, ...]]:
    """Return the half-open range of frames in the asked span, and warnings.

    Frames with start <= pts < end, and the frame that is on screen at `start`.
    """
    ends_at_s = video_end_s(info)
    start_s = sampling.start_s or 0.0
    if start_s >= ends_at_s:
        raise ConfigError(
            f"the span starts at {start_s:g} s, the video ends at {ends_at_s:.2f} s.",
            f"give start= a time before {ends_at_s:.2f} s.",
        )
    first_idx = int(info.frame_idxs_at([start_s])[0])
    if sampling.end_s is None:
        return first_idx, info.num_frames, ()
    notices: tuple[str, ...] = ()
    if sampling.end_s > ends_at_s + SAME_TIME_S:
        notices = (
            f"The span ends at {sampling.end_s:g} s, the video already at {ends_at_s:.2f} s.",
        )
    end_idx = int(np.searchsorted(info.pts_s, sampling.end_s - SAME_TIME_S, side="left"))
    return first_idx, max(end_idx, first_idx + 1), notices


def cap_of(sampling: SamplingSettings, default_cap: int) -> int:
    """Return the most frames there may be: a number asked for lifts the model's own cap."""
    if sampling.num_frames is None:
        return sampling.max_frames or default_cap
    return min(sampling.num_frames, sampling.max_frames or sampling.num_frames)


def rate_of(sampling: SamplingSettings, default_fps: float | None) -> float | None:
    """Return the frames per second; the model's own where neither rate nor number is asked."""
    has_number = sampling.num_frames is not None
    return sampling.fps if has_number or sampling.fps is not None else default_fps


def stated_rate_hz(info: VideoInfo) -> float:
    """Return the rate the container states, which compat="reference" divides by.

    Raises:
        ConfigError: it states none.
    """
    if not info.frame_rate_hz or info.frame_rate_hz <= 0:
        raise ConfigError(
            "compat = 'reference' divides by the frame rate, and this video states none.",
            "use compat='pts'.",
        )
    return info.frame_rate_hz


def spread(info: VideoInfo, span: tuple[int, int], num_frames: int) -> Indices:
    """Return distinct frames, evenly spread in time from the span's first to its last."""
    first_idx, end_idx = span
    num_there = end_idx - first_idx
    if num_frames >= num_there:
        return np.arange(first_idx, end_idx, dtype=np.int64)
    if has_constant_rate(info, span):
        # Over indices: times rounded to the container's tick would put some frames one off.
        return first_idx + uniform_indices(num_there, num_frames)
    times_s = np.linspace(info.pts_s[first_idx], info.pts_s[end_idx - 1], num_frames)
    return np.unique(info.frame_idxs_at(times_s).clip(first_idx, end_idx - 1))


def has_constant_rate(info: VideoInfo, span: tuple[int, int]) -> bool:
    """Say whether the pts of a span lie on a line, as well as their tick allows."""
    pts_s = info.pts_s[span[0] : span[1]]
    if len(pts_s) < 3:
        return True
    line_s = np.linspace(pts_s[0], pts_s[-1], len(pts_s))
    gap_s = (pts_s[-1] - pts_s[0]) / (len(pts_s) - 1)
    # Three pts rounded to half a tick each; a coarse tick must not hide a missing frame.
    slack_s = min(info.tick_s, gap_s / 2) + SAME_TIME_S
    return bool(np.abs(pts_s - line_s).max() <= slack_s)


def at_rate(
    info: VideoInfo, fps: float, sampling: SamplingSettings, span: tuple[int, int]
) -> Indices:
    """Return the distinct frames on screen at start + k / fps, before the end.

    Counted from the frames' side: frame i is shown by the k from the first moment it is on screen
    until the next frame's. So memory is bounded by the frames, whatever the rate.
    """
    first_idx, end_idx = span
    ends_at_s = video_end_s(info)
    start_s = sampling.start_s or 0.0
    end_s = ends_at_s if sampling.end_s is None else min(sampling.end_s, ends_at_s)
    num_moments = max(1, math.ceil((end_s - start_s - SAME_TIME_S) * fps))
    changes_s = info.pts_s[first_idx + 1 : end_idx] - info.tick_s / 2
    first_moments = np.ceil((changes_s - start_s) * fps)
    moments = np.concatenate(([0.0], first_moments.clip(0, num_moments), [float(num_moments)]))
    return first_idx + np.flatnonzero(np.diff(moments) > 0)
