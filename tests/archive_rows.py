"""Rows for the tests of archives: made of answers without a model, or by the oracle."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from llava_video.archive.row import Asked, Maker, Row, error_row, make_row
from llava_video.archive.unit import Item, Unit, UnitError, unit_key
from llava_video.timeline import Caption, Timeline
from llava_video.values import (
    Description,
    FrameRef,
    Grid,
    MemoryEstimate,
    Newline,
    Plan,
    Segment,
    TokenUsage,
    VisualPlan,
)


def unit(number: int = 0, **facts: Any) -> Unit:
    """Return a unit of its own content."""
    item = Item(number=number, **({"address": "clips/one.mp4"} | facts))
    content_hash = sha256(f"content {number}".encode()).hexdigest()
    key = unit_key(content_hash, item, "task", "revision")
    return Unit(key=key, number=number, item=item, content_hash=content_hash)


def plan(source: str = "clips/one.mp4", end_s: float = 4.0) -> Plan:
    """Return a plan of two frames."""
    visual = VisualPlan(
        kind="video",
        source=source,
        height_px=96,
        width_px=128,
        times_s=(0.0, end_s / 2),
        frame_idxs=(0, 7),
        fit="squeeze",
        grid=Grid(1, 1),
        overview=False,
        pool_mode="bilinear",
        pool_stride=2,
        newline=Newline.ROW,
        crop=(0, 4, 0, 4),
        map_size=(2, 2),
        num_tokens=12,
        duration_s=end_s,
        end_s=end_s,
    )
    return Plan(
        model="tiny",
        prompt="<image>\nWhat is there?",
        visuals=(visual,),
        text_tokens=9,
        max_new_tokens=16,
        context_tokens=512,
        budget_tokens=256,
        memory=MemoryEstimate(1, 2, 3),
    )


def description(text: str, **facts: Any) -> Description:
    """Return an answer."""
    whole: dict[str, Any] = {
        "plan": plan(),
        "frames": (FrameRef(0, 0.0), FrameRef(7, 2.0)),
        "usage": TokenUsage(9, 12, 5, reused_tokens=3),
        "finish_reason": "stop",
        "coverage": (Segment(0.0, 4.0),),
        "timings": {"vision": 0.25, "total": 0.5},
        "provenance": {
            "model": "tiny",
            "revision": None,
            "seed": 0,
            "videos": [{"source": "x", "reader": "pyav", "reason": "exact"}],
            "python": "3.11",
        },
    }
    return Description(text=text, **(whole | facts))


def caption_row(number: int, text: str, **item: Any) -> Row:
    """Return the row of a caption."""
    return make_row(unit(number, **item), [description(text)], Asked(task="caption"))


def ask_row(number: int, answers: Mapping[str, str], **item: Any) -> Row:
    """Return the row of several questions."""
    asked = Asked(task="ask", prompts=tuple(answers))
    return make_row(unit(number, **item), [description(t) for t in answers.values()], asked)


def timeline_row(number: int, captions: list[tuple[float, float, str]], **item: Any) -> Row:
    """Return the row of a timeline."""
    told = tuple(
        Caption(segment=Segment(start_s, end_s), text=text, description=description(text))
        for start_s, end_s, text in captions
    )
    timeline = Timeline(
        captions=told,
        summary=" ".join(text for *_, text in captions),
        coverage=tuple(caption.segment for caption in told),
    )
    asked = Asked(task="timeline", window_s=30.0, overlap_s=0.0)
    return make_row(unit(number, **item), timeline, asked)


def failed_row(number: int, *, quarantined: bool = False, **item: Any) -> Row:
    """Return the row of a unit without an answer."""
    kind = item.pop("kind", "DecodeError")
    trouble = UnitError(
        kind=kind, message="frame 7 cannot be decoded.", hint="mend the file.", position_s=0.25
    )
    asked, maker = Asked(task="caption"), Maker(attempts=3, model="tiny", revision="fa7e")
    return error_row(unit(number, **item), trouble, asked, maker, quarantined=quarantined)


def sealed_run(folder: Path, rows: list[Row], *, size: int = 2) -> Path:
    """Write a run folder of sealed shards."""
    from llava_video.archive.shards import seal

    for shard, first in enumerate(range(0, len(rows), size)):
        seal(folder, shard, rows[first : first + size], first=first)
    return folder
