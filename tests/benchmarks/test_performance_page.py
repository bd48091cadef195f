"""docs/performance.md says what the planner and the kept rows say, and its arithmetic is right."""

import json
import subprocess
import sys
from pathlib import Path

import capacity_table
import kernel_table
import performance_page
import pytest

PAGE = performance_page.PAGE.read_text(encoding="utf-8")


def test_the_pages_tables_are_up_to_date():
    assert performance_page.rewritten(PAGE) == PAGE, (
        "run: python benchmarks/performance_page.py --write"
    )


@pytest.mark.parametrize(
    ("case", "wanted", "zero_overhead"),
    [
        # What is promised, and what there would be room for without any activation or workspace.
        (("7B", "plain", "plain", 21.5, 210), 500, 586),
        (("7B", "int4", "int8", 21.5, 210), 2500, 2714),
        (("7B", "plain", "int8", 21.5, 16), 10_000, 15_000),
        (("0.5B", "plain", "plain", 21.5, 210), 7500, 8250),
    ],
)
def test_the_planner_keeps_the_promises_and_the_limits(case, wanted, zero_overhead):
    assert wanted <= capacity_table.frames_of(*case) <= zero_overhead * 1.001


def test_a_mark_that_is_missing_is_an_error():
    with pytest.raises(ValueError, match="'gpu'"):
        performance_page.rewritten(PAGE.replace("<!-- gpu -->\n", ""))


def test_what_was_measured_stands_in_the_page_and_what_was_not_says_so(tmp_path: Path):
    def row(section: str, measured: float | None, **facts: object) -> str:
        figures = [{"key": "seconds", "measured": measured}]
        return json.dumps({"section": section, "figures": figures, **facts})

    facts = {"gpu": "a GPU", "device": "a CPU", "commit": "0123456789ab", "dirty": True}
    kept = [row("long", 40.0, **facts), row("long", 31.25, **facts), row("long", None, **facts)]
    (tmp_path / "gpu.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
    lines = list(performance_page.gpu_lines(tmp_path))
    (measured,) = [line for line in lines if line.startswith("| long |")]
    assert measured.endswith("| 31.25 s | a GPU, 0123456789ab with changes |")
    others = [line for line in lines[2:] if not line.startswith("| long |")]
    assert all(line.endswith("| not measured |  |") for line in others)


def test_a_kernels_line_by_hand():
    def row(sm: int, registers: int, spills: int) -> dict:
        return {
            "kernel": "pool.rows",
            "form": "bf16",
            "sm": sm,
            "registers": registers,
            "spills": spills,
            "shared_bytes": 2048,
            "loads": {"16": 3, "128": 4},
        }

    lines = list(kernel_table.table_lines([row(80, 40, 0), row(89, 42, 0)]))
    assert lines[2] == "| pool.rows | bf16 | 40, -, 42, - | 2.0 | 128 bits |"
    assert "2 spills" in list(kernel_table.table_lines([row(90, 40, 2)]))[2]


def test_kernels_are_compiled_and_told():
    """In a process of its own: the script runs pytest, which runs the tests of kernels."""
    ran = subprocess.run(
        [sys.executable, kernel_table.__file__, "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    row = json.loads(ran.stdout.splitlines()[-1])
    assert row["check"]
    for kernel in row["kernels"]:
        assert kernel["spills"] == 0
        assert kernel["registers"] > 0
    assert row["kernels"]
