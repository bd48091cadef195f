"""What does decoding in a process of its own cost? Against the same reading in this process.

Bound by the codec, as reading is; what is added is a copy of each frame into memory that both
processes map, one out of it, and a message. 1080p H.264 at 30 frames per second, made on the spot;
times include opening and probing, in a worker that has been started. Good: at most 1.10 times as
long, for 64 frames of ten minutes and for every frame of ten seconds. A worker's start and its
memory beside them; it has neither torch nor a model to load.

    python benchmarks/sandbox.py [--append] [--check]
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from footage import write_footage
from harness import Timing, interleaved, parser_of, report

from llava_video.video.decoder import Decoder, open_decoder
from llava_video.video.probe import probe
from llava_video.video.sandbox import DecoderPool
from llava_video.video.sandbox_memory import status_bytes
from llava_video.video.sandbox_process import WorkerProcess
from llava_video.video.sandboxed_decoder import SandboxedDecoder
from llava_video.video.settings import SandboxSettings
from llava_video.video.source import Source, open_source

MAX_RATIO = 1.10
_NUM_SPARSE = 64
_OPENER = "llava_video.video.decoder:open_decoder"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large everything is."""

    long_s: int = 600
    short_s: int = 10
    height_px: int = 1080
    width_px: int = 1920
    repeats: int = 7
    num_starts: int = 9


_CHECK = Sizes(long_s=8, short_s=2, height_px=90, width_px=160, repeats=2, num_starts=2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 where the target is missed."""
    asked = parser_of(__doc__).parse_args(arguments)
    sizes = _CHECK if asked.check else Sizes()
    with tempfile.TemporaryDirectory() as scratch:
        cases = [
            _case(Path(scratch), f"{_NUM_SPARSE} frames of {sizes.long_s} s", sizes.long_s, sizes),
            _case(Path(scratch), f"every frame of {sizes.short_s} s", sizes.short_s, sizes),
        ]
    worker = _worker(sizes.num_starts)
    passed = all(case["passed"] for case in cases)
    row = {"cases": cases, "worker": worker, "passed": passed, "check": asked.check}
    report("sandbox", row, append=asked.append)
    return 0 if passed or asked.check else 1


def _case(folder: Path, name: str, seconds: int, sizes: Sizes) -> dict[str, Any]:
    path = write_footage(
        folder / f"{seconds}.mp4",
        seconds=seconds,
        gop_frames=30,
        height_px=sizes.height_px,
        width_px=sizes.width_px,
        clip_s=min(seconds, 10),
    )
    source = open_source(path)
    times_s = probe(source).pts_s
    if seconds == sizes.long_s:
        times_s = times_s[np.linspace(0, len(times_s) - 1, _NUM_SPARSE).astype(int)]
    with DecoderPool(SandboxSettings(num_workers=1, videos_per_worker=10_000)) as pool:
        runs = {
            "here": _reading(source, open_decoder, times_s.tolist()),
            "sandbox": _reading(source, pool.open, times_s.tolist()),
        }
        timings = interleaved(runs, repeats=sizes.repeats, budget_s=300)
        with pool.open(source) as decoder:
            backend, worker_bytes = decoder.backend, _resident_bytes(decoder)
    ratio = _longer(timings)
    print(
        f"{name:<22} {len(times_s)} frames by {backend}: sandbox {timings['sandbox']}, here "
        f"{timings['here']}; {ratio:.3f} x, limit {MAX_RATIO} x; worker {worker_bytes / 1e6:.0f} MB"
    )
    return {
        "name": name,
        "frames": len(times_s),
        "size_px": [sizes.height_px, sizes.width_px],
        "reader": backend,
        "ratio": ratio,
        "limit": MAX_RATIO,
        "worker_bytes": worker_bytes,
        "timings": {what: timing.to_json() for what, timing in timings.items()},
        "passed": ratio <= MAX_RATIO,
    }


def _reading(
    source: Source, open_with: Callable[[Source], Decoder], times_s: Sequence[float]
) -> Callable[[], None]:
    def read() -> None:
        num_frames = 0
        with open_with(source) as decoder:
            for clip in decoder.clips_at(times_s):
                num_frames += len(clip.frames)
        assert num_frames == len(times_s)

    return read


def _longer(timings: dict[str, Timing]) -> float:
    """Return how many times as long the sandbox takes: the median over neighbouring runs."""
    pairs = zip(timings["sandbox"].seconds, timings["here"].seconds, strict=True)
    return statistics.median(sandbox_s / here_s for sandbox_s, here_s in pairs)


def _worker(num_starts: int) -> dict[str, Any]:
    seconds = []
    for _ in range(num_starts):
        before_s = time.perf_counter()
        worker = WorkerProcess(SandboxSettings(), _OPENER)
        seconds.append(time.perf_counter() - before_s)
        idle_bytes = status_bytes("VmHWM", worker.pid)
        worker.kill()
    start = Timing(tuple(seconds))
    print(f"a worker starts in {start} and then has {idle_bytes / 1e6:.0f} MB")
    return {"start": start.to_json(), "idle_bytes": idle_bytes}


def _resident_bytes(decoder: Decoder) -> int:
    """Return the most memory that a decoder's worker has had, mapped files included."""
    assert isinstance(decoder, SandboxedDecoder)
    return status_bytes("VmHWM", decoder.pid)


if __name__ == "__main__":
    sys.exit(main())
