"""What `--to hf` writes loads in transformers, and gives the logits the authors' code gave."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from llava_video.model.convert import convert_checkpoint
from llava_video.model.tower_config import CLIP_MEAN, CLIP_STD

# Measured: 1.2e-5 with transformers 5.23, as between it and the authors' code.
LIMIT = 1e-4


@pytest.fixture(scope="module", autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers

        transformers.logging.set_verbosity_error()
        yield


def converted(source: Path, folder: Path, kind: str) -> Any:
    """Convert a golden checkpoint and load it by transformers; nothing may be missing."""
    import transformers

    convert_checkpoint(source, folder, layout="hf")
    model, found = getattr(transformers, kind).from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert {what: names for what, names in found.items() if names} == {}
    return model.eval()


def with_marks(ids: np.ndarray, counts: list[int], mark: int) -> torch.Tensor:
    """Write a placeholder's id as often as its visual has tokens, in place of each -200."""
    left = iter(counts)
    tokens = ids.reshape(-1).tolist()
    return torch.tensor(
        [[one for t in tokens for one in ([mark] * next(left) if t == -200 else [t])]]
    )


def normalised(pixels: np.ndarray) -> torch.Tensor:
    mean, std = (torch.tensor(one)[:, None, None] for one in (CLIP_MEAN, CLIP_STD))
    return (torch.tensor(pixels).float() / 255 - mean) / std


def cropped(frame: np.ndarray, side: int = 336) -> np.ndarray:
    """Resize the short side and crop the middle, as CLIP's processor does, by Pillow alone."""
    picture = Image.fromarray(frame)
    width, height = picture.size
    short = min(width, height)
    size = (int(side * width / short), int(side * height / short))
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    return np.asarray(picture.crop((left, top, left + side, top + side))).transpose(2, 0, 1)


def largest_error(logits: torch.Tensor, expected: np.ndarray) -> float:
    """Compare over the rows of the original vocabulary."""
    return float(np.abs(logits.numpy()[:, : expected.shape[1]] - expected).max())


def test_llava_15(shared: Path, tmp_path: Path) -> None:
    family = shared / "golden" / "family"
    case = np.load(family / "cases" / "llava15_image.npz")
    source = family / "llava-v1.5-tiny"
    model = converted(source, tmp_path / "hf", "LlavaForConditionalGeneration")
    ids = with_marks(case["input_ids"], [576], model.config.image_token_id)
    with torch.inference_mode():
        pixels = torch.tensor(case["pixel_values"])[None]
        logits = model(input_ids=ids, pixel_values=pixels).logits[0]
    assert largest_error(logits, case["logits"]) <= LIMIT
    # A row that was appended is never chosen: its logit is the mean of the others'.
    assert torch.allclose(logits[:, 360], logits[:, :352].mean(1), atol=1e-3)


def test_processors_cut_the_pictures_the_authors_code_cut(shared: Path, tmp_path: Path) -> None:
    from transformers import AutoProcessor

    family = shared / "golden" / "family"
    for source, name, num_tokens in (
        ("llava-v1.5-tiny", "llava15_image", 576),
        ("llava-v1.6-tiny", "llava16_tall", 816),
    ):
        case = np.load(family / "cases" / f"{name}.npz")
        convert_checkpoint(family / source, tmp_path / source, layout="hf")
        processor = AutoProcessor.from_pretrained(tmp_path / source, use_fast=False)
        found = processor(images=[case["image_0"]], text="<image>\nWhat?", return_tensors="pt")
        if "pixel_values" in case:
            expected = torch.tensor(case["pixel_values"])
        else:
            expected = normalised(case["pixel_values_u8"])
        assert torch.equal(found["pixel_values"][0], expected)
        assert int((found["input_ids"] == 352).sum()) == num_tokens


def test_llava_next(shared: Path, tmp_path: Path) -> None:
    family = shared / "golden" / "family"
    case = np.load(family / "cases" / "llava16_tall.npz")
    source = family / "llava-v1.6-tiny"
    model = converted(source, tmp_path / "hf", "LlavaNextForConditionalGeneration")
    count = int(case["image_token_count"])
    with torch.inference_mode():
        logits = model(
            input_ids=with_marks(case["input_ids"], [count], model.config.image_token_id),
            pixel_values=normalised(case["pixel_values_u8"])[None],
            image_sizes=torch.tensor([case["image_0"].shape[:2]]),
        ).logits[0]
    assert largest_error(logits, case["logits"]) <= LIMIT


def test_llava_next_video_with_its_positions_scaled(shared: Path, tmp_path: Path) -> None:
    family = shared / "golden" / "family"
    case = np.load(family / "cases" / "next_video_release.npz")
    source = family / "LLaVA-NeXT-Video-tiny"
    model = converted(source, tmp_path / "hf", "LlavaNextVideoForConditionalGeneration")
    frames = np.stack([cropped(frame) for frame in case["frames"]])
    assert np.array_equal(frames[0], case["pixel_values_u8_frame0"])
    assert np.array_equal(frames[:, :, ::12, ::12], case["pixel_values_u8_every12"])
    count = int(case["image_token_count"])
    with torch.inference_mode():
        logits = model(
            input_ids=with_marks(case["input_ids"], [count], model.config.video_token_id),
            pixel_values_videos=normalised(frames)[None],
        ).logits[0]
    assert largest_error(logits[case["logit_positions"]], case["logits"]) <= LIMIT


def test_llava_onevision_and_its_processor(shared: Path, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor

    golden = shared / "golden" / "onevision_video"
    case = np.load(golden / "cases" / "image_anyres_small.npz")
    source = golden / "model_a"
    model = converted(source, tmp_path / "hf", "LlavaOnevisionForConditionalGeneration")
    assert (model.config.image_token_id, model.config.video_token_id) == (883, 884)
    processor = AutoImageProcessor.from_pretrained(tmp_path / "hf", use_fast=False)
    found = processor(images=[case["image_0"]], return_tensors="pt")
    assert np.array_equal(found["pixel_values"][0][:, :, 3::8, 5::8], case["pixel_sub"])
    count = int(case["feature_counts"][0])
    with torch.inference_mode():
        logits = model(
            input_ids=with_marks(case["input_ids"], [count], model.config.image_token_id),
            **found,
        ).logits[0]
    at = case["logits_positions"]
    assert largest_error(logits[at], case["logits_at_positions"]) <= LIMIT
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["text_vocab_size"] == 1024
