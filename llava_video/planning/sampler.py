"""A video's timestamps and the sampling settings → which frames to look at, and their times.

Pure arithmetic on presentation times: no pixel, no token and no budget is known here. The frame at
a time t is the one with the largest pts <= t + half a tick.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from llava_video.errors import ConfigError, DecodeError
from llava_video.planning.reference_sampling import reference_sample, uniform_indices
from llava_video.planning.settings import SamplingSettings
from llava_video.values import VideoInfo

# Sums of ticks differ from typed decimals by less than this; no two frames are as close.
_SAME_TIME_S = 1e-6

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Frames chosen from one video, in pts order.

    Attributes:
        frame_idxs: indices into `VideoInfo.pts_s`; distinct, but for compat="reference".
        times_s: what the model is told: the frames' pts, or index / rate under "reference".
        duration_s: how long the model is told that the video lasts.
        reasons: how the frames were chosen, one sentence each.
        warnings: where the video could not give what was asked.
        video: what they were chosen from.
        span: half-open range of frame indices they were chosen within.
        rule: "spread" frames are chosen anew when there must be fewer; of "listed" ones some are
            left out.
        compat: whose arithmetic.
    """

    frame_idxs: tuple[int, ...]
    times_s: tuple[float, ...]
    duration_s: float
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    video: VideoInfo = field(repr=False, compare=False)
    span: tuple[int, int]
    rule: Literal["spread", "listed"]
    compat: Literal["pts", "reference"] = "pts"

    @property
    def end_s(self) -> float:
        """When the frame after the span is shown, or the video ends, s."""
        _, stop = self.span
        is_whole = stop >= self.video.num_frames
        return video_end_s(self.video) if is_whole else float(self.video.pts_s[stop])

    @property
    def num_frames(self) -> int:
        """Frames of the sample."""
        return len(self.frame_idxs)


def sample_frames(info: VideoInfo, sampling: SamplingSettings, *, max_frames: int) -> Sample:
    """Choose the frames to look at.

    A rate (`fps`) or explicit times make candidates; without either, frames are spread evenly over
    the time from the span's first frame to its last, both included. More candidates than the cap
    are replaced by evenly spread frames. On a constant rate "evenly" is the reference's truncated
    linspace over indices.

    Args:
        info: the probed video.
        sampling: what the user asks.
        max_frames: the model's own cap; an explicit number of frames or list of times lifts it.

    Returns:
        At least one frame.

    Raises:
        DecodeError: the video has no frame.
        ConfigError: the span lies outside the video, a time lies outside the span, or
            compat="reference" meets a video that states no rate.
    """
    if not info.num_frames:
        raise DecodeError("the video has no frames.", "check the file with `llava-video probe`.")
    first_idx, end_idx, notices = _span(info, sampling)
    if sampling.compat == "reference":
        sample = _as_reference(info, sampling, (first_idx, end_idx), max_frames)
    elif sampling.times_s is not None:
        sample = _at_times(info, sampling.times_s, sampling, (first_idx, end_idx))
    else:
        sample = _over_span(info, sampling, (first_idx, end_idx), max_frames)
    return replace(sample, warnings=(*notices, *sample.warnings))


def thin(sample: Sample, num_frames: int) -> Sample:
    """Return the sample with so many frames, as evenly spread as its rule allows.

    Frames of a rate or of an even spread are chosen anew over the span where the video's rate is
    constant; of explicit times and of a variable rate, evenly numbered ones are kept. The first
    frame stays, and the last one when there are two or more.

    Raises:
        ConfigError: fewer than one frame.
    """
    if num_frames < 1:
        raise ConfigError(f"num_frames = {num_frames}.", "at least 1.")
    if num_frames >= sample.num_frames:
        return sample
    first_idx, end_idx = sample.span
    if sample.compat == "reference":
        idxs = first_idx + uniform_indices(end_idx - first_idx, num_frames)
        times_s = tuple((idxs / _stated_rate_hz(sample.video)).tolist())
        return replace(sample, frame_idxs=tuple(idxs.tolist()), times_s=times_s)
    if sample.rule == "spread" and _has_constant_rate(sample.video, sample.span):
        idxs = first_idx + uniform_indices(end_idx - first_idx, num_frames)
    else:
        kept = uniform_indices(sample.num_frames, num_frames)
        idxs = np.asarray(sample.frame_idxs, dtype=np.int64)[kept]
    return replace(
        sample,
        frame_idxs=tuple(idxs.tolist()),
        times_s=tuple(sample.video.pts_s[idxs].tolist()),
    )


def video_end_s(info: VideoInfo) -> float:
    """Return when the video ends: its stated duration, or the last frame and one mean gap more."""
    last_s = float(info.pts_s[-1])
    if info.duration_s is not None:
        return max(info.duration_s, last_s + info.tick_s)
    gap_s = last_s / (info.num_frames - 1) if info.num_frames > 1 else info.tick_s
    return last_s + max(gap_s, info.tick_s)


def _span(info: VideoInfo, sampling: SamplingSettings) -> tuple[int, int, tuple[str, ...]]:
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
    if sampling.end_s > ends_at_s + _SAME_TIME_S:
        notices = (
            f"The span ends at {sampling.end_s:g} s, the video already at {ends_at_s:.2f} s.",
        )
    end_idx = int(np.searchsorted(info.pts_s, sampling.end_s - _SAME_TIME_S, side="left"))
    return first_idx, max(end_idx, first_idx + 1), notices


def _over_span(
    info: VideoInfo, sampling: SamplingSettings, span: tuple[int, int], default_cap: int
) -> Sample:
    """Choose by rate or evenly, then cap."""
    cap = _cap(sampling, default_cap)
    if sampling.fps is None:
        idxs, how = _spread(info, span, cap), "spread evenly"
    else:
        idxs, how = _at_rate(info, sampling.fps, sampling, span), f"at {sampling.fps:g} per second"
        if len(idxs) > cap:
            how = f"spread evenly ({sampling.fps:g} per second are {len(idxs)}, the limit is {cap})"
            idxs = _spread(info, span, cap)
    return _sample_of(info, span, idxs, "spread", how, _shortage(info, sampling, span, idxs))


def _cap(sampling: SamplingSettings, default_cap: int) -> int:
    if sampling.num_frames is None:
        return sampling.max_frames or default_cap
    return min(sampling.num_frames, sampling.max_frames or sampling.num_frames)


def _shortage(
    info: VideoInfo, sampling: SamplingSettings, span: tuple[int, int], idxs: Indices
) -> tuple[str, ...]:
    """Say so where the video has fewer frames than were asked for."""
    there, found = span[1] - span[0], len(idxs)
    if sampling.num_frames is not None:
        wanted = min(sampling.num_frames, sampling.max_frames or sampling.num_frames)
        if found < wanted:
            if found == there:
                return (f"{wanted} frames were asked for, there are {there}: all are used.",)
            return (f"{wanted} moments were asked for, they show {found} different frames.",)
    if sampling.fps is not None and found == there > 1:
        seconds = float(info.pts_s[span[1] - 1] - info.pts_s[span[0]])
        if sampling.fps * seconds > 1.001 * (there - 1):
            return (f"{sampling.fps:g} frames per second were asked for, there are fewer.",)
    return ()


def _spread(info: VideoInfo, span: tuple[int, int], num_frames: int) -> Indices:
    """Return distinct frames, evenly spread in time from the span's first to its last."""
    first_idx, end_idx = span
    num_there = end_idx - first_idx
    if num_frames >= num_there:
        return np.arange(first_idx, end_idx, dtype=np.int64)
    if _has_constant_rate(info, span):
        # Over indices: times rounded to the container's tick would put some frames one off.
        return first_idx + uniform_indices(num_there, num_frames)
    times_s = np.linspace(info.pts_s[first_idx], info.pts_s[end_idx - 1], num_frames)
    return np.unique(info.frame_idxs_at(times_s).clip(first_idx, end_idx - 1))


def _has_constant_rate(info: VideoInfo, span: tuple[int, int]) -> bool:
    """Say whether the pts of a span lie on a line, as well as their tick allows."""
    pts_s = info.pts_s[span[0] : span[1]]
    if len(pts_s) < 3:
        return True
    line_s = np.linspace(pts_s[0], pts_s[-1], len(pts_s))
    gap_s = (pts_s[-1] - pts_s[0]) / (len(pts_s) - 1)
    # Three pts rounded to half a tick each; a coarse tick must not hide a missing frame.
    slack_s = min(info.tick_s, gap_s / 2) + _SAME_TIME_S
    return bool(np.abs(pts_s - line_s).max() <= slack_s)


def _at_rate(
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
    num_moments = max(1, math.ceil((end_s - start_s - _SAME_TIME_S) * fps))
    changes_s = info.pts_s[first_idx + 1 : end_idx] - info.tick_s / 2
    first_moments = np.ceil((changes_s - start_s) * fps)
    moments = np.concatenate(([0.0], first_moments.clip(0, num_moments), [float(num_moments)]))
    return first_idx + np.flatnonzero(np.diff(moments) > 0)


def _at_times(
    info: VideoInfo, times_s: tuple[float, ...], sampling: SamplingSettings, span: tuple[int, int]
) -> Sample:
    """Choose the frames on screen at explicit times, in order of time."""
    asked_s = np.sort(np.asarray(times_s, dtype=np.float64))
    low_s = sampling.start_s or 0.0
    high_s = min(video_end_s(info), sampling.end_s or math.inf)
    outside = [time_s for time_s in asked_s if not low_s <= time_s < high_s]
    if outside:
        raise ConfigError(
            f"the times name {outside[0]:g} s, outside {low_s:.2f} s to {high_s:.2f} s.",
            "name moments inside the video, from its start to before its end.",
        )
    idxs = np.unique(info.frame_idxs_at(asked_s).clip(span[0], span[1] - 1))
    warnings: tuple[str, ...] = ()
    if len(idxs) < len(asked_s):
        warnings = (f"{len(asked_s)} times were given, they show {len(idxs)} different frames.",)
    sample = _sample_of(info, span, idxs, "listed", "on screen at the given times", warnings)
    if sampling.max_frames is None or len(idxs) <= sampling.max_frames:
        return sample
    reason = f"{len(idxs)} times are more than the limit: {sampling.max_frames} are kept."
    thinned = thin(sample, sampling.max_frames)
    return replace(thinned, reasons=(*sample.reasons, reason))


def _as_reference(
    info: VideoInfo, sampling: SamplingSettings, span: tuple[int, int], default_cap: int
) -> Sample:
    """Choose as the reference does; of a span, as if the span were the file."""
    rate_hz = _stated_rate_hz(info)
    first_idx, end_idx = span
    cap = _cap(sampling, default_cap)
    # Without a rate the released models are run with force_sample on.
    forced = sampling.fps is None
    idxs, times_s = reference_sample(end_idx - first_idx, rate_hz, cap, forced, sampling.fps or 1)
    how = "chosen by the reference's arithmetic, which may repeat frames"
    sample = _sample_of(info, span, first_idx + idxs, "spread", how, ())
    return replace(
        sample,
        times_s=tuple((times_s + first_idx / rate_hz).tolist()),
        duration_s=info.num_frames / rate_hz,
        compat="reference",
    )


def _stated_rate_hz(info: VideoInfo) -> float:
    if not info.frame_rate_hz or info.frame_rate_hz <= 0:
        raise ConfigError(
            "compat = 'reference' divides by the frame rate, and this video states none.",
            "use compat='pts'.",
        )
    return info.frame_rate_hz


def _sample_of(
    info: VideoInfo,
    span: tuple[int, int],
    idxs: Indices,
    rule: Literal["spread", "listed"],
    how: str,
    warnings: tuple[str, ...],
) -> Sample:
    times_s = tuple(info.pts_s[idxs].tolist())
    there = span[1] - span[0]
    whole = "the video's" if there == info.num_frames else "the span's"
    what = f"{len(idxs)} of {whole} {there} frames, {how}"
    if len(idxs) == there and rule == "spread":
        what = f"All {there} of {whole} frames"
    return Sample(
        frame_idxs=tuple(idxs.tolist()),
        times_s=times_s,
        duration_s=video_end_s(info),
        reasons=(f"{what}: {times_s[0]:.2f} s to {times_s[-1]:.2f} s.",),
        warnings=warnings,
        video=info,
        span=span,
        rule=rule,
    )
