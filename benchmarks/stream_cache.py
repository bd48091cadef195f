"""Does a stream cost the same per frame after 10,000 windows as at the start, in time and memory?

A window of the last frames slides on by one frame at a time, through the engine as a camera's would
(`engine/sliding`): each step reads one frame, among the sinks and the frames before it, and every
hundredth is followed by a question. The step is bound by the frame's own rows, so it should be
flat: good is a ratio of the last hundred steps' median to the first hundred's (of full windows)
below 1.05, and no byte more. On a CPU that ratio is of the process's own seconds, which others on
the machine hardly change; on a GPU, of the clock's. Beside it what the same step costs as a plain
rolling window, which reads the whole clip anew. Shapes: "demo" is the package's model on this
machine's CPU; "0.5b" and "7b" are drawn at their true sizes on a GPU, 210 rows a frame, one window
of 32 frames.

    python benchmarks/stream_cache.py [--size demo|0.5b|7b] [--windows 10000] [--append] [--check]
"""

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gpu_bench import Bench
from gpu_models import QUESTION_IDS, engine_of, generation_of, plan_of, random_model, video_part
from harness import (
    can_measure_memory,
    parser_of,
    peak_rss_bytes,
    percentile,
    report,
    reset_peak_rss,
    rss_bytes,
    synchronize,
)

from llava_video.api import load
from llava_video.engine.request import Request, TextPart, VisualPart, answer_of
from llava_video.engine.scheduler import Scheduler
from llava_video.engine.settings import EngineSettings
from llava_video.engine.sliding import SlidingWindow
from llava_video.values import Clip

NUM_WINDOWS, CHECK_WINDOWS = 10_000, 60
# Steps whose median is compared, at either end; every so many steps a question is asked.
END_STEPS, QUESTION_EVERY = 100, 100
SINK_IDS = tuple(range(10, 24))
WINDOW_FRAMES = {"demo": 16, "0.5b": 32, "7b": 32}
_MOST_RATIO = 1.05
_CLIP_REPEATS = 5
_PICTURE_PX = (180, 320)


def main(arguments: list[str] | None = None) -> int:
    """Measure and say what is not as it should be; return the exit status."""
    parser = parser_of(__doc__)
    parser.add_argument("--size", choices=tuple(WINDOW_FRAMES), default="demo")
    parser.add_argument("--windows", type=int, default=NUM_WINDOWS)
    options = parser.parse_args(arguments)
    num_windows = CHECK_WINDOWS if options.check else options.windows
    engine, frame_of, clip = subject_of(options.size, is_check=options.check)
    row = measure_stream(engine, frame_of, clip, WINDOW_FRAMES[options.size], num_windows)
    faults = [] if options.check else faults_of(row)
    for name, value in row.items():
        print(f"{name:24} {value:,.6f}" if isinstance(value, float) else f"{name:24} {value:,}")
    for fault in faults:
        print(fault)
    found = {"size": options.size, **row, "faults": faults}
    report("stream_cache", found, append=options.append)
    return 1 if faults else 0


def subject_of(
    size: str, *, is_check: bool
) -> tuple[Scheduler, Callable[[int], VisualPart], VisualPart]:
    """Return an engine, the stream's frames by number, and a whole window as one clip."""
    settings = {"kept_prefixes": 0}
    num_frames = WINDOW_FRAMES[size]
    if size == "demo":
        model = load("demo", engine=EngineSettings(**settings))
        height_px, width_px = _PICTURE_PX
        noise = np.random.default_rng(0).integers(
            0, 256, (num_frames, height_px, width_px, 3), np.uint8
        )
        plan = model.plan((noise, np.arange(num_frames) / 2.0), "?").visuals[0]
        assert isinstance(model.engine, Scheduler)
        engine = model.engine

        def clips() -> Any:
            yield Clip(noise, np.arange(num_frames) / 2.0, np.arange(num_frames))

        clip = VisualPart(plan=plan, clips=clips, key="clip")
    else:
        has_gpu = torch.cuda.is_available() and not is_check
        bench = Bench(device=torch.device("cuda" if has_gpu else "cpu"), is_check=not has_gpu)
        engine = engine_of(random_model(bench, size), **settings)
        plan = plan_of(bench, num_frames, 210)
        clip = video_part(plan, "clip")
    one = dataclasses.replace(
        plan,
        times_s=plan.times_s[:1],
        frame_idxs=plan.frame_idxs[:1],
        num_tokens=plan.num_tokens // plan.num_frames,
    )
    return engine, lambda idx: dataclasses.replace(video_part(one), key=f"frame {idx}"), clip


def measure_stream(
    engine: Scheduler,
    frame_of: Callable[[int], VisualPart],
    clip: VisualPart,
    num_frames: int,
    num_windows: int,
) -> dict[str, Any]:
    """Return seconds and bytes of so many slides of a full window."""
    steps_s: list[float] = []
    cpu_s: list[float] = []
    questions_s: list[float] = []
    with SlidingWindow(engine, SINK_IDS, num_frames=num_frames) as window:
        for idx in range(num_frames + 1):
            window.add(frame_of(idx))
        ask(engine, window)  # the arena has all that a question needs
        before = memory_of(engine)
        if can_measure_memory():
            reset_peak_rss()
        for idx in range(num_frames + 1, num_frames + 1 + num_windows):
            before_s = time.process_time()
            steps_s.append(timed(window.add, frame_of(idx)))
            cpu_s.append(time.process_time() - before_s)
            if idx % QUESTION_EVERY == 0:
                questions_s.append(timed(ask, engine, window))
        after = memory_of(engine)
        num_tokens = window.num_tokens
    clip_s = [timed(read_clip, engine, clip) for _ in range(_CLIP_REPEATS)]
    end = min(END_STEPS, num_windows // 3)
    compared_s = steps_s if torch.cuda.is_available() else cpu_s
    first_s, last_s = statistics.median(compared_s[:end]), statistics.median(compared_s[-end:])
    return {
        "windows": num_windows,
        "window_frames": num_frames,
        "window_tokens": num_tokens,
        "first_s": first_s,
        "last_s": last_s,
        "last_to_first": last_s / first_s,
        "p50_s": statistics.median(steps_s),
        "p99_s": percentile(steps_s, 0.99),
        "question_s": statistics.median(questions_s) if questions_s else 0.0,
        "whole_clip_s": statistics.median(clip_s),
        "times_whole_clip": statistics.median(clip_s) / statistics.median(steps_s),
        "cache_bytes": after["cache"],
        "cache_growth_bytes": after["cache"] - before["cache"],
        "rss_growth_bytes": after["rss"] - before["rss"],
        "peak_growth_bytes": after["peak"] - before["rss"],
    }


def faults_of(row: dict[str, Any]) -> list[str]:
    """Say what is not as it should be."""
    limits = (
        ("last_to_first", row["last_to_first"] <= _MOST_RATIO),
        ("cache_growth_bytes", row["cache_growth_bytes"] == 0),
        ("rss_growth_bytes", row["rss_growth_bytes"] <= 16 * 2**20),
    )
    return [f"{name} = {row[name]:,}" for name, is_good in limits if not is_good]


def ask(engine: Scheduler, window: SlidingWindow) -> None:
    """Ask for one token over the window."""
    request = Request(parts=(TextPart(QUESTION_IDS),), generation=generation_of(1))
    answer_of(engine, window.branch(request))


def read_clip(engine: Scheduler, clip: VisualPart) -> None:
    """Read a whole window's frames as one clip, with a question: a step of a rolling window."""
    parts = (TextPart(SINK_IDS), clip, TextPart(QUESTION_IDS))
    answer_of(engine, Request(parts=parts, generation=generation_of(1)))


def timed(run: Callable[..., None], *arguments: Any) -> float:
    """Return the seconds a call takes, the device's work included."""
    begun_s = time.perf_counter()
    run(*arguments)
    synchronize()
    return time.perf_counter() - begun_s


def memory_of(engine: Scheduler) -> dict[str, int]:
    """Return the bytes of the cache's slabs, of this process now, and at most."""
    is_told = can_measure_memory()
    return {
        "cache": engine.arena.held_bytes,
        "rss": rss_bytes() if is_told else 0,
        "peak": peak_rss_bytes() if is_told else 0,
    }


if __name__ == "__main__":
    sys.exit(main())
