"""Are the table and the plot of docs/length.md what the newest kept row says? Writes them anew.

python benchmarks/length_page.py            # 1 where they are out of date
python benchmarks/length_page.py --write
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import RESULTS
from length_plot import svg_of
from performance_page import compare_or_write, rows_of, with_tables

PAGE = Path(__file__).resolve().parents[1] / "docs" / "length.md"

Row = Mapping[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, or write; the plot is written beside the page."""
    row = newest()
    given = sys.argv[1:] if arguments is None else list(arguments)
    plot = PAGE.with_suffix(".svg")
    due = None if row is None else svg_of(row)
    if due is not None and "--write" in given:
        plot.write_text(due, encoding="utf-8")
    state = compare_or_write(__doc__, "length_page", PAGE, rewritten, arguments)
    is_drawn = due is None or (plot.is_file() and plot.read_text(encoding="utf-8") == due)
    return state if is_drawn else 1


def newest(folder: Path = RESULTS) -> Row | None:
    """Return the newest row that was no trial; None where there is none."""
    rows = [row for row in rows_of(folder / "length_generalisation.jsonl") if not row["check"]]
    return rows[-1] if rows else None


def rewritten(page: str, folder: Path = RESULTS) -> str:
    """Return the page with its table made anew.

    Raises:
        ValueError: a mark is missing.
    """
    return with_tables(page, {"length": _lines(newest(folder))})


def _lines(row: Row | None) -> Iterator[str]:
    if row is None:
        yield "not measured yet: `python benchmarks/length_generalisation.py --append --write`"
        return
    yield "![accuracy by length, as it comes and with scaled positions](length.svg)"
    yield ""
    yield from table_lines(row)
    yield ""
    commit = f"{row['commit']}{' with changes' if row['dirty'] else ''}"
    clips = f"{row['clips']} clips of each length"
    yield f"{row['model']}, {clips}, on {row['device']}, commit {commit}."


def table_lines(row: Row) -> Iterator[str]:
    """Yield the table: a line a group, a column a length and scale."""
    points = row["points"]
    heads = [f"{p['length_s']:g} s{_scale_words(p['position_scale'])}" for p in points]
    yield f"| share of right answers, % | {' | '.join(heads)} |"
    yield f"|---|{'---|' * len(points)}"
    for name, key in (("frames", "frames"), ("visual tokens", "visual_tokens")):
        yield f"| {name} | {' | '.join(f'{point[key]:,.0f}' for point in points)} |"
    for group in dict.fromkeys(name for point in points for name in point["groups"]):
        cells = [_cell(point["groups"].get(group)) for point in points]
        yield f"| {group} | {' | '.join(cells)} |"


def _scale_words(scale: float) -> str:
    return "" if scale == 1 else f", ÷ {scale:g}"


def _cell(found: Row | None) -> str:
    if found is None:
        return ""
    low, high = 100 * found["low"], 100 * found["high"]
    majority = "" if found["majority"] is None else f"; {100 * found['majority']:.0f}"
    return f"{100 * found['accuracy']:.1f} ({low:.0f} to {high:.0f}{majority})"


if __name__ == "__main__":
    sys.exit(main())
