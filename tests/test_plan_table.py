"""The plan as a person reads it."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from planning_fixtures import FAMILY, MINI_8B

from llava_video.plan_table import bytes_words, plan_table
from llava_video.planning.geometry import Geometry
from llava_video.planning.planner import ImageItem, VideoItem, plan_request
from llava_video.planning.settings import PlanningSettings, SamplingSettings
from llava_video.values import MemoryEstimate

pytest_plugins = ["planning_fixtures"]


def test_the_whole_table(make_info: Callable, plan_one: Callable):
    plan = plan_one(make_info(), sampling=SamplingSettings(num_frames=8))
    plan = replace(plan, memory=replace(plan.memory, activation_bytes=200 * 2**20))
    text = plan.text_tokens
    assert plan_table(plan).splitlines() == [
        "model     LLaVA-Video-7B-Qwen2",
        "video     clip.mp4: 1280 px wide, 720 px high, 10.00 s",
        "frames    8 from 0.00 s to 9.97 s; all times in the prompt",
        "tiles     1 per frame, squeezed to a square",
        "rows      14 x 14 map; bilinear pooling by 2; newline after each row; 210 per frame, "
        "1,680 in all",
        f"tokens    1,680 visual (of {32256 - text:,}) + {text} text + 512 answer = "
        f"{2192 + text:,} (of 32,768)",
        "memory    15.3 GiB: weights 15.0 GiB (plain), cache 125.2 MiB (plain), activations about "
        "200.0 MiB",
        "because   8 of the video's 300 frames, spread evenly: 0.00 s to 9.97 s.",
    ]


def test_memory_by_part_and_precision(make_info: Callable, plan_one: Callable):
    memory = MemoryEstimate(6 * 2**30, 7 * 2**29, 300 * 2**20, 358 * 2**20)
    plan = replace(plan_one(make_info()), weight_format="int4", kv_format="int8", memory=memory)
    table = " ".join(plan_table(plan).split())
    assert (
        "memory 10.1 GiB: weights 6.0 GiB (int4), cache 3.5 GiB (int8), activations about 300.0 "
        "MiB, workspace about 358.0 MiB"
    ) in table


@pytest.mark.parametrize(
    ("num_bytes", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (3 * 2**30, "3.0 GiB"),
        (2**50, "1024.0 TiB"),
    ],
)
def test_bytes_in_words(num_bytes: int, words: str):
    assert bytes_words(num_bytes) == words


def test_tiles_sacrifices_and_warnings(make_info: Callable, plan_one: Callable):
    info = make_info(size_px=(1080, 1920))
    few = SamplingSettings(num_frames=8)
    tiled = plan_table(plan_one(info, sampling=few, detail="high"))
    assert "tiles     16 per frame: 3 x 5 (rows x columns) and an overview, fitted to its grid" in (
        tiled
    )
    assert "rows      38 x 68 map, 14 x 14 overview; bilinear pooling by 2; newline" in tiled
    cut = plan_table(plan_one(info, max_video_tokens=600, position_scale=1.5))
    assert "because   Pool stride 2 → 4:" in cut
    assert "because   Frames 64 → 10:" in cut
    assert "warning   Only 10 of 64 chosen frames fit the budget." in cut
    assert "(of 32,768 x 1.5)" in cut


def test_other_layouts(make_info: Callable, plan_one: Callable, geometry: Geometry):
    slow = plan_table(plan_one(make_info(), model=replace(geometry, slow_every=10)))
    assert "14 x 14 map, every 10th frame so, the others 7 x 7, a separator after each" in slow
    thinned = plan_table(plan_one(make_info(), time_share=0.005))
    assert "every 4th time in the prompt" in thinned
    silent = plan_table(plan_one(make_info(), time_instruction=False))
    assert "no times in the prompt" in silent
    single = plan_table(plan_one(make_info(1)))
    assert "frames    1 at 0.00 s; all times in the prompt" in single
    assert "per frame, " in silent
    assert "per frame, " not in single.split("rows")[1]
    one_newline = plan_table(plan_one(make_info(), newline="clip"))
    assert "newline at the end; about 196 per frame, 12,545 in all" in one_newline


@pytest.mark.parametrize("num_images", [1, 2])
def test_pictures(make_info: Callable, geometry: Geometry, text_of: Callable, num_images: int):
    picture = ImageItem(height_px=1080, width_px=1920, name="p.png")
    items = [picture] * num_images + [VideoItem(info=make_info(), name="a.mp4")]
    plan = plan_request(items, geometry, PlanningSettings(), SamplingSettings(), text_of)
    table = " ".join(plan_table(plan).split())
    assert "image 1 p.png: 1920 px wide, 1080 px high tiles" in table
    assert f"video {num_images + 1} a.mp4" in table
    tiled = "rows 60 x 108 map, 27 x 27 overview; shrunk from 75 x 135; newline"
    padded = "tiles 1 per picture, padded to a square rows 27 x 27 map; not pooled; newline at"
    assert (tiled in table, padded in table) == (num_images == 1, num_images == 2)


def lines_of(table: str) -> dict[str, str]:
    """Return the words behind each label; of repeated ones the first."""
    found: dict[str, str] = {}
    last = ""
    for line in table.splitlines():
        label, words = line[:10].strip(), line[10:]
        last = label or last
        if label and label in found:
            last = f"{label} more"
        found[last] = f"{found.get(last, '')} {words}".strip()
    return found


def test_the_family(make_info: Callable, plan_one: Callable):
    """What a person reads of a video of 10 s."""
    v1, v15, tiled, video, mini, hd = (
        lines_of(plan_table(plan_one(make_info(), model=model))) for model in FAMILY
    )
    assert v1["tiles"] == "1 per frame, its middle cropped to a square"
    assert v1["rows"] == "16 x 16 map; not pooled; no newlines; 256 per frame, 2,048 in all"
    assert v15["tiles"] == "1 per frame, padded to a square"
    assert v15["because"].startswith("This model was not trained on video: each frame is given")
    assert v15["tokens"].endswith("(of 4,096 x 1.26)")
    assert v15["warning"].startswith("At position_scale=1.26 positions lie closer")
    assert tiled["rows"].endswith("newline after each frame; 577 per frame, 4,616 in all")
    assert video["rows"] == (
        "12 x 12 map; average pooling by 2 before the projector; no newlines; 144 per frame, 4,608 "
        "in all"
    )
    assert mini["tiles"] == "1 per frame, squeezed to a square, without a filter"
    assert mini["rows"] == (
        "1 x 1 map; compressed from 24 x 24, fused with the prompt; no newlines; 1 per frame, 10 "
        "in all"
    )
    assert mini["because"].startswith("What is seen is fused with the prompt")
    assert hd["tiles"].startswith("5 per frame: 2 x 2 (rows x columns) and the whole, squeezed")
    assert hd["rows"].startswith("8 x 8 map; compressed from 48 x 48, fused")


def test_one_token_is_one(make_info: Callable, plan_one: Callable):
    assert plan_table(plan_one(make_info(1), model=MINI_8B)).count("; 1 token\n") == 1


def test_no_line_is_wide(make_info: Callable, plan_one: Callable):
    plan = plan_one(make_info(200_000), sampling=SamplingSettings(fps=1.0, max_frames=9000))
    lines = plan_table(plan).splitlines()
    assert max(map(len, lines)) <= 100
    assert len(lines) <= 20
