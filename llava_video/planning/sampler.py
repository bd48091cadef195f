"""A video's timestamps and the sampling settings → which frames to look at, and their times.

Pure arithmetic on presentation times: no pixel, no token and no budget is known here. What a rule
has to know of the pixels is measured before, and comes as a `Scan`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from llava_video.errors import ConfigError, DecodeError
from llava_video.planning.geometry import ReferenceRule
from llava_video.planning.keyframes import to_keyframes
from llava_video.planning.moments import (
    Indices,
    at_rate,
    cap_of,
    has_constant_rate,
    rate_of,
    span_end_s,
    span_of,
    spread,
    stated_rate_hz,
    video_end_s,
)
from llava_video.planning.reference_sampling import evenly, sample_by, uniform_indices
from llava_video.planning.scans import dedupe_threshold, kept_idxs, scan_warnings, scan_words
from llava_video.planning.settings import SamplingSettings
from llava_video.planning.shots import Shot, cut_words, find_shots, frames_of_shots
from llava_video.values import Scan, Segment, VideoInfo


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
        rule: "spread" frames are chosen anew when there must be fewer, and so are those of "shots";
            of "listed" ones some are left out.
        shots: what frames were spread over; () under another rule.
        compat: whose arithmetic.
        reference_rule: which, under "reference".
    """

    frame_idxs: tuple[int, ...]
    times_s: tuple[float, ...]
    duration_s: float
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    video: VideoInfo = field(repr=False, compare=False)
    span: tuple[int, int]
    rule: Literal["spread", "listed", "shots"]
    shots: tuple[Shot, ...] = field(default=(), repr=False)
    compat: Literal["pts", "reference"] = "pts"
    reference_rule: ReferenceRule = "steps"

    @property
    def end_s(self) -> float:
        """When the frame after the span is shown, or the video ends, s."""
        return span_end_s(self.video, self.span)

    @property
    def num_frames(self) -> int:
        """Frames of the sample."""
        return len(self.frame_idxs)


class _Amount(NamedTuple):
    """How many frames: at most `cap`, at so many per second, or None to spread them."""

    cap: int
    fps: float | None


def sample_frames(
    info: VideoInfo,
    sampling: SamplingSettings,
    *,
    max_frames: int,
    fps: float | None = None,
    reference_rule: ReferenceRule = "steps",
    scan: Scan | None = None,
) -> Sample:
    """Choose the frames to look at: candidates by the rule, and of too many an even choice.

    A rate or explicit times make candidates; without either, frames are spread evenly over the
    time from the span's first frame to its last, both included. More candidates than the cap
    are replaced by evenly spread frames. On a constant rate "evenly" is the reference's truncated
    linspace over indices. What the other rules do stands in `docs/sampling.md`.

    Args:
        info: the probed video.
        sampling: what the user asks.
        max_frames: the model's own cap; an explicit number of frames or list of times lifts it.
        fps: the model's own rate where neither rate, number nor times are asked; None spreads.
        reference_rule: whose arithmetic compat="reference" repeats.
        scan: of this video, where the rule needs one.

    Returns:
        At least one frame.

    Raises:
        DecodeError: the video has no frame.
        ConfigError: the span lies outside the video, a time lies outside the span, the rule needs a
            scan and there is none, or compat="reference" meets a video that states no rate, or a
            rate that its code has not.
    """
    if not info.num_frames:
        raise DecodeError("the video has no frames.", "check the file with `llava-video probe`.")
    first_idx, end_idx, notices = span_of(info, sampling)
    amount = _Amount(cap_of(sampling, max_frames), rate_of(sampling, fps))
    if sampling.compat == "reference":
        sample = _as_reference(info, (first_idx, end_idx), amount, reference_rule)
    else:
        sample = _by_rule(info, sampling, (first_idx, end_idx), amount, scan)
    return replace(sample, warnings=(*notices, *sample.warnings))


def thin(sample: Sample, num_frames: int) -> Sample:
    """Return the sample with so many frames, as evenly spread as its rule allows.

    Frames of a rate or of an even spread are chosen anew over the span where the video's rate is
    constant, those of shots over the shots; of others, and of a variable rate, evenly numbered ones
    are kept. But for shots, the first frame stays, and the last one when there are two or more.

    Raises:
        ConfigError: fewer than one frame.
    """
    if num_frames < 1:
        raise ConfigError(f"num_frames = {num_frames}.", "at least 1.")
    if num_frames >= sample.num_frames:
        return sample
    first_idx, end_idx = sample.span
    if sample.compat == "reference":
        idxs = first_idx + evenly(sample.reference_rule, end_idx - first_idx, num_frames)
        times_s = tuple((idxs / stated_rate_hz(sample.video)).tolist())
        return replace(sample, frame_idxs=tuple(idxs.tolist()), times_s=times_s)
    if sample.rule == "shots":
        idxs = frames_of_shots(sample.video, sample.shots, num_frames)
    elif sample.rule == "spread" and has_constant_rate(sample.video, sample.span):
        idxs = first_idx + uniform_indices(end_idx - first_idx, num_frames)
    else:
        kept = uniform_indices(sample.num_frames, num_frames)
        idxs = np.asarray(sample.frame_idxs, dtype=np.int64)[kept]
    return replace(
        sample,
        frame_idxs=tuple(idxs.tolist()),
        times_s=tuple(sample.video.pts_s[idxs].tolist()),
    )


def _by_rule(
    info: VideoInfo,
    sampling: SamplingSettings,
    span: tuple[int, int],
    amount: _Amount,
    scan: Scan | None,
) -> Sample:
    if sampling.times_s is not None:
        return _at_times(info, sampling.times_s, sampling, span)
    if not isinstance(sampling.rule, str):
        return _by_user(info, sampling, span, amount.cap)
    if not sampling.needs_scan:
        sample = _over_span(info, sampling, span, amount)
        return _on_keyframes(sample) if sampling.rule == "keyframe" else sample
    if scan is None:
        raise ConfigError(
            f"sampling = {sampling.rule!r} looks at pixels, and there is no scan of the video.",
            "scan the video first.",
        )
    by_scan = _over_shots if sampling.rule == "scene" else _without_repeats
    sample = by_scan(info, sampling, span, amount, scan)
    return replace(
        sample,
        reasons=(scan_words(info, sampling, scan), *sample.reasons),
        warnings=(*scan_warnings(scan), *sample.warnings),
    )


def _over_span(
    info: VideoInfo, sampling: SamplingSettings, span: tuple[int, int], amount: _Amount
) -> Sample:
    """Choose by rate or evenly, then cap."""
    cap, fps = amount
    if fps is None:
        idxs, how = spread(info, span, cap), "spread evenly"
    else:
        idxs, how = at_rate(info, fps, sampling, span), f"at {fps:g} per second"
        if len(idxs) > cap:
            how = f"spread evenly ({fps:g} per second are {len(idxs)}, the limit is {cap})"
            idxs = spread(info, span, cap)
    return _sample_of(info, span, idxs, "spread", how, _shortage(info, sampling, span, idxs))


def _on_keyframes(sample: Sample) -> Sample:
    """Move the frames of a sample to keyframes, where the span has any."""
    info, num_wanted = sample.video, sample.num_frames
    moved = to_keyframes(info, sample.span, np.asarray(sample.frame_idxs, dtype=np.int64))
    if moved is None:
        what = "video has" if sample.span == (0, info.num_frames) else "span holds"
        warning = f"The {what} no known keyframe: the frames stay where 'uniform' puts them."
        return replace(sample, warnings=(*sample.warnings, warning))
    found = len(moved.frame_idxs)
    how = (
        f"moved to the nearest keyframes, by {moved.largest_shift_s:.2f} s at most and "
        f"{moved.mean_shift_s:.2f} s on average"
    )
    warnings = sample.warnings
    if found < num_wanted:
        these = "one keyframe: it is used" if found == 1 else f"{found} keyframes: these are used"
        warnings = (*warnings, f"{num_wanted} moments lie nearest to {these}.")
    there = _sample_of(info, sample.span, moved.frame_idxs, "listed", how, warnings)
    return replace(there, reasons=(*sample.reasons, *there.reasons))


def _over_shots(
    info: VideoInfo,
    sampling: SamplingSettings,
    span: tuple[int, int],
    amount: _Amount,
    scan: Scan,
) -> Sample:
    """Give every shot a frame, and spread the rest by duration."""
    cap, fps = amount
    shots = find_shots(info, scan, span_end_s(info, span))
    num_shots, num_wanted = len(shots), cap
    if fps is not None:  # a rate does not take the only frame of a shot
        num_wanted = min(cap, max(len(at_rate(info, fps, sampling, span)), num_shots))
    idxs = frames_of_shots(info, shots, num_wanted)
    warnings: tuple[str, ...] = ()
    how = "spread over one shot" if num_shots == 1 else f"spread over {num_shots} shots by duration"
    if num_shots > num_wanted:
        how = f"one of each of the longest of {num_shots} shots"
        warnings = (f"{num_shots} shots are more than the limit: {num_wanted} of them are shown.",)
    elif sampling.num_frames is not None and len(idxs) < num_wanted:
        warnings = (f"{num_wanted} frames were asked for, the shots have {len(idxs)}.",)
    sample = _sample_of(info, span, idxs, "shots", how, warnings)
    return replace(sample, shots=shots, reasons=(*cut_words(scan), *sample.reasons))


def _without_repeats(
    info: VideoInfo,
    sampling: SamplingSettings,
    span: tuple[int, int],
    amount: _Amount,
    scan: Scan,
) -> Sample:
    """Drop frames like the last one kept, then cap."""
    cap = amount.cap
    threshold = dedupe_threshold(sampling)
    kept = kept_idxs(scan, threshold)
    num_dropped = len(scan.frame_idxs) - len(kept)
    how = (
        f"{num_dropped:,} repeat{'s'[: num_dropped != 1]} dropped (no block of 8 x 8 px changed by "
        f"more than {threshold:g} grey levels since the last one kept)"
    )
    warnings: tuple[str, ...] = ()
    if sampling.num_frames is not None and len(kept) < cap:
        warnings = (f"{cap} frames were asked for, {len(kept)} of those looked at differ.",)
    sample = _sample_of(info, span, kept, "listed", how, warnings)
    return _capped(sample, cap, f"{len(kept)} frames that differ")


def _by_user(
    info: VideoInfo, sampling: SamplingSettings, span: tuple[int, int], cap: int
) -> Sample:
    """Ask the user's own sampler, and check what it says."""
    name = sampling.rule_words
    choose: Callable[..., object] = sampling.rule  # type: ignore[assignment]  # no word: checked
    start_s = sampling.start_s or 0.0
    end_s = min(video_end_s(info), sampling.end_s or math.inf)
    given = choose(info, span=Segment(start_s, end_s), max_frames=cap)
    try:
        times_s = np.atleast_1d(np.asarray(given, dtype=np.float64))
    except (TypeError, ValueError) as cause:
        raise ConfigError(
            f"the sampler {name} returned {given!r}.", "return a list of seconds."
        ) from cause
    if times_s.ndim != 1 or not times_s.size or not np.isfinite(times_s).all():
        raise ConfigError(
            f"the sampler {name} returned {given!r}.", "return a list of seconds, one at least."
        )
    sample = _shown_at(info, times_s, sampling, span, f"chosen by {name}")
    return _capped(sample, cap, f"{sample.num_frames} frames")


def _capped(sample: Sample, cap: int, what: str) -> Sample:
    """Keep evenly numbered frames of too many, and say so."""
    if sample.num_frames <= cap:
        return sample
    reason = f"{what} are more than the limit: {cap} are kept."
    return replace(thin(sample, cap), reasons=(*sample.reasons, reason))


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


def _at_times(
    info: VideoInfo, times_s: tuple[float, ...], sampling: SamplingSettings, span: tuple[int, int]
) -> Sample:
    """Choose the frames on screen at explicit times, in order of time."""
    asked_s = np.asarray(times_s, dtype=np.float64)
    sample = _shown_at(info, asked_s, sampling, span, "on screen at the given times")
    return _capped(sample, sampling.max_frames or sample.num_frames, f"{sample.num_frames} times")


def _shown_at(
    info: VideoInfo,
    times_s: npt.NDArray[np.float64],
    sampling: SamplingSettings,
    span: tuple[int, int],
    how: str,
) -> Sample:
    asked_s = np.sort(times_s)
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
    return _sample_of(info, span, idxs, "listed", how, warnings)


def _as_reference(
    info: VideoInfo, span: tuple[int, int], amount: _Amount, rule: ReferenceRule
) -> Sample:
    """Choose as the reference does; of a span, as if the span were the file."""
    rate_hz = stated_rate_hz(info)
    first_idx, end_idx = span
    idxs, times_s = sample_by(rule, end_idx - first_idx, rate_hz, amount.cap, amount.fps)
    how = "chosen by the reference's arithmetic, which may repeat frames"
    sample = _sample_of(info, span, first_idx + idxs, "spread", how, ())
    return replace(
        sample,
        times_s=tuple((times_s + first_idx / rate_hz).tolist()),
        duration_s=info.num_frames / rate_hz,
        compat="reference",
        reference_rule=rule,
    )


def _sample_of(
    info: VideoInfo,
    span: tuple[int, int],
    idxs: Indices,
    rule: Literal["spread", "listed", "shots"],
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
