"""How long until something happens? Import, --help and a plan, each in a fresh process.

Start-up bound: Python's own start is the floor. Good: `import llava_video` <= 0.1 s beyond Python,
`llava-video --help` <= 0.3 s, `llava-video plan FILE` <= 2 s (no weights, no decoded frame).

    python benchmarks/startup.py [--append] [--check]
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from harness import Timing, interleaved, parser_of, report

from llava_video.model.tiny import write_tiny_checkpoint
from llava_video.world.bars import paint_index
from llava_video.world.clip import write_clip

LIMITS_S = {"import": 0.1, "help": 0.3, "plan": 2.0}
_NUM_FRAMES = 300


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 where a limit is missed."""
    asked = parser_of(__doc__).parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        timings = _measure(Path(scratch), repeats=2 if asked.check else 20)
    python = timings.pop("python")
    # What an import adds to Python's own start: the medians' difference, both in the same minutes.
    seconds = {name: timing.p50_s for name, timing in timings.items()}
    seconds["import"] -= python.p50_s
    for name, timing in timings.items():
        beyond = " beyond Python's own start" if name == "import" else ""
        print(f"{name:<8} {seconds[name]:.3f} s{beyond}, limit {LIMITS_S[name]} s; runs {timing}")
    print(f"floor    {python}: python -c pass")
    passed = all(seconds[name] <= limit_s for name, limit_s in LIMITS_S.items())
    row = {
        "seconds": seconds,
        "limits_s": LIMITS_S,
        "passed": passed,
        "timings": {name: timing.to_json() for name, timing in timings.items()},
        "ceiling": {"python -c pass": statistics.median(python.seconds)},
        "check": asked.check,
    }
    report("startup", row, append=asked.append)
    return 0 if passed or asked.check else 1


def _measure(scratch: Path, repeats: int) -> dict[str, Timing]:
    clip = scratch / "clip.mp4"
    write_clip(clip, (paint_index(idx, 360, 640) for idx in range(_NUM_FRAMES)))
    model = write_tiny_checkpoint(scratch / "tiny")
    command = [sys.executable, "-m", "llava_video"]
    runs = {
        "python": [sys.executable, "-c", "pass"],
        "import": [sys.executable, "-c", "import llava_video"],
        "help": [*command, "--help"],
        "plan": [*command, "plan", str(clip), "--model", str(model)],
    }
    return interleaved(
        {name: _starter(words) for name, words in runs.items()}, repeats=repeats, budget_s=120
    )


def _starter(words: Sequence[str]) -> Callable[[], object]:
    def start() -> None:
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env=dict(os.environ))

    return start


if __name__ == "__main__":
    sys.exit(main())
