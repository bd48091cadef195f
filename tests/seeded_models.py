"""Small models filled from a seed, and plans and clips for them: no file, no planner."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from llava_video.model.decoder import LanguageModel
from llava_video.model.dimensions import FusionConfig, ModelDimensions, TextConfig, VisionConfig
from llava_video.model.kv_cache import KvCache, KvSpan
from llava_video.model.step_rows import Row
from llava_video.values import Clip, Grid, KvFormat, Newline, VisualPlan

# 56 px of patches of 8 px: maps of 7 x 7, odd as the real 27 x 27.
VISION = VisionConfig(
    hidden_size=24, intermediate_size=40, num_layers=2, num_heads=3, image_px=58, patch_px=8
)
TEXT = TextConfig(
    hidden_size=32,
    intermediate_size=48,
    num_layers=2,
    num_heads=6,
    num_kv_heads=2,
    head_dim=8,
    vocab_size=50,
    rms_norm_eps=1e-6,
    rope_theta=10_000.0,
    max_positions=1024,
    tie_embeddings=False,
)
DIMENSIONS = ModelDimensions(vision=VISION, text=TEXT)
# LLaVA-Mini: four queries a frame, two layers of pre-fusion.
MINI = ModelDimensions(
    vision=VISION, text=TEXT, has_newline=False, fusion=FusionConfig(side=2, num_layers=2)
)

# A video plan's changes: letterboxed into one row of two tiles beside an overview.
GRID = {
    "fit": "letterbox",
    "grid": Grid(1, 2),
    "overview": True,
    "overview_side": 4,
    "crop": (0, 7, 1, 13),
    "map_size": (4, 6),
}


def filled(module: nn.Module, seed: int = 0, spread: float = 0.3) -> nn.Module:
    """Fill every parameter from a seed: norms near one, the rest around zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * spread
        is_norm = "norm" in name and name.endswith("weight")
        parameter.data = (noise + 1.0 if is_norm else noise).to(parameter.dtype)
    return module.eval()


def text_config(**changes: object) -> TextConfig:
    return dataclasses.replace(TEXT, **changes)


def new_cache(model: LanguageModel, slab_tokens: int = 64) -> KvCache:
    text = model.config
    return KvCache(
        text.num_layers,
        text.num_kv_heads,
        text.head_dim,
        dtype=model.dtype,
        devices=model.devices,
        slab_tokens=slab_tokens,
    )


def model_of(config: TextConfig) -> LanguageModel:
    return filled(LanguageModel(config))


def hidden_rows(length: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(length, TEXT.hidden_size, generator=torch.Generator().manual_seed(seed))


def relative_error(result: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest error over the largest value."""
    return ((result - expected).abs().max() / expected.abs().max()).item()


@torch.inference_mode()
def run_chunked(
    model: LanguageModel,
    hidden: torch.Tensor,
    chunk_lengths: Sequence[int],
    *,
    apart: bool = False,
    kv_format: KvFormat = "plain",
    position_scale: float = 1.0,
    cache: KvCache | None = None,
) -> torch.Tensor:
    """Run rows (L, D) in chunks; `apart` gives every chunk places of its own, with gaps."""
    cache = cache or new_cache(model)
    whole = cache.reserve(hidden.shape[0], kv_format).span
    past: list[KvSpan] = []
    outs: list[torch.Tensor] = []
    start = 0
    for length in chunk_lengths:
        stop = start + length
        if apart:
            write = cache.reserve(length, kv_format).span
            cache.reserve(1, kv_format)
        else:
            write = whole.part(start, stop)
        row, idxs = Row(0, length, tuple(past), write), torch.arange(start, stop)
        outs.append(model(hidden[start:stop], idxs, [row], cache, [position_scale]))
        past.append(write)
        start = stop
    return torch.cat(outs)


def video_plan(num_frames: int, num_tokens: int, **changes: object) -> VisualPlan:
    """Make the trained layout of `VISION`: one tile, 7 x 7 pooled to 4 x 4, a newline per row."""
    base = VisualPlan(
        kind="video",
        source="clip",
        height_px=40,
        width_px=60,
        times_s=tuple(float(i) for i in range(num_frames)),
        frame_idxs=tuple(range(num_frames)),
        fit="squeeze",
        grid=Grid(1, 1),
        overview=False,
        pool_mode="bilinear",
        pool_stride=2,
        newline=Newline.ROW,
        crop=(0, 7, 0, 7),
        map_size=(4, 4),
        num_tokens=num_tokens,
    )
    return dataclasses.replace(base, **changes)


def noise_frames(num_frames: int, height_px: int = 40, width_px: int = 60) -> np.ndarray:
    generator = np.random.default_rng(num_frames)
    return generator.integers(0, 256, (num_frames, height_px, width_px, 3), dtype=np.uint8)


def clips_of(frames: np.ndarray, chunk_frames: int = 3) -> Iterator[Clip]:
    for start in range(0, len(frames), chunk_frames):
        piece = frames[start : start + chunk_frames]
        idxs = np.arange(start, start + len(piece))
        yield Clip(piece, idxs.astype(np.float64), idxs)
