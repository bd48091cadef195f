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
