"""What every benchmark shares: timing, memory, the facts of the machine, one row of results.

A benchmark is a file with one question. It prints a table for people and, as the last line of
stdout, one JSON object; `--append` also adds that object to `results/<question>.jsonl`, `--check`
runs at toy size, to see that it works. Rows name the processor, never the host.
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")

REPEATS = 20
BUDGET_S = 1.0


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of several runs of one thing, in the order they were taken."""

    seconds: tuple[float, ...]

    @property
    def best_s(self) -> float:
        """The fastest run: the one that the rest of the machine disturbed least."""
        return min(self.seconds)

    @property
    def p20_s(self) -> float:
        """A fifth of the runs took less."""
        return percentile(self.seconds, 0.2)

    @property
    def p50_s(self) -> float:
        """The median."""
        return statistics.median(self.seconds)

    @property
    def p80_s(self) -> float:
        """A fifth of the runs took more."""
        return percentile(self.seconds, 0.8)

    def to_json(self) -> dict[str, float | int]:
        """Return the percentiles in seconds and how many runs they are of."""
        return {
            "repeats": len(self.seconds),
            "best_s": self.best_s,
            "p20_s": self.p20_s,
            "p50_s": self.p50_s,
            "p80_s": self.p80_s,
        }

    def __str__(self) -> str:
        times = f"{_readable(self.p50_s)} ({_readable(self.p20_s)} to {_readable(self.p80_s)})"
        return times if len(self.seconds) > 1 else f"{_readable(self.p50_s)} (one run)"


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of the values lies below, between neighbours linearly."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low + (high - low) * (place - math.floor(place))


def measure(
    run: Callable[[], object],
    *,
    warm_up: int = 1,
    repeats: int = REPEATS,
    budget_s: float = BUDGET_S,
) -> Timing:
    """Time a function: until it ran so often, or so long in all, whichever comes first.

    Args:
        run: returns when its work is done; a GPU's queue is waited for here.
        warm_up: runs before, not counted.
        repeats: most runs.
        budget_s: no further run begins after so many seconds.
    """
    return interleaved({"": run}, warm_up=warm_up, repeats=repeats, budget_s=budget_s)[""]


def interleaved(
    runs: Mapping[str, Callable[[], object]],
    *,
    warm_up: int = 1,
    repeats: int = REPEATS,
    budget_s: float = BUDGET_S,
) -> dict[str, Timing]:
    """Time several functions in turn, so that a slow moment of the machine meets all of them."""
    for _ in range(warm_up):
        for run in runs.values():
            run()
    synchronize()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    started_s = time.perf_counter()
    for repeat in range(repeats):
        if repeat and time.perf_counter() - started_s >= budget_s:
            break
        for name, run in runs.items():
            before_s = time.perf_counter()
            run()
            synchronize()
            seconds[name].append(time.perf_counter() - before_s)
    return {name: Timing(tuple(taken)) for name, taken in seconds.items()}


def synchronize() -> None:
    """Wait for the GPU where torch is loaded and uses one."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def ratio(baseline: Timing, ours: Timing) -> float:
    """Return how many times faster ours is: the median of the ratios of neighbouring runs."""
    pairs = zip(baseline.seconds, ours.seconds, strict=True)
    return statistics.median(theirs / own for theirs, own in pairs)


def rss_bytes() -> int:
    """Return the memory this process has now, mapped files included (Linux)."""
    return _status_bytes("VmRSS")


def peak_rss_bytes() -> int:
    """Return the most memory this process had since its start or `reset_peak_rss` (Linux)."""
    return _status_bytes("VmHWM")


def reset_peak_rss() -> None:
    """Let `peak_rss_bytes` start again from what there is now (Linux)."""
    _CLEAR_REFS.write_text("5", encoding="ascii")


def can_measure_memory() -> bool:
    """Whether this system tells and resets the peak."""
    return _STATUS.is_file() and os.access(_CLEAR_REFS, os.W_OK)


def run_worker(script: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Run a benchmark's own worker in a fresh process; return the JSON object it ends with.

    Large blocks come from the system one by one there and go back at once, so that its resident
    memory is what is really held.
    """
    exact = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    ran = subprocess.run(
        [sys.executable, script, *arguments],
        env={**os.environ, **exact, "MALLOC_ARENA_MAX": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = json.loads(ran.stdout.splitlines()[-1])
    return dict(found)


def machine_facts() -> dict[str, Any]:
    """Say what was measured on, and which code: no host name, no path."""
    facts: dict[str, Any] = {
        "device": f"{_processor()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        **_commit(),
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        facts["torch"] = torch.__version__
        facts["num_threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            facts["gpu"] = torch.cuda.get_device_name()
            facts["cuda"] = torch.version.cuda
    return facts


def parser_of(documentation: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options every benchmark has."""
    parser = argparse.ArgumentParser(
        description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--append", action="store_true", help="add the row to benchmarks/results/")
    parser.add_argument("--check", action="store_true", help="toy size: only to see that it runs")
    return parser


def report(question: str, row: Mapping[str, Any], *, append: bool, folder: Path = RESULTS) -> None:
    """Print a row as the last line of stdout, and add it to the question's file when asked."""
    line = json.dumps({"question": question, **machine_facts(), **row})
    if append:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{question}.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    print(line)


def _status_bytes(name: str) -> int:
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} has no {name}")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> dict[str, Any]:
    def git(*arguments: str) -> str:
        ran = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).resolve().parent,
            capture_output=True,
            text=True,
            check=True,
        )
        return ran.stdout.strip()

    try:
        is_dirty = bool(git("status", "--porcelain", "--", ":!results"))
        return {"commit": git("rev-parse", "--short=12", "HEAD"), "dirty": is_dirty}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def _readable(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e3)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"
