"""Does the library keep its promises on a GPU? Every row of the table, measured beside its limit.

Random weights at the true sizes are made on the device: no checkpoint, no video, no installation.

    PYTHONPATH=. python benchmarks/gpu_suite.py                     # all sections, one process each
    PYTHONPATH=. python benchmarks/gpu_suite.py --only decode --only rope
    PYTHONPATH=. python benchmarks/gpu_suite.py --check             # toy sizes on the CPU

Each section prints a table and ends with one JSON row, which is added to
benchmarks/results/gpu.jsonl where something was measured. Without CUDA the row says "not measured".
Peers (transformers, torch eager and compiled, Liger-Kernel) run in the same process on the same
tensors; one that is absent or fails is named in the row. A 24 GB card is emulated by the
allocator's memory fraction, 21.5 GiB.

Sections:
"""

import argparse
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Before CUDA starts: pieces that grow, so that the memory fraction is not lost to fragments.
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

import gpu_archive
import gpu_capacity
import gpu_decode
import gpu_latency
import gpu_ops
import gpu_vision
import torch
from gpu_bench import Bench, Measured, Section, figures_of, table_of
from harness import RESULTS, report

QUESTION = "gpu"
SECTIONS: dict[str, Section] = {
    **gpu_capacity.SECTIONS,
    **gpu_latency.SECTIONS,
    **gpu_vision.SECTIONS,
    **gpu_ops.SECTIONS,
    **gpu_decode.SECTIONS,
    **gpu_archive.SECTIONS,
}
NO_GPU = "not measured: torch finds no CUDA device"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run sections; return 1 where one fails to run, whatever it measures."""
    asked = _parser().parse_args(arguments)
    names = asked.only or list(SECTIONS)
    is_gpu_here = torch.cuda.is_available()
    if is_gpu_here and len(names) > 1 and not asked.check:
        return max(_in_its_own_process(name, asked) for name in names)
    return max(
        [run_section(name, is_gpu=is_gpu_here, is_check=asked.check, asked=asked) for name in names]
    )


def run_section(name: str, *, is_gpu: bool, is_check: bool, asked: argparse.Namespace) -> int:
    """Measure one section, print its table and its row."""
    section = SECTIONS[name]
    print(f"{name}: {section.question}")
    row: dict[str, Any] = {"section": name, "check": is_check}
    found = Measured()
    status = 0
    if not is_gpu and not is_check:
        row["status"] = NO_GPU
    else:
        bench = Bench(device=torch.device("cpu" if is_check else "cuda"), is_check=is_check)
        before_s = time.perf_counter()
        try:
            section.run(bench, found)
            row["status"] = "checked" if is_check else "measured"
        except Exception as cause:  # noqa: BLE001 - the row says what failed; others go on
            traceback.print_exc()
            row["status"] = f"failed: {type(cause).__name__}: {cause}"[:500]
            status = 1
        row["seconds"] = time.perf_counter() - before_s
        row["details"] = found.details
    # A toy's figures are no figures: the table shows that they were made, not what they are.
    values = None if is_check or not found.values else found.values
    row["figures"] = figures_of(section, values)
    if is_check:
        row["checked"] = sorted(found.values)
        missing = {target.key for target in section.targets} - set(found.values)
        status = 1 if missing else status
    print("\n".join(table_of(section, values)))
    print(f"  {row['status']}")
    is_result = is_gpu and not is_check  # what was measured before a fault is one too
    report(QUESTION, row, append=is_result or asked.append, folder=asked.results)
    return status


def _in_its_own_process(name: str, asked: argparse.Namespace) -> int:
    """Run a section alone, so that no other's memory, graphs or compiled code are there."""
    words = [sys.executable, __file__, "--only", name, "--results", str(asked.results)]
    return subprocess.run(words, check=False, timeout=1200).returncode


def _parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name:13} {section.question}" for name, section in SECTIONS.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\n{listed}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=list(SECTIONS), metavar="SECTION")
    parser.add_argument("--check", action="store_true", help="toy sizes on the CPU; no result")
    parser.add_argument("--append", action="store_true", help="also add rows that measured nothing")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of gpu.jsonl")
    return parser


if __name__ == "__main__":
    sys.exit(main())
