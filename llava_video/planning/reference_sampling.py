"""Frame count, rate and limits → the frames and times of the original code, bit for bit.

Its times are index / rate and its frames may repeat: kept here for parity and for published
benchmarks, and chosen with compat="reference". Knows no timestamps.
"""

import numpy as np
import numpy.typing as npt

from llava_video.errors import ConfigError
from llava_video.planning.geometry import ReferenceRule


def uniform_indices(num_frames: int, num_samples: int) -> npt.NDArray[np.int64]:
    """Return evenly spread indices from the first to the last frame, truncated; may repeat.

    Source: LLaVA-NeXT, LLaVA-OneVision tutorial: np.linspace(0, total - 1, N, dtype=int).

    >>> uniform_indices(300, 8).tolist()  # 299 / 7 = 42.71…
    [0, 42, 85, 128, 170, 213, 256, 299]
    """
    return np.linspace(0, num_frames - 1, num_samples).astype(np.int64)


def midpoint_indices(num_frames: int, num_samples: int) -> npt.NDArray[np.int64]:
    """Return the middle of each of so many equal parts; borders are rounded, halves to the even.

    Source: LLaVA-Mini: borders are round(i * (num_frames - 1) / num_samples), a middle is their
    mean, rounded down.

    >>> midpoint_indices(100, 4).tolist()  # borders 0, 24.75, 49.5, 74.25, 99
    [12, 37, 62, 86]
    """
    borders = np.round((num_frames - 1) / num_samples * np.arange(num_samples + 1)).astype(np.int64)
    return (borders[:-1] + borders[1:]) // 2


def evenly(rule: ReferenceRule, num_frames: int, num_samples: int) -> npt.NDArray[np.int64]:
    """Return so many indices over all frames as the reference of this rule spreads them."""
    spread = midpoint_indices if rule == "midpoints" else uniform_indices
    return spread(num_frames, num_samples)


def reference_sample(
    total_frames: int,
    avg_fps: float,
    max_frames: int,
    force_sample: bool,
    fps: float = 1,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the reference's frame indices and the times it tells the model.

    Every r-th frame with r = round(avg_fps / fps), halves to the even number; or `max_frames`
    evenly spread ones when those would be more, or when forced. Times are index / avg_fps in the
    second case, index / r in the first, which are seconds only at fps=1.

    Source: LLaVA-NeXT, docs/LLaVA_Video_1003.md, load_video. One deviation: where r is 0 the
    original fails, here r is 1.

    Args:
        total_frames: frames of the video, >= 1.
        avg_fps: the rate its container states, > 0.
        max_frames: the limit N, >= 1.
        force_sample: take N frames whatever `fps` says.
        fps: frames per second asked for, > 0.

    Returns:
        (indices (n,) int64, times (n,) float64 in s).
    """
    every = max(1, round(avg_fps / fps))
    candidates = np.arange(0, total_frames, every, dtype=np.int64)
    if force_sample or len(candidates) > max_frames:
        idxs = uniform_indices(total_frames, max_frames)
        return idxs, idxs / avg_fps
    return candidates, candidates / every


def sample_by(
    rule: ReferenceRule, total_frames: int, avg_fps: float, max_frames: int, fps: float | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return indices and times as the reference of a model chooses them.

    "steps" is `reference_sample`, forced where no rate is asked, as the released models are run.
    "spread" always gives `max_frames` of `uniform_indices`. "midpoints" gives one frame for each
    whole 1 / fps of the video; one deviation: where that is none the original fails, here it is 1.

    Args:
        rule: whose arithmetic.
        total_frames: frames of the video, >= 1.
        avg_fps: the rate its container states, > 0.
        max_frames: the limit, >= 1.
        fps: frames per second asked for, > 0; None for the limit itself.

    Raises:
        ConfigError: a rate is asked of "spread", which has none.
    """
    if rule == "steps":
        return reference_sample(total_frames, avg_fps, max_frames, fps is None, fps or 1)
    if rule == "spread" and fps is not None:
        raise ConfigError(
            f"compat = 'reference' with fps = {fps:g}: the rule of this model's first release "
            "spreads its frames and knows no rate.",
            "say num_frames=, or leave compat at 'pts'.",
        )
    count = max_frames
    if fps is not None:
        count = min(max_frames, max(1, int(total_frames // (avg_fps / fps))))
    idxs = evenly(rule, total_frames, count)
    return idxs, idxs / avg_fps


def reference_indices(
    total_frames: int, avg_fps: float, max_frames: int, force_sample: bool, fps: float = 1
) -> npt.NDArray[np.int64]:
    """Return the indices of `reference_sample` alone.

    >>> reference_indices(45, 15.0, 64, force_sample=False).tolist()
    [0, 15, 30]
    """
    return reference_sample(total_frames, avg_fps, max_frames, force_sample, fps)[0]
