"""LLaVA-Mini's golden cases: the tiny checkpoints as models, and the tiles their frames become.

Tiles are made here by hand, so that what they show of the fusion depends on no tiling.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from llava_video.model.checkpoint import load_model
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import read_model_config
from llava_video.values import Clip, Grid, Newline, VisualPlan

CHECKPOINTS = {
    "mini_image": "llava-mini-tiny",
    "mini_video": "llava-mini-tiny",
    "mini_train": "llava-mini-tiny",
    "mini_text_only": "llava-mini-tiny",
    "mini_hd_image": "llava-mini-hd-tiny",
    "mini_hd_video": "llava-mini-hd-tiny",
}
_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


def golden_case(shared: Path, name: str) -> dict[str, np.ndarray]:
    return dict(np.load(shared / "golden" / "family" / "cases" / f"{name}.npz"))


def golden_model(shared: Path, case: str) -> LlavaModel:
    """Return the model of a case, in float32."""
    folder = shared / "golden" / "family" / CHECKPOINTS[case]
    config = read_model_config(folder)
    return load_model(folder, config=config, device="cpu", dtype=torch.float32)


def golden_tiles(case: dict[str, np.ndarray], split: int) -> torch.Tensor:
    """Return the tiles (frames, parts, 3, 336, 336) of a case, normalised."""
    if "frames" in case:
        whole = torch.from_numpy(case["frames"]).permute(0, 3, 1, 2).float()
        near = F.interpolate(whole, size=(336, 336), mode="nearest")
        pictures = near.permute(0, 2, 3, 1).byte().numpy()
        assert (pictures[:, ::8, ::8] == case["frames336_every8"]).all()
        tiles = np.stack([_cut(picture, split) for picture in pictures])
    else:
        tiles = _cut(case["image_0"], split)[None]
        if "pixel_values_u8" in case:
            assert (tiles[0] == case["pixel_values_u8"]).all()
        else:
            assert (tiles[0][:, :, ::24, ::24] == case["pixel_values_u8_every24"]).all()
    pixels = (tiles.astype(np.float32) / 255 - _MEAN[:, None, None]) / _STD[:, None, None]
    return torch.from_numpy(pixels)


def golden_visual(
    case: dict[str, np.ndarray], split: int, num_rows: int
) -> tuple[VisualPlan, Clip]:
    """Return how the frames of a case are cut, num_rows tokens each, and the frames."""
    is_video = "frames" in case
    frames = case["frames"] if is_video else case["image_0"][None]
    idxs = np.arange(len(frames))
    plan = VisualPlan(
        kind="video" if is_video else "image",
        source="golden",
        height_px=frames.shape[1],
        width_px=frames.shape[2],
        times_s=tuple(idxs.astype(float).tolist()),
        frame_idxs=tuple(idxs.tolist()),
        fit="nearest" if is_video else "pad",
        grid=Grid(split, split),
        overview=split > 1,
        pool_mode="bilinear",
        pool_stride=1,
        newline=Newline.NONE,
        crop=(0, 24 * split, 0, 24 * split),
        map_size=(round(num_rows**0.5), round(num_rows**0.5)),
        num_tokens=num_rows * len(frames),
        is_fused=True,
    )
    return plan, Clip(frames, idxs.astype(np.float64), idxs)


def _cut(picture: np.ndarray, split: int) -> np.ndarray:
    """Return the parts of a picture, each padded to a square, and the whole last."""
    height_px, width_px = picture.shape[0] // split, picture.shape[1] // split
    parts = [
        picture[y * height_px : (y + 1) * height_px, x * width_px : (x + 1) * width_px]
        for y in range(split)
        for x in range(split)
    ]
    if split > 1:
        parts.append(picture)
    return np.stack([_square(part) for part in parts])


def _square(part: np.ndarray) -> np.ndarray:
    height_px, width_px = part.shape[:2]
    side_px = max(height_px, width_px)
    padded = Image.new("RGB", (side_px, side_px), tuple(int(255 * x) for x in _MEAN))
    corner = ((side_px - width_px) // 2, (side_px - height_px) // 2)
    padded.paste(Image.fromarray(part), corner)
    tile = padded.resize((336, 336), Image.Resampling.BICUBIC)
    return np.asarray(tile).transpose(2, 0, 1)
