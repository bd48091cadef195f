"""Does memory stay flat? A minute or two hours of video, and five hundred files one after another.

Memory bound, each measurement in a fresh process: the most resident memory while 64 frames of a
1080p file are opened and read, by the file's length; and the memory after every hundredth of 500
opens of small files of all kinds, some of them broken. Good: within 30 MB of one another.

    python benchmarks/reading_memory.py [--append] [--check]
"""

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from footage import write_footage
from harness import (
    can_measure_memory,
    parser_of,
    peak_rss_bytes,
    report,
    reset_peak_rss,
    rss_bytes,
    run_worker,
)

from llava_video.errors import LlavaVideoError
from llava_video.video.decoder import open_decoder
from llava_video.video.source import open_source
from llava_video.world.bars import paint_index
from llava_video.world.clip import write_clip

MAX_SPREAD_BYTES = 30e6
_LENGTHS_S, _CHECK_LENGTHS_S = (60, 600, 3600, 7200), (5, 10)
_NUM_FRAMES, _NUM_OPENS, _EVERY = 64, 500, 100
_MB = 1e6


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 where memory grows."""
    parser = parser_of(__doc__)
    parser.add_argument("--worker", choices=("one", "many"), help=argparse.SUPPRESS)
    parser.add_argument("--files", nargs="*", default=(), help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.worker:
        work = _read_one if asked.worker == "one" else _open_many
        print(json.dumps(work([Path(file) for file in asked.files])))
        return 0
    if not can_measure_memory():
        print("this system does not tell a process's peak memory")
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        lengths = measure_lengths(Path(scratch), is_check=asked.check)
        opens = measure_opens(Path(scratch))
    passed = lengths["spread_bytes"] <= MAX_SPREAD_BYTES >= opens["spread_bytes"]
    row = {"lengths": lengths, "opens": opens, "passed": passed, "check": asked.check}
    report("reading_memory", row, append=asked.append)
    return 0 if passed or asked.check else 1


def measure_lengths(folder: Path, *, is_check: bool = False) -> dict[str, Any]:
    """Return the peak beyond the start of reading 64 frames, by the video's length."""
    size = {"height_px": 96, "width_px": 160} if is_check else {}
    peaks: dict[int, int] = {}
    for seconds in _CHECK_LENGTHS_S if is_check else _LENGTHS_S:
        path = write_footage(
            folder / f"{seconds}.mp4", seconds=seconds, gop_frames=30, clip_s=5, **size
        )
        peaks[seconds] = run_worker(__file__, ["--worker", "one", "--files", str(path)])[
            "peak_bytes"
        ]
        path.unlink()
        print(f"{seconds:>6} s of video: {peaks[seconds] / _MB:.1f} MB for {_NUM_FRAMES} frames")
    return {"peak_bytes": peaks, "spread_bytes": max(peaks.values()) - min(peaks.values())}


def measure_opens(folder: Path) -> dict[str, Any]:
    """Return the memory after each hundred of 500 opens, beyond that after the first."""
    files = [str(path) for path in _mixed(folder)]
    found = run_worker(__file__, ["--worker", "many", "--files", *files])
    grown = [after - found["rss_bytes"][0] for after in found["rss_bytes"][1:]]
    words = ", ".join(f"{num / _MB:+.1f}" for num in grown)
    print(f"{_NUM_OPENS} opens, {found['num_failed']} refused: {words} MB after each {_EVERY}")
    return {"grown_bytes": grown, "spread_bytes": max(grown) - min(0, *grown), **found}


def _mixed(folder: Path) -> list[Path]:
    """Write files of every kind that is at hand, and spoil some."""
    files = []
    for suffix, encoder in (
        ("mp4", "libx264"), ("mkv", "libx264"), ("ts", "libx264"), ("webm", "libvpx-vp9"),
        ("mp4", "libx265"), ("mp4", "mpeg4"), ("avi", "mpeg4"),
    ):  # fmt: skip
        path = folder / f"{encoder}.{suffix}"
        write_clip(path, (paint_index(idx, 180, 320) for idx in range(60)), codec=encoder)
        files.append(path)
        cut = folder / f"cut_{encoder}.{suffix}"
        cut.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        files.append(cut)
    (folder / "text.mp4").write_text("no video at all\n" * 40)
    return [*files, folder / "text.mp4"]


def _read_one(files: Sequence[Path]) -> dict[str, Any]:
    reset_peak_rss()
    before = rss_bytes()
    with open_decoder(open_source(files[0])) as decoder:
        times_s = np.linspace(0, decoder.info.pts_s[-1], _NUM_FRAMES)
        num_frames = sum(len(clip.frames) for clip in decoder.clips_at(times_s.tolist()))
    return {"peak_bytes": peak_rss_bytes() - before, "num_frames": num_frames}


def _open_many(files: Sequence[Path]) -> dict[str, Any]:
    num_failed, seen = 0, []
    for num in range(1, _NUM_OPENS + 1):
        try:
            with contextlib.closing(open_decoder(open_source(files[num % len(files)]))) as decoder:
                for _ in decoder.clips_at(decoder.info.pts_s[::7].tolist()):
                    pass
        except LlavaVideoError:
            num_failed += 1
        if num % _EVERY == 0:
            seen.append(rss_bytes())
    return {"rss_bytes": seen, "num_failed": num_failed}


if __name__ == "__main__":
    sys.exit(main())
