"""The table of public checkpoints: complete, and its arithmetic by hand."""

import pytest

from llava_video.model.known_models import find_known, known_models
from llava_video.values import Newline


def test_the_public_checkpoints_are_there_once():
    names = [model.name for model in known_models()]
    assert len(names) == len(set(names))
    for size in ("0.5b", "7b", "72b"):
        for stage in ("si", "ov"):
            assert f"lmms-lab/llava-onevision-qwen2-{size}-{stage}" in names
            assert f"llava-hf/llava-onevision-qwen2-{size}-{stage}-hf" in names
    assert "lmms-lab/LLaVA-Video-7B-Qwen2" in names
    assert "lmms-lab/LLaVA-Video-72B-Qwen2" in names


def test_frames_and_tokens_by_hand():
    onevision = find_known("lmms-lab/llava-onevision-qwen2-7b-ov")
    # 14 x 14 = 196 per frame, one newline after the clip: 32 x 196 + 1 = 6273
    assert (onevision.max_frames, onevision.tokens_per_frame) == (32, 196)
    assert onevision.tokens_per_video == 6273
    video = find_known("lmms-lab/LLaVA-Video-7B-Qwen2")
    # 14 rows of 14 and a newline: 210 per frame; 64 frames: 13440
    assert (video.max_frames, video.tokens_per_frame) == (64, 210)
    assert video.tokens_per_video == 13_440
    assert video.time_instruction
    assert video.newline is Newline.ROW


@pytest.mark.parametrize(
    "name",
    [
        "lmms-lab/LLaVA-Video-7B-Qwen2",
        "/data/checkpoints/LLaVA-Video-7B-Qwen2",
        "/data/checkpoints/llava-video-7b-qwen2/",
        "C:\\models\\LLaVA-Video-7B-Qwen2",
    ],
)
def test_found_by_id_and_by_folder(name: str):
    assert find_known(name).name == "lmms-lab/LLaVA-Video-7B-Qwen2"


@pytest.mark.parametrize("name", ["", "/", "LLaVA-Video", "someone/another-model"])
def test_unknown_names_find_nothing(name: str):
    assert find_known(name) is None


def test_licences_are_never_empty():
    assert {model.licence for model in known_models()} <= {"see the model card", "apache-2.0"}
