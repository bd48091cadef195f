"""Which frames a rule has to look at before the plan, and which of those it keeps.

Says where to look and judges what was measured; does not look. Knows no pixel.
"""

import numpy as np

from llava_video.planning.moments import Indices, at_rate, span_of, spread
from llava_video.planning.settings import (
    DEFAULT_DEDUPE_THRESHOLD,
    DEFAULT_SCAN_FPS,
    DEFAULT_SCAN_FRAMES,
    SamplingSettings,
)
from llava_video.values import Scan, VideoInfo


def scan_idxs(info: VideoInfo, sampling: SamplingSettings) -> Indices:
    """Return the frames to look at: at a rate over the span, and no more than the limit.

    For "scene" at `scan_fps`, and the span's last frame, so that the last shot is seen to its end.
    For "dedupe" at `fps`, or else `scan_fps`. Over the limit, evenly spread ones instead.

    Raises:
        ConfigError: the span lies outside the video.
    """
    candidates, span = _candidates(info, sampling)
    limit = sampling.max_scan_frames or DEFAULT_SCAN_FRAMES
    return candidates if len(candidates) <= limit else spread(info, span, limit)


def scan_rate_hz(sampling: SamplingSettings) -> float:
    """Return how many frames per second are looked at, where the limit allows."""
    own = sampling.fps if sampling.rule == "dedupe" else None
    return own or sampling.scan_fps or DEFAULT_SCAN_FPS


def dedupe_threshold(sampling: SamplingSettings) -> float:
    """Return the largest change of a block at which two frames are the same, grey levels."""
    asked = sampling.dedupe_threshold
    return DEFAULT_DEDUPE_THRESHOLD if asked is None else asked


def kept_idxs(scan: Scan, threshold: float) -> Indices:
    """Return the frames that changed by more than a threshold; the first one always did."""
    return scan.frame_idxs[scan.changes > threshold]


def scan_words(info: VideoInfo, sampling: SamplingSettings, scan: Scan) -> str:
    """Say what was looked at, in one sentence."""
    num_seen, rate_hz = len(scan.frame_idxs), scan_rate_hz(sampling)
    candidates, _ = _candidates(info, sampling)
    limit = sampling.max_scan_frames or DEFAULT_SCAN_FRAMES
    how = f"at {rate_hz:g} per second"
    if len(candidates) > limit:
        how = f"spread evenly ({rate_hz:g} per second are {len(candidates):,}, "
        how += f"max_scan_frames is {limit:,})"
    first_s, last_s = (float(info.pts_s[scan.frame_idxs[k]]) for k in (0, -1))
    frames = f"{num_seen:,} frame{'s'[: num_seen != 1]}"
    return f"Looked at {frames} before the plan, {how}: {first_s:.2f} s to {last_s:.2f} s."


def scan_warnings(scan: Scan) -> tuple[str, ...]:
    """Say so where frames that were to be looked at could not be decoded."""
    num_lost = scan.num_asked - len(scan.frame_idxs)
    if not num_lost:
        return ()
    return (f"{num_lost} of {scan.num_asked} frames could not be looked at: the data is damaged.",)


def _candidates(info: VideoInfo, sampling: SamplingSettings) -> tuple[Indices, tuple[int, int]]:
    """Return what would be looked at without a limit, and the span."""
    first_idx, stop_idx, _ = span_of(info, sampling)
    idxs = at_rate(info, scan_rate_hz(sampling), sampling, (first_idx, stop_idx))
    if sampling.rule == "scene":
        idxs = np.union1d(idxs, [stop_idx - 1])
    return idxs.astype(np.int64), (first_idx, stop_idx)
