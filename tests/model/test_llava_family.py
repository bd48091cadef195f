"""The visual path of the members with CLIP, against the rows their own code spliced in."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from seeded_models import clips_of, text_config, video_plan

from llava_video.model.dimensions import ModelDimensions, VisionConfig
from llava_video.model.llava import LlavaModel
from llava_video.planning.grid import unpad_window
from llava_video.values import Grid, Newline, VisualPlan

LIMIT = 2e-5  # of rows that reach 2
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
NAMES = {
    r"^(model\.vision_tower\.vision_tower\.)?vision_model\.": "vision_tower.",
    r"embeddings\.patch_embedding": "patch_embedding",
    r"embeddings\.class_embedding": "class_embedding",
    r"embeddings\.position_embedding\.weight": "position_embedding",
    "pre_layrnorm": "pre_norm",
    r"encoder\.layers": "layers",
    r"self_attn\.|mlp\.": "",
    "layer_norm": "norm",
    r"^model\.mm_projector\.0\.": "projector.linear1.",
    r"^model\.mm_projector\.2\.": "projector.linear2.",
    r"^model\.mm_projector\.": "projector.linear1.",
    r"^model\.image_newline": "image_newline",
}


def our_name(name: str) -> str:
    for theirs, ours in NAMES.items():
        name = re.sub(theirs, ours, name)
    return name


def visual_model(family: Path, name: str, tower: str = "clip-tiny-patch14-336") -> LlavaModel:
    """Build a checkpoint's tower, projector and newline beside a language model that is not run."""
    sizes = json.loads((family / "openai" / tower / "config.json").read_text())["vision_config"]
    found: dict[str, torch.Tensor] = {}
    for folder in (family / "openai" / tower, family / name):
        for path in sorted(folder.glob("*.safetensors")):
            found |= load_file(path)
        for path in sorted(folder.glob("*.bin")):
            found |= torch.load(path, weights_only=True)
    # The checkpoint's own tower, where it has one, comes after the stock one of the same names.
    weights = {our_name(key): tensor.float() for key, tensor in found.items()}
    vision = VisionConfig(
        kind="clip",
        activation=sizes["hidden_act"],
        hidden_size=sizes["hidden_size"],
        intermediate_size=sizes["intermediate_size"],
        num_layers=sizes["num_hidden_layers"] - 1,
        num_heads=sizes["num_attention_heads"],
        image_px=sizes["image_size"],
        patch_px=sizes["patch_size"],
        layer_norm_eps=sizes["layer_norm_eps"],
        pixel_mean=MEAN,
        pixel_std=STD,
    )
    dimensions = ModelDimensions(
        vision=vision,
        text=text_config(hidden_size=len(weights["projector.linear1.bias"])),
        has_newline="image_newline" in weights,
        projector_layers=2 if "projector.linear2.bias" in weights else 1,
    )
    model = LlavaModel(dimensions).eval()
    names = [key for key in model.state_dict() if not key.startswith("language_model")]
    model.load_state_dict({key: weights[key] for key in names}, strict=False)
    return model


def rows_of(model: LlavaModel, plan: VisualPlan, frames: np.ndarray) -> np.ndarray:
    return torch.cat(list(model.visual_rows(plan, clips_of(frames, 3), 2))).numpy()


def check(rows: np.ndarray, golden: np.lib.npyio.NpzFile) -> None:
    """Compare with every array that holds some of the rows."""
    expected = {
        "image_tokens": rows,
        "projected_first64": rows[:64],
        "image_tokens_first8": rows[:8],
        "image_tokens_last8": rows[-8:],
        "image_tokens_first16": rows[:16],
        "image_tokens_last16": rows[-16:],
        "image_tokens_mean": rows.mean(1),
    }
    keys = [key for key in expected if key in golden]
    assert keys
    for key in keys:
        assert expected[key].shape == golden[key].shape, key
        assert np.abs(expected[key] - golden[key]).max() <= LIMIT, key
    assert np.abs(rows).max() > 1.0  # the limit means something


def image_plan(num_tokens: int, side: int = 24, **layout: object) -> VisualPlan:
    single = {"crop": (0, side, 0, side), "map_size": (side, side), "newline": Newline.NONE}
    return video_plan(1, num_tokens, **{"kind": "image", "pool_stride": 1, **single, **layout})


@pytest.mark.parametrize(
    ("case", "name", "tower", "fit", "side"),
    [
        ("llava1_image", "llava-v1-tiny", "clip-tiny-patch14", "crop", 16),
        ("llava15_image", "llava-v1.5-tiny", "clip-tiny-patch14-336", "pad", 24),
    ],
)
def test_one_tile(shared: Path, case: str, name: str, tower: str, fit, side: int):
    family = shared / "golden/family"
    golden = np.load(family / f"cases/{case}.npz")
    model = visual_model(family, name, tower)
    assert model.projector.num_layers == (1 if case == "llava1_image" else 2)
    plan = image_plan(side**2, side, fit=fit)
    check(rows_of(model, plan, golden["image_0"][None]), golden)


@pytest.mark.parametrize(
    ("case", "grid", "num_tokens"),
    [
        ("llava16_tall", Grid(2, 1), 816),
        ("llava16_wide", Grid(1, 3), 1160),
        ("llava16_square", Grid(2, 2), 2928),
    ],
)
def test_a_grid_and_its_newlines(shared: Path, case: str, grid: Grid, num_tokens: int):
    family = shared / "golden/family"
    golden = np.load(family / f"cases/{case}.npz")
    height_px, width_px, _ = golden["image_0"].shape
    top, bottom, left, right = window = unpad_window(
        height_px, width_px, 24 * grid.rows, 24 * grid.cols
    )
    layout = {"fit": "letterbox", "grid": grid, "overview": True, "overview_side": 24}
    layout |= {"crop": window, "map_size": (bottom - top, right - left), "newline": Newline.ROW}
    plan = image_plan(num_tokens, **layout)
    check(rows_of(visual_model(family, "llava-v1.6-tiny"), plan, golden["image_0"][None]), golden)


VIDEOS = {
    "release": ("features", Newline.NONE, 576),
    "before_grid": ("features", Newline.ROW, 624),
    "after_no_token": ("tokens", Newline.NONE, 576),
    "after_grid": ("tokens", Newline.ROW, 624),
    "after_frame": ("tokens", Newline.FRAME, 580),
    "after_one_token": ("tokens", Newline.CLIP, 577),
    "before_no_token_max_stride4": ("features", Newline.NONE, 144),
}


@pytest.mark.parametrize("case", VIDEOS)
def test_videos_pool_before_or_after_the_projector(shared: Path, case: str):
    family = shared / "golden/family"
    frames = np.load(family / "cases/next_video_release.npz")["frames"]
    pool_of, newline, num_tokens = VIDEOS[case]
    is_max = case.endswith("max_stride4")
    layout = {
        "fit": "crop",
        "pool_of": pool_of,
        "pool_mode": "max" if is_max else "average",
        "pool_stride": 4 if is_max else 2,
        "crop": (0, 24, 0, 24),
        "map_size": (6, 6) if is_max else (12, 12),
        "newline": newline,
    }
    model = visual_model(family, "LLaVA-NeXT-Video-tiny")
    rows = rows_of(model, video_plan(4, num_tokens, **layout), frames)
    check(rows, np.load(family / f"cases/next_video_{case}.npz"))
    other = {**layout, "pool_of": "tokens" if pool_of == "features" else "features"}
    mutant = rows_of(model, video_plan(4, num_tokens, **other), frames)
    assert np.abs(mutant - rows).max() > 100 * LIMIT
