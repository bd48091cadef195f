"""Chosen frames → the keyframes nearest to them, and how far they were moved.

A keyframe costs one decoded picture, any other frame those before it up to a keyframe as well.
Knows no rule and no budget.
"""

from dataclasses import dataclass

import numpy as np

from llava_video.planning.moments import Indices
from llava_video.values import VideoInfo


@dataclass(frozen=True, slots=True)
class Moved:
    """Keyframes in place of other frames.

    Attributes:
        frame_idxs: distinct, ascending.
        largest_shift_s: between a frame and its keyframe.
        mean_shift_s: over all frames that were moved or stayed.
    """

    frame_idxs: Indices
    largest_shift_s: float
    mean_shift_s: float


def to_keyframes(info: VideoInfo, span: tuple[int, int], idxs: Indices) -> Moved | None:
    """Move each frame to the keyframe inside the span whose time is nearest; repeats are dropped.

    Of two as near, the earlier one.

    Args:
        info: the probed video.
        span: half-open range of frame indices.
        idxs: the frames, ascending, inside the span.

    Returns:
        None where the span has no keyframe.
    """
    keys = np.unique(np.asarray(info.keyframe_idxs, dtype=np.int64))
    keys = keys[(keys >= span[0]) & (keys < span[1])]
    if not len(keys):
        return None
    keys_s, wanted_s = info.pts_s[keys], info.pts_s[idxs]
    after = np.searchsorted(keys_s, wanted_s, side="left").clip(0, len(keys) - 1)
    before = np.maximum(after - 1, 0)
    is_before = wanted_s - keys_s[before] <= keys_s[after] - wanted_s
    nearest = np.where(is_before & (before < after), before, after)
    shifts_s = np.abs(keys_s[nearest] - wanted_s)
    return Moved(keys[np.unique(nearest)], float(shifts_s.max()), float(shifts_s.mean()))
