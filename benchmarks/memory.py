"""Does memory stay bounded? The visual path by number of frames, and loading a sharded checkpoint.

Memory bound, on the CPU, each measurement in a fresh process: the most resident memory (mapped
files included) beyond what there was before. Good:

- visual path (decode, tiles, tower, projector, pooling): beyond the visual tokens themselves, 16
  and 128 frames differ by at most 5 % (the middle of five processes each);
- loading: at most 1.1 x the weights that are kept + the largest shard.

    python benchmarks/memory.py [--append] [--check]
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from harness import (
    can_measure_memory,
    parser_of,
    peak_rss_bytes,
    report,
    reset_peak_rss,
    rss_bytes,
    run_worker,
)

MAX_SPREAD = 0.05
MAX_COPIES = 1.1
_RUNS = 5
_MB = 1e6

# The tower's true widths at one layer, and a decoder's true width: activations as in the 0.5B.
_VISUAL: dict[str, Any] = {
    "tile_px": 384,
    "vision_hidden_size": 1152,
    "vision_intermediate_size": 4304,
    "vision_num_heads": 16,
    "vision_num_layers": 1,
    "hidden_size": 896,
    "num_heads": 14,
}
_VISUAL_CHECK: dict[str, Any] = {"tile_px": 112}
# About 600 MB in float32, in six shards.
_SHARDED: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_layers": 6,
    "num_heads": 16,
    "num_kv_heads": 16,
    "vocab_size": 16_000,
    "num_shards": 6,
}
_SHARDED_CHECK: dict[str, Any] = {"hidden_size": 256, "num_shards": 3, "vocab_size": 8000}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 where a limit is missed."""
    parser = parser_of(__doc__)
    parser.add_argument("--reader", choices=("auto", "decord", "pyav"), default="auto")
    parser.add_argument("--worker", choices=("visual", "load"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--frames", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--dtype", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.worker == "visual":
        print(json.dumps(_visual_worker(asked.folder, asked.frames, asked.reader)))
        return 0
    if asked.worker == "load":
        print(json.dumps(_load_worker(asked.folder, asked.dtype)))
        return 0
    if not can_measure_memory():
        print("this system does not tell a process's peak memory.", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as scratch:
        visual = measure_visual(Path(scratch), reader=asked.reader, is_check=asked.check)
        loading = measure_loading(Path(scratch), is_check=asked.check)
    passed = bool(visual["passed"]) and all(one["passed"] for one in loading)
    row = {"visual": visual, "loading": loading, "passed": passed, "check": asked.check}
    report("memory", row, append=asked.append)
    return 0 if passed or asked.check else 1


def measure_visual(
    scratch: Path, *, reader: str = "auto", is_check: bool = False
) -> dict[str, Any]:
    """Measure the visual path at few and at many frames."""
    from llava_video.model.tiny import write_tiny_checkpoint
    from llava_video.world.bars import paint_index
    from llava_video.world.clip import write_clip

    counts = (4, 16) if is_check else (16, 128)
    write_tiny_checkpoint(scratch / "visual", **(_VISUAL_CHECK if is_check else _VISUAL))
    # More frames than are looked at, as in real videos: a reader that runs ahead is noticed.
    pictures = (paint_index(idx, 360, 640) for idx in range(3 * max(counts)))
    write_clip(scratch / "visual" / "clip.mp4", pictures)
    beyond: dict[int, int] = {}
    for num_frames in counts:
        words = ["--worker", "visual", "--folder", str(scratch / "visual"), "--reader", reader]
        words += ["--frames", str(num_frames)]
        # What an allocator happens to keep differs by 1 % from run to run: the one in the middle.
        runs = [run_worker(__file__, words) for _ in range(1 if is_check else _RUNS)]
        found = sorted(runs, key=lambda one: one["peak_bytes"])[len(runs) // 2]
        beyond[num_frames] = found["peak_bytes"] - found["token_bytes"]
        print(
            f"{num_frames:>4} frames by {found['reader']}: "
            f"peak {found['peak_bytes'] / _MB:.1f} MB, "
            f"of it visual tokens {found['token_bytes'] / _MB:.1f} MB, "
            f"the rest {beyond[num_frames] / _MB:.1f} MB"
        )
    few, many = (beyond[count] for count in counts)
    spread = many / few - 1
    print(f"     spread {spread:+.1%}, limit {MAX_SPREAD:.0%}")
    return {
        "reader": found["reader"],
        "beyond_tokens_bytes": beyond,
        "spread": spread,
        "limit": MAX_SPREAD,
        "passed": spread <= MAX_SPREAD,
    }


def measure_loading(scratch: Path, *, is_check: bool = False) -> list[dict[str, Any]]:
    """Measure loading in the stored dtype and in a narrower one."""
    from llava_video.model.tiny import write_tiny_checkpoint

    folder = scratch / "sharded"
    write_tiny_checkpoint(folder, **(_SHARDED_CHECK if is_check else _SHARDED))
    shards = [path.stat().st_size for path in folder.glob("*.safetensors")]
    rows = []
    for dtype, share in (("float32", 1.0), ("bfloat16", 0.5)):
        words = ["--worker", "load", "--folder", str(folder), "--dtype", dtype]
        peak_bytes = run_worker(__file__, words)["peak_bytes"]
        kept_bytes = sum(shards) * share
        limit_bytes = MAX_COPIES * kept_bytes + max(shards)
        print(
            f"load {sum(shards) / _MB:.0f} MB in {len(shards)} shards as {dtype}: peak "
            f"{peak_bytes / _MB:.0f} MB, limit {limit_bytes / _MB:.0f} MB "
            f"(1.1 x {kept_bytes / _MB:.0f} MB kept + a shard of {max(shards) / _MB:.0f} MB)"
        )
        rows.append(
            {
                "dtype": dtype,
                "stored_bytes": sum(shards),
                "largest_shard_bytes": max(shards),
                "kept_bytes": kept_bytes,
                "peak_bytes": peak_bytes,
                "limit_bytes": limit_bytes,
                "passed": peak_bytes <= limit_bytes,
            }
        )
    return rows


def _visual_worker(
    folder: Path, num_frames: int, reader: Literal["auto", "decord", "pyav"]
) -> dict[str, Any]:
    """Take a video through the visual path, holding its tokens; return the bytes that took."""
    from llava_video.inputs import OpenedVideo, Video, open_visuals
    from llava_video.loading import load_spec
    from llava_video.model.checkpoint import load_model
    from llava_video.planning.planner import plan_request
    from llava_video.planning.settings import PlanningSettings, SamplingSettings

    spec = load_spec(folder, revision=None, device="cpu", dtype="float32")
    model = load_model(folder, config=spec.config, device="cpu")

    readers: set[str] = set()

    def rows_of(count: int) -> int:
        sampling = SamplingSettings(num_frames=count)
        (video,) = open_visuals([Video(address=folder / "clip.mp4")], sampling, reader)
        assert isinstance(video, OpenedVideo)
        plan = plan_request(
            [video.item], spec.geometry, PlanningSettings(), sampling, lambda notes: ("", 0)
        )
        (visual,) = plan.visuals
        rows = list(model.visual_rows(visual, video.clips(visual), 2))
        video.close()
        readers.add(video.decoder.backend)
        return sum(piece.nbytes for piece in rows)

    rows_of(2)  # libraries, thread pools and decoders take their memory once
    before_bytes = rss_bytes()
    reset_peak_rss()
    token_bytes = rows_of(num_frames)
    peak_bytes = peak_rss_bytes() - before_bytes
    return {"peak_bytes": peak_bytes, "token_bytes": token_bytes, "reader": readers.pop()}


def _load_worker(folder: Path, dtype: str) -> dict[str, int]:
    """Load a checkpoint; return the bytes it took at most."""
    import torch

    from llava_video.model.checkpoint import load_model
    from llava_video.model.model_config import read_model_config

    config = read_model_config(folder)
    torch.zeros(1).to(torch.bfloat16)
    before_bytes = rss_bytes()
    reset_peak_rss()
    model = load_model(folder, config=config, device="cpu", dtype=getattr(torch, dtype))
    peak_bytes = peak_rss_bytes() - before_bytes
    del model
    return {"peak_bytes": peak_bytes}


if __name__ == "__main__":
    sys.exit(main())
