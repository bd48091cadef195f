"""The catalogue's numbers are the ones a plan and the published sizes give."""

from pathlib import Path

import pytest

from llava_video.model.catalogue import by_member, catalogue, usual_video, video_words
from llava_video.model.known_models import known_geometry, known_models
from llava_video.model.members import MEMBERS
from llava_video.model.spec import read_spec

ENTRIES = {entry.known.name: entry for entry in catalogue()}


def test_every_known_checkpoint_is_of_one_member() -> None:
    assert list(ENTRIES) == [model.name for model in known_models()]
    groups = by_member()
    assert [member.name for member, _ in groups] == list(MEMBERS)
    assert sorted(e.known.name for _, own in groups for e in own) == sorted(ENTRIES)
    assert all(own for _, own in groups)


@pytest.mark.parametrize(
    ("name", "num_frames", "frame_tokens", "num_tokens"),
    [
        # 16 x 16, 24 x 24, 12 x 12, 14 x 14, 14 x 15: patches, pooled, with their newlines.
        ("liuhaotian/llava-llama-2-13b-chat-lightning-preview", 8, 256, 8 * 256),
        ("liuhaotian/llava-v1.5-7b", 8, 576, 8 * 576),
        ("liuhaotian/llava-v1.6-mistral-7b", 8, 577, 8 * 577),
        ("lmms-lab/LLaVA-NeXT-Video-7B", 32, 144, 32 * 144),
        ("ICTNLP/llava-mini-llama-3.1-8b", 600, 1, 600),
        ("lmms-lab/llava-critic-7b", 32, 196, 32 * 196 + 1),
        ("lmms-lab/LLaVA-Video-7B-Qwen2", 64, 210, 64 * 210),
    ],
)
def test_what_ten_minutes_become(
    name: str, num_frames: int, frame_tokens: int, num_tokens: int
) -> None:
    entry = ENTRIES[name]
    assert (entry.num_frames, entry.frame_tokens, entry.num_tokens) == (
        num_frames,
        frame_tokens,
        num_tokens,
    )


def test_weights_are_as_large_as_the_published_files() -> None:
    # Files in 16 bits, GB: LLaVA-1.5 13.5 without its tower of 0.6, 1.6 14.1 with it.
    assert 13.9e9 < ENTRIES["liuhaotian/llava-v1.5-7b"].bf16_bytes < 14.2e9
    assert 13.9e9 < ENTRIES["liuhaotian/llava-v1.6-vicuna-7b"].bf16_bytes < 14.2e9
    # The language model of 16.06 GB, four more layers of 1.75, tower and projector.
    assert 18.3e9 < ENTRIES["ICTNLP/llava-mini-llama-3.1-8b"].bf16_bytes < 19.1e9
    for entry in ENTRIES.values():
        assert entry.int4_bytes < entry.int8_bytes < entry.bf16_bytes


def test_memory_beside_the_weights_holds_the_cache() -> None:
    # Mini: 32 layers x 2 x 8 heads x 128 x 2 bytes = 128 KiB a token, 664 tokens and the answer.
    cache = (600 + 64) * 32 * 2 * 8 * 128 * 2
    assert ENTRIES["ICTNLP/llava-mini-llama-3.1-8b"].video_bytes > cache
    vicuna, mistral = (
        ENTRIES[f"liuhaotian/llava-v1.6-{name}-7b"].video_bytes for name in ("vicuna", "mistral")
    )
    assert vicuna - mistral > 3 * 4616 * 2 * 32 * 8 * 128 * 2  # 32 heads of keys against 8


def test_short_contexts_are_stretched_and_the_fused_are_read_anew() -> None:
    # 4,608 visual, 64 text and 512 answer tokens in 4,096 positions.
    assert ENTRIES["liuhaotian/llava-v1.5-7b"].position_scale >= (4608 + 64 + 512) / 4096
    assert ENTRIES["lmms-lab/LLaVA-Video-7B-Qwen2"].position_scale == 1.0
    apart = {name for name, entry in ENTRIES.items() if not entry.reusable_prefix}
    assert apart == {"ICTNLP/llava-mini-llama-3.1-8b"}


def test_the_plan_says_so_of_image_models() -> None:
    geometry = known_geometry("liuhaotian/llava-v1.5-7b")
    assert geometry is not None
    assert any("not trained on video" in reason for reason in usual_video(geometry).reasons)


def test_a_rate_of_the_checkpoints_own_is_told(demo_checkpoint: Path) -> None:
    words = video_words(read_spec(demo_checkpoint).geometry)
    assert words.startswith("2 frames a second, at most 24 frames unless asked for more; ")
