"""Are the tables of docs/reading.md what the kept rows say? Writes them anew.

Each table stands between marks in that page and is made of the newest row of its question in
results/; what was not measured says so.

    python benchmarks/reading_page.py            # 1 where a table is out of date
    python benchmarks/reading_page.py --write
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness import RESULTS
from performance_page import compare_or_write, rows_of, with_tables

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reading.md"

Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, or write."""
    return compare_or_write(__doc__, "reading_page", PAGE, rewritten, arguments)


def rewritten(page: str, folder: Path = RESULTS) -> str:
    """Return the page with its tables made anew.

    Raises:
        ValueError: a mark is missing.
    """
    return with_tables(page, {name: _lines(name, folder) for name in TABLES})


def _lines(name: str, folder: Path) -> Iterator[str]:
    rows = [row for row in rows_of(folder / f"{name}.jsonl") if not row.get("check")]
    if not rows:
        yield f"not measured yet: `python benchmarks/{name}.py --append`"
        return
    yield from TABLES[name](rows)
    yield ""
    newest = rows[-1]
    yield f"On {newest['device']}, Python {newest['python']}, commit {_commit(newest)}."


def _commit(row: Row) -> str:
    return f"{row['commit']}{' with changes' if row['dirty'] else ''}"


def reader_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Yield which reader is exact for which kind of file, and how fast."""
    yield "| kind of file | PyAV (`auto`) | decord | decord's time / PyAV's |"
    yield "|---|---|---|---|"
    for kind in rows[-1]["kinds"]:
        readers = kind["readers"]
        ratio = readers["decord"].get("auto_ratio")
        told = f"{ratio:.2f}" if ratio else "–"
        cells = (kind["kind"], _told(readers["auto"]), _told(readers["decord"]), told)
        yield f"| {' | '.join(cells)} |"


def _told(found: Row) -> str:
    if "error" in found:
        return "cannot open it"
    if found["exact"]:
        return "exact"
    wrong = [
        f"{found[key]:,} {words}"
        for key, words in (("num_wrong_frames", "wrong frames"), ("num_wrong_times", "wrong times"))
        if found[key]
    ]
    return ", ".join(wrong) or "other pixels"


def decoding_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Yield how much faster frames arrive than from the faster of decord and PyAV."""
    newest = {case["case"]: (case, row) for row in rows for case in row["cases"]}
    yield (
        "| frames | × the faster of decord and plain PyAV | × decoding all "
        "| keyframes × exact | with opening | commit |"
    )
    yield "|---|---|---|---|---|---|"
    keys = ("ratio", "all_ratio", "keyframe_ratio", "opening_too_ratio")
    for case, row in newest.values():
        ratios = [case.get(key) for key in keys]
        told = ("" if value is None else f"{value:.2f}" for value in ratios)
        yield f"| {case['case']} | {' | '.join(told)} | {_commit(row)} |"


def memory_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Yield peaks by length, and growth over many files."""
    row = rows[-1]
    yield "| what | resident memory |"
    yield "|---|---|"
    for seconds, peak_bytes in row["lengths"]["peak_bytes"].items():
        minutes = int(seconds) / 60
        yield f"| 64 frames of {minutes:g} min of 1080p, peak | {peak_bytes / 1e6:.0f} MB |"
    grown = max(row["opens"]["grown_bytes"]) / 1e6
    yield f"| 500 files one after another, most growth after the first 100 | {grown:.1f} MB |"


def tiling_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Yield how much faster frames become tiles."""
    yield "| what | ratio | limit |"
    yield "|---|---|---|"
    for name, ratio in rows[-1]["ratios"].items():
        limit = rows[-1]["limits"].get(name)
        yield f"| {name} | {ratio:.2f} | {'' if limit is None else f'≥ {limit:g}'} |"
    for name, of in rows[-1]["copies"].items():
        for threads, times in of.items():
            most = rows[-1]["copies_limit"]
            yield f"| {name}, {threads}: time / one copy of the bytes | {times:.2f} | ≤ {most:g} |"


def sandbox_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Yield what a process of its own costs."""
    yield "| what | time in the sandbox / in this process |"
    yield "|---|---|"
    for case in rows[-1]["cases"]:
        yield f"| {case['name']}, 1080p | {case['ratio']:.2f} |"
    worker = rows[-1]["worker"]
    start_ms, idle_mb = worker["start"]["p50_s"] * 1e3, worker["idle_bytes"] / 1e6
    yield f"| a worker's start, once | {start_ms:.0f} ms, {idle_mb:.0f} MB |"


def bad_file_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Yield how bad files end."""
    yield "| files | how many | refused | in part | whole | frames given / asked | longest |"
    yield "|---|---|---|---|---|---|---|"
    for name, found in rows[-1]["kinds"].items():
        counts = (f"{found.get(key, 0):,}" for key in ("files", "refused", "part", "whole"))
        frames = f"{found['frames_given']:,} / {found['frames_asked']:,}"
        yield f"| {name} | {' | '.join(counts)} | {frames} | {found['longest_s']:.2f} s |"


TABLES: dict[str, Callable[[Sequence[Row]], Iterator[str]]] = {
    "readers": reader_lines,
    "decoding": decoding_lines,
    "reading_memory": memory_lines,
    "sandbox": sandbox_lines,
    "bad_files": bad_file_lines,
    "tiling": tiling_lines,
}


if __name__ == "__main__":
    sys.exit(main())
