"""Videos, models and a tokenizer to plan with: plain values, no file, no weight."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from llava_video.planning.geometry import Geometry
from llava_video.planning.memory import Setup
from llava_video.planning.planner import VideoItem, plan_request
from llava_video.planning.settings import PlanningSettings, SamplingSettings
from llava_video.planning.time_note import TimeNote
from llava_video.values import Newline, Plan, VideoInfo

SIDES_PX = (384, 768, 1152, 1536, 1920, 2304)
# The checkpoints list (width, height) with the width outermost; here (height, width).
CANVASES = tuple((height, width) for width in SIDES_PX for height in SIDES_PX)

LLAVA_VIDEO_7B = Geometry(
    model="LLaVA-Video-7B-Qwen2",
    canvases=CANVASES,
    aspect="anyres",
    anyres_max=9,
    unpad=True,
    merge="spatial",
    newline=Newline.ROW,
    has_newline=True,
    pool_mode="bilinear",
    context_tokens=32768,
    max_frames=64,
    is_qwen=True,
    time_instruction=True,
    num_layers=28,
    num_heads=28,
    num_kv_heads=4,
    head_dim=128,
    hidden_size=3584,
    intermediate_size=18_944,
    vocab_size=152_064,
    weights_bytes=16_060_693_056,
)

# What CLIP's tower at 336 px and the 7B decoders of 4,096 channels share.
_CLIP = Geometry(
    model="llava-v1.5-7b",
    tile_px=336,
    canvases=(),
    aspect="pad",
    square_fit="crop",
    video_fit="pad",
    keeps_line=False,
    pads_several=False,
    anyres_max=None,
    unpad=False,
    merge="flat",
    newline=Newline.NONE,
    has_newline=False,
    pool_mode="average",
    pool_stride=1,
    context_tokens=4096,
    max_frames=8,
    is_video_trained=False,
    stretches=True,
    time_instruction=False,
    num_layers=32,
    num_heads=32,
    num_kv_heads=32,
    head_dim=128,
    hidden_size=4096,
    intermediate_size=11_008,
    vocab_size=32_000,
    vision_width=1024,
    vision_intermediate_size=4096,
    weights_bytes=2 * 7_050_304_512,
)
LLAVA_15_7B = _CLIP
LLAVA_1_7B = replace(
    _CLIP,
    model="llava-7b-v1",
    tile_px=224,
    aspect="square",
    video_fit="crop",
    context_tokens=2048,
    projector_layers=1,
)
NEXT_7B = replace(
    _CLIP,
    model="llava-v1.6-vicuna-7b",
    aspect="anyres",
    canvases=((672, 336), (336, 672), (672, 672), (336, 1008), (1008, 336)),
    video_fit="squeeze",
    unpad=True,
    merge="spatial",
    newline=Newline.FRAME,
    has_newline=True,
)
NEXT_VIDEO_7B = replace(
    NEXT_7B,
    model="LLaVA-NeXT-Video-7B",
    video_fit="crop",
    newline=Newline.NONE,
    pool_stride=2,
    pool_of="features",
    max_frames=32,
    reference_rule="spread",
    is_video_trained=True,
)
MINI_8B = replace(
    _CLIP,
    model="llava-mini-llama-3.1-8b",
    video_fit="nearest",
    context_tokens=131_072,
    max_frames=131_072,
    fps=1.0,
    reference_rule="midpoints",
    is_video_trained=True,
    stretches=False,
    compressed_side=1,
    fusion_layers=4,
    num_kv_heads=8,
    intermediate_size=14_336,
    vocab_size=128_256,
    weights_bytes=2 * 9_218_802_688,
)
MINI_HD_8B = replace(MINI_8B, model="llava-mini-hd-8b", compressed_side=8, split=2)
FAMILY = (LLAVA_1_7B, LLAVA_15_7B, NEXT_7B, NEXT_VIDEO_7B, MINI_8B, MINI_HD_8B)

# The engine's own chunk sizes, on a GPU.
SETUP = Setup(prefill_chunk_tokens=2048, tile_chunk=16)

QUESTION = "<|im_start|>user\n{marks}\nWhat happens here?<|im_end|>\n<|im_start|>assistant\n"


def write_prompt(notes: Sequence[TimeNote | None]) -> tuple[str, int]:
    """Write a prompt and count it as Qwen2 would, nearly: words, and every digit and sign alone."""
    marks = "\n".join(f"<image>\n{note.sentence()}" if note else "<image>" for note in notes)
    text = QUESTION.format(marks=marks)
    words = re.findall(r"<\|\w+\|>|[^\W\d]+|\S|\n", text.replace("<image>", ""))
    return text, len(words)


@pytest.fixture(scope="session")
def text_of() -> Callable[..., tuple[str, int]]:
    return write_prompt


@pytest.fixture(scope="session")
def geometry() -> Geometry:
    """LLaVA-Video-7B, by the facts of its configuration."""
    return LLAVA_VIDEO_7B


@pytest.fixture(scope="session")
def one_vision() -> Geometry:
    """LLaVA-OneVision-7B: one newline at the end, no time sentence, 32 frames."""
    return replace(
        LLAVA_VIDEO_7B,
        model="llava-onevision-qwen2-7b-ov",
        newline=Newline.CLIP,
        time_instruction=False,
        max_frames=32,
    )


@pytest.fixture(scope="session")
def next_pictures() -> Geometry:
    """LLaVA-NeXT-7B: tiled pictures, not trained on video."""
    return NEXT_7B


@pytest.fixture(scope="session")
def next_video() -> Geometry:
    """LLaVA-NeXT-Video-7B, as it was released."""
    return NEXT_VIDEO_7B


@pytest.fixture(scope="session")
def mini() -> Geometry:
    """LLaVA-Mini of Llama-3.1-8B: a frame is one token, fused with the prompt."""
    return MINI_8B


@pytest.fixture(scope="session")
def mini_hd() -> Geometry:
    """Its high-resolution variant: 64 tokens of 2 x 2 parts and the whole."""
    return MINI_HD_8B


@pytest.fixture(scope="session")
def make_info() -> Callable[..., VideoInfo]:
    """Make the VideoInfo of a constant rate, or of any pts."""

    def make(
        num_frames: int = 300,
        rate_hz: float = 30.0,
        *,
        size_px: tuple[int, int] = (720, 1280),
        tick_s: float = 1 / 90000,
        pts_s: Any = None,
        **others: Any,
    ) -> VideoInfo:
        if pts_s is None:  # rounded to the tick, as containers do
            pts_s = np.round(np.arange(num_frames) / rate_hz / tick_s) * tick_s
        pts_s = np.asarray(pts_s, dtype=np.float64)
        given = {"duration_s": num_frames / rate_hz, "frame_rate_hz": rate_hz, **others}
        return VideoInfo(
            num_frames=len(pts_s),
            height_px=size_px[0],
            width_px=size_px[1],
            codec="h264",
            container="mp4",
            pts_s=pts_s,
            tick_s=tick_s,
            **given,
        )

    return make


@pytest.fixture(scope="session")
def plan_one(geometry: Geometry) -> Callable[..., Plan]:
    """Plan one video with settings as keywords."""

    def plan(
        info: VideoInfo,
        *,
        model: Geometry = geometry,
        sampling: SamplingSettings | None = None,
        setup: Setup = SETUP,
        **knobs: Any,
    ) -> Plan:
        return plan_request(
            [VideoItem(info=info, name="clip.mp4")],
            model,
            PlanningSettings(**knobs),
            sampling or SamplingSettings(),
            write_prompt,
            setup,
        )

    return plan
