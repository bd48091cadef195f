"""uint8 frames of any sizes → tiles on the device that trains, as if they came out of a file.

Frames of a small world are fewer bytes than their tiles: they travel as they are, are tiled there
by inference's own arithmetic (`ops.tile_frames`), and go through `as_if_encoded` first, for nobody
draws files where no decoder is needed. Knows no scene and no model but its tower's sizes.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
import torch.nn.functional as F

from llava_video.model.dimensions import VisionConfig
from llava_video.ops.tile_frames import tile_frames
from llava_video.values import VisualPlan

# ITU-R BT.601, full range: R'G'B' → Y'CbCr.
_TO_YCC = (
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)
_BLOCK_PX = 8
_ROUND = 1 / 3  # H.264 rounds down what is below two thirds of a step


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmedFrames:
    """The frames of one visual.

    Attributes:
        frames: (T, H, W, 3) uint8.
        step: of the coefficients, see `as_if_encoded`; grey levels.
    """

    frames: torch.Tensor
    step: float


class RawFrames(TypedDict):
    """Frames of a batch, those of one size together; lists of as many tensors.

    groups (n, H, W, 3) uint8; steps (n,) float32; places (n,) int64, where their tiles belong.
    """

    groups: list[torch.Tensor]
    steps: list[torch.Tensor]
    places: list[torch.Tensor]


def grouped_by_size(filmed: Sequence[FilmedFrames]) -> RawFrames:
    """Put frames of one size together.

    Args:
        filmed: of a batch, in the order of their visuals.
    """
    found: dict[tuple[int, ...], list[tuple[FilmedFrames, int]]] = {}
    first = 0
    for one in filmed:
        found.setdefault(tuple(one.frames.shape[1:]), []).append((one, first))
        first += len(one.frames)
    return RawFrames(
        groups=[torch.cat([one.frames for one, _ in own]) for own in found.values()],
        steps=[
            torch.cat([torch.full((len(one.frames),), one.step) for one, _ in own])
            for own in found.values()
        ],
        places=[
            torch.cat([torch.arange(place, place + len(one.frames)) for one, place in own])
            for own in found.values()
        ],
    )


def tiles_of_frames(raw: RawFrames, plan: VisualPlan, vision: VisionConfig) -> torch.Tensor:
    """Return the tiles (N, 3, px, px) float32 of frames that become one tile each, in order.

    Args:
        raw: the frames, on the device of the result.
        plan: of any of them: how a frame reaches its tile.
        vision: side of a tile, and its normalisation.
    """
    px, num_frames = vision.image_px, sum(map(len, raw["groups"]))
    tiles = raw["groups"][0].new_empty(num_frames, 3, px, px, dtype=torch.float32)
    for frames, steps, places in zip(raw["groups"], raw["steps"], raw["places"], strict=True):
        with torch.autocast(frames.device.type, enabled=False):  # 8 bits of a level are no level
            seen = as_if_encoded(frames, steps)
        mean, std = vision.pixel_mean, vision.pixel_std
        tiles[places] = tile_frames(seen, plan.fit, plan.grid, px, mean, std)
    return tiles


def as_if_encoded(frames: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Return frames with what H.264 in 4:2:0 does to them: coarse colour, coarse detail.

    Colour differences are averaged over 2 x 2 pixels; then blocks of 8 x 8 lose what is below a
    step of their cosine coefficients. Prediction between frames is left out. Source of the step:
    0.625 x 2^(QP / 6), and a rate factor is about a QP.

    Args:
        frames: (n, H, W, 3) uint8.
        steps: (n,) of the coefficients, grey levels; 0 leaves a frame as it is.

    Returns:
        The same shape, uint8.
    """
    height_px, width_px = frames.shape[1:3]
    # Of a whole number of blocks of the halved colour planes.
    pads = [-size_px % (2 * _BLOCK_PX) for size_px in (width_px, height_px)]
    matrix = torch.tensor(_TO_YCC, device=frames.device)
    planes = torch.einsum("nhwc,dc->ndhw", frames.float(), matrix)
    planes = F.pad(planes, (0, pads[0], 0, pads[1]), mode="replicate")
    luma = _coarse(planes[:, :1], steps)
    chroma = _coarse(F.avg_pool2d(planes[:, 1:], 2), steps)
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    ycc = torch.cat([luma, chroma], dim=1)[:, :, :height_px, :width_px]
    seen = torch.einsum("ndhw,cd->nhwc", ycc, torch.linalg.inv(matrix))
    seen = seen.round().clamp(0, 255).to(torch.uint8)
    return torch.where((steps > 0).view(-1, 1, 1, 1), seen, frames)


def step_of(crf: float) -> float:
    """Return the step of a rate factor.

    >>> step_of(0), step_of(24)
    (0.625, 10.0)
    """
    return float(0.625 * 2 ** (crf / 6))


def _coarse(planes: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Round the cosine coefficients of planes (n, c, h, w), whose sides are whole blocks."""
    num, num_planes, height_px, width_px = planes.shape
    cosines = _cosines().to(planes)
    rows, cols = height_px // _BLOCK_PX, width_px // _BLOCK_PX
    blocks = planes.reshape(num, num_planes, rows, _BLOCK_PX, cols, _BLOCK_PX).transpose(3, 4)
    found = cosines @ blocks @ cosines.T
    step = steps.clamp(min=1e-3).view(-1, 1, 1, 1, 1, 1)
    kept = found.sign() * torch.floor(found.abs() / step + _ROUND) * step
    back = cosines.T @ kept @ cosines
    return back.transpose(3, 4).reshape(planes.shape)


@functools.cache
def _cosines() -> torch.Tensor:
    """Return the orthonormal cosine transform of a block's side (8, 8), a frequency a row."""
    k, x = torch.arange(_BLOCK_PX)[:, None], torch.arange(_BLOCK_PX)
    waves = torch.cos((x + 0.5) * k * math.pi / _BLOCK_PX) * math.sqrt(2 / _BLOCK_PX)
    waves[0] /= math.sqrt(2)
    return waves
