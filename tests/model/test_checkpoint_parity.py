"""Checkpoints of transformers load here and ours load there, with the same logits."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from model_runs import logits_of

from llava_video.model.checkpoint import load_model, save_model
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import read_model_config
from llava_video.model.tiny import write_tiny_checkpoint


def load(folder: Path) -> LlavaModel:
    return load_model(folder, config=read_model_config(folder), device="cpu")


@torch.inference_mode()
def onevision_rows(model: LlavaModel, ids: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Build text, video, text by hand: bilinear to half, rounded up, one newline after the clip."""
    features = model.encode(frames)  # (T, P, D)
    side = round(features.shape[1] ** 0.5)
    maps = features.transpose(1, 2).unflatten(2, (side, side))
    pooled = F.interpolate(maps, size=-(-side // 2), mode="bilinear")
    video = torch.cat([pooled.flatten(2).transpose(1, 2).flatten(0, 1), model.image_newline[None]])
    text = model.language_model.embed(ids)
    return torch.cat([text[:5], video, text[5:]])


@pytest.fixture(scope="module")
def transformers() -> Iterator[object]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers

        transformers.logging.set_verbosity_error()
        yield transformers


def hf_logits(theirs, ids: torch.Tensor, frames: torch.Tensor | None) -> torch.Tensor:
    """Run transformers' model on ids with a video between the first five and the rest."""
    inputs = {"input_ids": ids[None]}
    if frames is not None:
        side = -(-(theirs.config.vision_config.image_size // 14) // 2)
        count = frames.shape[0] * side**2 + 1
        marks = torch.full((count,), theirs.config.video_token_id)
        inputs = {
            "input_ids": torch.cat([ids[:5], marks, ids[5:]])[None],
            "pixel_values_videos": frames[None],
        }
    with torch.inference_mode():
        return theirs(**inputs).logits[0]


def assert_same_logits(model: LlavaModel, theirs) -> None:
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(0, 250, (24,), generator=generator)
    frames = torch.rand(3, 3, 56, 56, generator=generator) * 2 - 1
    text = logits_of(model, model.language_model.embed(ids))
    torch.testing.assert_close(text, hf_logits(theirs, ids, None), atol=1e-4, rtol=0)
    video = logits_of(model, onevision_rows(model, ids, frames))
    expected = hf_logits(theirs, ids, frames)
    torch.testing.assert_close(video, expected, atol=1e-4, rtol=0)
    # A mutant must not pass: two frames swapped move the logits by far more than the tolerance.
    swapped = logits_of(model, onevision_rows(model, ids, frames.flip(0)))
    assert (swapped - expected).abs().max() > 1e-2


@pytest.mark.parametrize("layout", ["original", "hf"])
@pytest.mark.parametrize("tie_embeddings", [False, True])
def test_transformers_loads_what_we_save(
    tmp_path: Path, transformers, layout: str, tie_embeddings: bool
):
    options = {"newline_position": "one_token", "tie_embeddings": tie_embeddings, "seed": 5}
    folder = write_tiny_checkpoint(tmp_path / "tiny", layout=layout, **options)
    model = load(folder)
    target = tmp_path / "saved"
    config = read_model_config(folder)
    save_model(model, target, config=config, layout="hf", shard_bytes=200_000)
    theirs, report = transformers.LlavaOnevisionForConditionalGeneration.from_pretrained(
        target, output_loading_info=True
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not report[kind], kind
    assert_same_logits(model, theirs.eval())


@pytest.mark.parametrize("tie_embeddings", [False, True])
def test_we_load_what_transformers_saves(tmp_path: Path, transformers, tie_embeddings: bool):
    config = transformers.LlavaOnevisionConfig(
        text_config={
            "model_type": "qwen2",
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "vocab_size": 260,
            "rope_parameters": {"rope_type": "linear", "rope_theta": 5e5, "factor": 2.0},
            "tie_word_embeddings": tie_embeddings,
        },
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 40,
            "intermediate_size": 72,
            "num_hidden_layers": 2,
            "num_attention_heads": 5,
            "image_size": 56,
            "patch_size": 14,
            "vision_use_head": False,
        },
        image_grid_pinpoints=[[56, 112], [112, 56], [112, 112]],
        image_token_index=258,
        video_token_index=259,
        tie_word_embeddings=tie_embeddings,
    )
    torch.manual_seed(11)
    theirs = transformers.LlavaOnevisionForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if parameter.ndim > 1:  # away from the almost linear model of the usual small draw
                parameter.mul_(4.0 if "embed" not in name else 1.0)
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="100KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    ours = read_model_config(tmp_path / "theirs")
    assert ours.text.rope_scale == 2.0
    assert ours.text.rope_theta == 5e5
    assert ours.visual.canvases == ((56, 112), (112, 56), (112, 112))
    assert_same_logits(load(tmp_path / "theirs"), theirs)
