"""A case's pictures and videos → what the planner and the stages take: items, clips, infos."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from parity_case import Visual

from llava_video.planning.planner import ImageItem, Item, VideoItem
from llava_video.planning.settings import SamplingSettings
from llava_video.values import Clip, VideoInfo, VisualPlan

# Smaller than most cases, so that clips come in several pieces.
CLIP_FRAMES = 2


def video_of(num_frames: int, rate_hz: float) -> VideoInfo:
    """Return a video of a constant rate."""
    return VideoInfo(
        duration_s=num_frames / rate_hz,
        num_frames=num_frames,
        frame_rate_hz=rate_hz,
        height_px=360,
        width_px=640,
        codec="raw",
        container="array",
        pts_s=np.arange(num_frames) / rate_hz,
        tick_s=1 / 90_000,
    )


def item_of(visual: Visual) -> Item:
    """Return what the planner is asked about: every frame there is."""
    num_frames, height_px, width_px, _ = visual.frames.shape
    if visual.kind == "image":
        return ImageItem(height_px=height_px, width_px=width_px, name="picture")
    info = replace(video_of(num_frames, 1.0), height_px=height_px, width_px=width_px)
    # Every frame by its time: the case's frames are those the reference was given.
    sampling = SamplingSettings(times_s=tuple(info.pts_s.tolist()))
    return VideoItem(info=info, name="video", sampling=sampling)


def clip_of(visual: Visual, start: int, stop: int) -> Clip:
    """Return the frames start to stop."""
    idxs = np.arange(len(visual.frames))[start:stop]
    return Clip(visual.frames[start:stop], idxs.astype(np.float64), idxs)


def clips_of(visual: Visual) -> Iterator[Clip]:
    """Yield all frames, a few at a time."""
    for start in range(0, len(visual.frames), CLIP_FRAMES):
        yield clip_of(visual, start, start + CLIP_FRAMES)


def whole_tile(plan: VisualPlan) -> int:
    """Return which tile of a frame shows all of it: the last of parts, the first of a grid."""
    return plan.tiles_per_frame - 1 if plan.is_fused else 0
