"""What the sections of the GPU suite share: sizes, targets, timing on a device, its ceilings.

A section is a question with some targets and a function that measures them. Without a GPU the same
functions run at toy size on the CPU (`--check`), to see that they work; that is no result.
"""

import gc
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from harness import measure

_Made = TypeVar("_Made")

GIB = 2**30
# What a 24 GB card of the A10 and L4 class can hand out; 3090 and 4090 have 23.2.
CARD_BYTES = int(21.5 * GIB)
# Written between runs: several times the 50 MB of an H200's cache, so that each run finds it cold,
# and long enough that the next launches are queued before it ends.
_FLUSH_BYTES = 2**30
_COPY_BYTES = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One figure that is wanted.

    Attributes:
        key: names the value a section returns.
        what: for the table.
        unit: of the value.
        target: what is asked for; None for a figure that is only wanted.
        limit: what arithmetic or physics allows; None where there is no such number.
        is_most: whether less is better.
    """

    key: str
    what: str
    unit: str
    target: float | None
    limit: float | None = None
    is_most: bool = False

    def is_met(self, value: float) -> bool:
        """Say whether a value meets it."""
        if self.target is None:
            return True
        return value <= self.target if self.is_most else value >= self.target


@dataclass(slots=True)
class Measured:
    """What a section found.

    Attributes:
        values: by the targets' keys.
        details: everything else worth a row: shapes, times, peers.
    """

    values: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where a section runs, and how large.

    Attributes:
        device: the GPU, or the CPU of a check.
        is_check: toy sizes.
    """

    device: torch.device
    is_check: bool

    @property
    def dtype(self) -> torch.dtype:
        """What weights are stored in: bfloat16, or float32 in a check."""
        return torch.float32 if self.is_check else torch.bfloat16

    def of(self, full: int, toy: int) -> int:
        """Return the size of this run."""
        return toy if self.is_check else full

    def seconds(self, run: Callable[[], object], *, repeats: int = 20, cold: bool = False) -> float:
        """Return the median time of a run on the device.

        Args:
            run: launches the work.
            repeats: counted runs.
            cold: empty the device's caches before each.
        """
        if self.device.type != "cuda":
            return measure(run, repeats=2, budget_s=0.1).p50_s
        flush = torch.empty(_FLUSH_BYTES if cold else 1, dtype=torch.int8, device=self.device)
        for _ in range(3):
            run()
        taken: list[float] = []
        for _ in range(repeats):
            flush.zero_()
            before = torch.cuda.Event(enable_timing=True)
            after = torch.cuda.Event(enable_timing=True)
            before.record()
            run()
            after.record()
            after.synchronize()
            taken.append(before.elapsed_time(after) / 1e3)
        return statistics.median(taken)

    def wall_s(self, run: Callable[[], object]) -> float:
        """Return the time of one run, host work included."""
        self.synchronize()
        before_s = time.perf_counter()
        run()
        self.synchronize()
        return time.perf_counter() - before_s

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def copy_bytes_per_s(self) -> float:
        """Measure the copy bandwidth, bytes read and written together."""
        block = torch.zeros(self.of(_COPY_BYTES, 2**20), dtype=torch.int8, device=self.device)
        target = torch.empty_like(block)
        return 2 * block.nbytes / self.seconds(lambda: target.copy_(block))

    def flop_per_s(self) -> float:
        """Measure one large matrix product."""
        side = self.of(8192, 64)
        square = torch.randn(side, side, device=self.device, dtype=self.dtype)
        return 2.0 * side**3 / self.seconds(lambda: square @ square)

    def peak_bytes(self, *, reserved: bool = False) -> int:
        """Return the most memory since `forget_peak`: of tensors, or held by the allocator."""
        if self.device.type != "cuda":
            return 0
        most = torch.cuda.max_memory_reserved if reserved else torch.cuda.max_memory_allocated
        return most()

    def forget_peak(self) -> None:
        """Let go of free memory and start the peak again."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def limit_memory(self, num_bytes: int | None) -> None:
        """Let the allocator hand out so much and no more, or all there is."""
        if self.device.type == "cuda":
            total = torch.cuda.get_device_properties(self.device).total_memory
            share = 1.0 if num_bytes is None else num_bytes / total
            torch.cuda.set_per_process_memory_fraction(min(1.0, share))


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One question.

    Attributes:
        question: in words.
        targets: what is wanted.
        run: measures, and notes each figure as soon as there is one.
    """

    question: str
    targets: tuple[Target, ...]
    run: Callable[[Bench, Measured], None]


def table_of(section: Section, values: Mapping[str, float] | None) -> list[str]:
    """Return the lines of a section's table: measured, target and limit side by side."""
    lines = [f"{'':46} {'measured':>12} {'target':>10} {'limit':>10}"]
    for target in section.targets:
        value = None if values is None else values.get(target.key)
        mark = "" if value is None else "  met" if target.is_met(value) else "  MISSED"
        sign = "<=" if target.is_most else ">="
        wanted = "-" if target.target is None else f"{sign} {_number(target.target)}"
        lines.append(
            f"{target.what[:46]:46} {_number(value):>12} {wanted:>10} {_number(target.limit):>10}"
            f" {target.unit}{mark if target.target is not None else ''}"
        )
    return lines


def figures_of(section: Section, values: Mapping[str, float] | None) -> list[dict[str, Any]]:
    """Return a section's figures for a row of results; None where nothing was measured."""
    return [
        {
            "what": target.what,
            "key": target.key,
            "unit": target.unit,
            "measured": None if values is None else values.get(target.key),
            "target": target.target,
            "limit": target.limit,
            "less_is_better": target.is_most,
        }
        for target in section.targets
    ]


def attempt(name: str, make: Callable[[], _Made], details: dict[str, Any]) -> _Made | None:
    """Return what a peer makes; where it cannot, None, and the row says why."""
    try:
        return make()
    except Exception as cause:  # noqa: BLE001 - a peer's fault must not cost our own figures
        details.setdefault("peers_missing", {})[name] = f"{type(cause).__name__}: {cause}"[:300]
        print(f"  {name}: {type(cause).__name__}: {str(cause)[:120]}", file=sys.stderr)
        return None


def try_peer(name: str, run: Callable[[], float], details: dict[str, Any]) -> float | None:
    """Return a peer's figure, noted in the row; where it cannot run, None, and why."""
    found = attempt(name, run, details)
    if found is not None:
        details.setdefault("peers", {})[name] = found
    return found


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
