"""What do GPUs' assemblers make of each kernel? Registers, memory and widths, without a GPU.

Runs those tests that compile kernels ahead of time (for sm_80, 86, 89 and 90) and writes down what
they found: one line per kernel, form and card. Good: no spills, 128-bit accesses, at most 99 KB of
shared memory, which is what an RTX 30xx or 40xx has. Takes some minutes for all forms; times and
occupancy are not told by this.

    python benchmarks/kernel_table.py [--quick] [--append] [--check]
"""

import contextlib
import io
import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from harness import parser_of, report

TESTS = Path(__file__).resolve().parents[1] / "tests"
# Constants that follow from others, or say nothing of the form to a reader.
_UNTOLD = ("BLOCK", "PARTS", "NUM_WARPS")


class Recorder:
    """A pytest plugin: runs the tests that compile, and notes what they compiled.

    Args:
        most: tests that are run, None for all.
    """

    def __init__(self, most: int | None) -> None:
        self.found: list[tuple[dict[str, Any], Any]] = []
        self._most = most

    def pytest_collection_modifyitems(self, config: Any, items: list[Any]) -> None:
        """Keep the tests that compile."""
        del config
        items[:] = [item for item in items if _compiles(item.function)][: self._most]

    def pytest_collection_finish(self, session: Any) -> None:
        """Note every kernel that is compiled from here on."""
        del session
        import kernels

        compile_one = kernels._compiled
        told: set[tuple[str, int]] = set()

        def noted(spec: str, targets: tuple[int, ...]) -> dict[int, Any]:
            found: dict[int, Any] = compile_one(spec, targets)
            for target, compiled in found.items():
                if (spec, target) not in told:
                    told.add((spec, target))
                    self.found.append((json.loads(spec), compiled))
            return found

        kernels._compiled = noted


def _compiles(test: Any) -> bool:
    """Say whether a test calls `compile_for`, or a function of its file does that it calls."""
    called = [test.__globals__.get(name) for name in test.__code__.co_names]
    codes = [test.__code__, *(getattr(function, "__code__", None) for function in called)]
    return any("compile_for" in code.co_names for code in codes if code is not None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile, print, and return 1 where a test of a kernel fails."""
    parser = parser_of(__doc__)
    parser.add_argument("--quick", action="store_true", help="only what `make test` compiles")
    asked = parser.parse_args(arguments)
    status, rows = compile_all(is_quick=asked.quick or asked.check, is_check=asked.check)
    print("\n".join(table_lines(rows)))
    row = {"triton": version("triton"), "kernels": rows, "check": asked.check}
    report("kernels", row, append=asked.append)
    return status


def compile_all(*, is_quick: bool, is_check: bool = False) -> tuple[int, list[dict[str, Any]]]:
    """Run the tests; return pytest's status and a row for each kernel, form and card."""
    import pytest

    recorder = Recorder(1 if is_check else None)
    where = TESTS / "ops" / ("test_dequantise.py" if is_check else "")
    words = ["-q", "-p", "no:cacheprovider", "--rootdir", str(TESTS.parent), str(where)]
    words += ["-m", "not slow" if is_quick else "slow or not slow"]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        status = int(pytest.main(words, plugins=[recorder]))
    if status:
        print(said.getvalue()[-4000:], file=sys.stderr)
    rows = [row_of(spec, compiled) for spec, compiled in recorder.found]
    return status, sorted(rows, key=lambda row: (row["kernel"], row["form"], row["sm"]))


def row_of(spec: Mapping[str, Any], compiled: Any) -> dict[str, Any]:
    """Return one kernel in one form on one card."""
    return {
        "kernel": f"{spec['module'].rpartition('.')[2]}.{spec['name'].strip('_')}",
        "form": form_of(spec),
        "sm": compiled.target,
        "warps": spec["num_warps"],
        "registers": compiled.registers,
        "spills": compiled.spills,
        "shared_bytes": compiled.shared_bytes,
        "loads": compiled.global_loads,
        "stores": compiled.global_stores,
        "instructions": list(compiled.instructions),
    }


def form_of(spec: Mapping[str, Any]) -> str:
    """Return the types and constants that tell one form of a kernel from another.

    >>> form_of({"types": {"x": "*bf16", "n": "i32"}, "constants": {"BITS": 8, "BLOCK_ROWS": 16}})
    'bf16 BITS=8'
    """
    types = [kind[1:] for kind in spec["types"].values() if kind.startswith("*")]
    told = [
        f"{name}={value}"
        for name, value in spec["constants"].items()
        if not name.startswith(_UNTOLD)
    ]
    return " ".join([*dict.fromkeys(types), *told])


def table_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield Markdown: one line per kernel and form, the cards side by side."""
    yield "| kernel | form | registers on sm_80, 86, 89, 90 | shared, KB | widest access |"
    yield "|---|---|---|---|---|"
    forms = itertools.groupby(rows, key=lambda row: (row["kernel"], row["form"]))
    for (kernel, form), same in forms:
        cards = {row["sm"]: row for row in same}
        registers = ", ".join(
            str(cards[sm]["registers"]) if sm in cards else "-" for sm in (80, 86, 89, 90)
        )
        shared = max(row["shared_bytes"] for row in cards.values()) / 1024
        widths = [*map(int, itertools.chain(*(row["loads"] for row in cards.values())))]
        spills = sum(row["spills"] for row in cards.values())
        said = f"{max(widths, default=0)} bits" + (f", {spills} spills" if spills else "")
        yield f"| {kernel} | {form} | {registers} | {shared:.1f} | {said} |"


if __name__ == "__main__":
    sys.exit(main())
