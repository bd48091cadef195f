"""The files beside the weights: placeholders become tokens and go again, the rest stays."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from llava_video.errors import CheckpointError
from llava_video.model.dimensions import VisionConfig
from llava_video.model.hf_files import files_for_hf, files_for_original
from llava_video.model.model_config import ModelConfig, read_model_config
from llava_video.model.tiny import write_tiny_checkpoint

VIDEO_VALUES: dict[str, Any] = {
    "model_type": "llava_onevision",
    "image_token_index": 259,
    "video_token_index": 260,
    "image_grid_pinpoints": [[56, 112]],
    "vision_aspect_ratio": "anyres_max_9",
    "vision_feature_select_strategy": "full",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_checkpoint(tmp_path / "model")


@pytest.fixture
def config(folder: Path) -> ModelConfig:
    return read_model_config(folder)


def parsed(files: dict[str, bytes]) -> dict[str, Any]:
    return {name: json.loads(text) for name, text in files.items() if name.endswith(".json")}


def test_placeholders_become_tokens(folder: Path, config: ModelConfig) -> None:
    files = parsed(files_for_hf(folder, config, VIDEO_VALUES))
    added = {one["content"]: one["id"] for one in files["tokenizer.json"]["added_tokens"]}
    assert (added["<image>"], added["<video>"], added["<|im_end|>"]) == (259, 260, 258)
    settings = files["tokenizer_config.json"]
    assert settings["added_tokens_decoder"]["260"]["content"] == "<video>"
    assert (settings["image_token"], settings["video_token"]) == ("<image>", "<video>")
    assert settings["processor_class"] == "LlavaOnevisionProcessor"
    assert files["processor_config.json"]["num_image_tokens"] == 4 * 4  # 56 px of 14 px patches


def test_processors_say_how_pixels_are_made(folder: Path, config: ModelConfig) -> None:
    files = parsed(files_for_hf(folder, config, VIDEO_VALUES))
    pictures = files["preprocessor_config.json"]
    assert pictures["size"] == {"height": 56, "width": 56}  # SigLIP squeezes
    assert pictures["image_grid_pinpoints"] == [[56, 112]]
    assert "do_center_crop" not in pictures
    videos = files["video_preprocessor_config.json"]
    assert videos["video_processor_type"] == "LlavaOnevisionVideoProcessor"


@pytest.mark.parametrize(("aspect", "is_padded"), [("pad", True), ("square", False)])
def test_a_clip_tower_crops_the_middle(
    folder: Path, config: ModelConfig, aspect: Any, is_padded: bool
) -> None:
    vision = dataclasses.replace(VisionConfig(), kind="clip", image_px=336)
    clip = dataclasses.replace(
        config,
        dimensions=dataclasses.replace(config.dimensions, vision=vision),
        visual=dataclasses.replace(config.visual, aspect=aspect),
    )
    values = {
        "model_type": "llava",
        "image_token_index": 259,
        "vision_feature_select_strategy": "default",
    }
    files = parsed(files_for_hf(folder, clip, values))
    pictures = files["preprocessor_config.json"]
    assert pictures["size"] == {"shortest_edge": 336}
    assert pictures["crop_size"] == {"height": 336, "width": 336}
    assert pictures["do_center_crop"]
    assert pictures["do_pad"] is is_padded
    # 24 x 24 tokens are 577 features less one: the class token, which "default" drops.
    assert files["processor_config.json"]["num_additional_image_tokens"] == 1
    assert "video_preprocessor_config.json" not in files
    decoder = files["tokenizer_config.json"]["added_tokens_decoder"].values()
    assert [token["content"] for token in decoder] == ["<image>"]


def test_there_and_back_is_what_was_there(
    folder: Path, config: ModelConfig, tmp_path: Path
) -> None:
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 32768}')
    (folder / "added_tokens.json").write_text('{"<|im_end|>": 258}')
    (folder / "merges.txt").write_text("a b\n")
    (tmp_path / "hf").mkdir()
    for name, content in files_for_hf(folder, config, VIDEO_VALUES).items():
        (tmp_path / "hf" / name).write_bytes(content)
    (tmp_path / "hf" / "added_tokens.json").write_text('{"<|im_end|>": 258, "<image>": 259}')
    back = files_for_original(tmp_path / "hf", 259)
    assert set(back) == {
        "tokenizer.json",
        "tokenizer_config.json",
        "added_tokens.json",
        "merges.txt",
    }
    files = parsed(back)
    assert files["tokenizer.json"] == json.loads((folder / "tokenizer.json").read_text())
    assert files["added_tokens.json"] == {"<|im_end|>": 258}
    assert files["tokenizer_config.json"] == {
        "model_max_length": 32768,
        "added_tokens_decoder": {},
    }


def test_ids_that_a_conversion_added_go_by_their_number(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append(
        {**tokenizer["added_tokens"][0], "id": 300, "content": "<pad>"}
    )
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    kept = parsed(files_for_original(folder, 300))["tokenizer.json"]["added_tokens"]
    assert "<pad>" not in {one["content"] for one in kept}
    assert len(kept) == 3


def test_a_damaged_tokenizer_is_told(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        files_for_original(folder, 300)
