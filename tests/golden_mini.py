"""LLaVA-Mini's golden cases: the tiny checkpoints as models, and the tiles their frames become.

Weights are named and tiles are made here by hand, so that what they show of the fusion depends on
no table of names and on no tiling.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

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
_TOWER = "model.vision_tower.vision_tower."
_RENAMED = (
    (_TOWER, ""),
    ("vision_model.embeddings.", "vision_tower."),
    ("vision_model.encoder.", "vision_tower."),
    ("vision_model.pre_layrnorm.", "vision_tower.pre_norm."),
    ("position_embedding.weight", "position_embedding"),
    ("layer_norm1", "norm1"),
    ("layer_norm2", "norm2"),
    ("self_attn.", ""),
    ("mlp.", ""),
    ("post_attention_layernorm", "post_norm"),
    ("input_layernorm", "input_norm"),
    ("model.compressor.attn.in_proj_", "fusion.attention.in_proj."),
    ("model.compressor.attn.", "fusion.attention."),
    ("model.compressor.pos_embed", "fusion.position"),
    ("model.compressor.ln_", "fusion.norm_"),
    ("model.compressor.", "fusion."),
    ("model.prefusion_layers.", "fusion.layers."),
    ("model.mm_projector.0.", "projector.linear1."),
    ("model.mm_projector.2.", "projector.linear2."),
    ("lm_head.", "language_model.lm_head."),
)


def golden_case(shared: Path, name: str) -> dict[str, np.ndarray]:
    return dict(np.load(shared / "golden" / "family" / "cases" / f"{name}.npz"))


def golden_model(shared: Path, case: str) -> LlavaModel:
    """Return the model of a case, in float32."""
    family = shared / "golden" / "family"
    folder = family / CHECKPOINTS[case]
    tensors = load_file(folder / "model.safetensors")
    if not any(name.startswith(_TOWER) for name in tensors):
        tower = load_file(family / "openai" / "clip-tiny-patch14-336" / "model.safetensors")
        tensors |= {n: x for n, x in tower.items() if n.startswith("vision_model.")}
    model = LlavaModel(read_model_config(folder).dimensions).eval()
    named = {_renamed(name): x.float() for name, x in tensors.items()}
    own = set(model.state_dict())
    # The tower's last layer and its last norm are not run.
    assert all("vision" in name for name in named.keys() - own)
    model.load_state_dict({name: named[name] for name in own})
    return model


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


def _renamed(name: str) -> str:
    for theirs, ours in _RENAMED:
        name = name.replace(theirs, ours)
    return f"language_{name}" if name.startswith("model.") else name
