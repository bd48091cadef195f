"""Are the tables of docs/performance.md what the code and the kept rows say? Writes them anew.

Three tables stand between marks in that page: what the planner says fits (arithmetic), what GPUs'
assemblers make of the kernels (the newest row of results/kernels.jsonl), and what the GPU suite
measured (the newest row of each section in results/gpu.jsonl), or that it was not measured.

    python benchmarks/performance_page.py            # 1 where a table is out of date
    python benchmarks/performance_page.py --write
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import capacity_table
import kernel_table
from gpu_suite import SECTIONS
from harness import RESULTS, parser_of

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, or write."""
    return compare_or_write(__doc__, "performance_page", PAGE, rewritten, arguments)


def compare_or_write(
    documentation: str | None,
    question: str,
    page: Path,
    rewrite: Callable[[str], str],
    arguments: Sequence[str] | None,
) -> int:
    """Say whether a page's tables are up to date, or write them; return 1 where they are not."""
    parser = parser_of(documentation)
    parser.add_argument("--write", action="store_true", help="rewrite the tables")
    asked = parser.parse_args(arguments)
    before = page.read_text(encoding="utf-8")
    after = rewrite(before)
    if asked.write:
        page.write_text(after, encoding="utf-8")
    is_new = before == after
    print(json.dumps({"question": question, "up_to_date": is_new, "wrote": asked.write}))
    return 0 if is_new or asked.write else 1


def rewritten(page: str, folder: Path = RESULTS) -> str:
    """Return the page with its tables made anew.

    Raises:
        ValueError: a mark is missing.
    """
    tables = {
        "capacity": capacity_table.table_lines(),
        "kernels": kernel_lines(folder),
        "gpu": gpu_lines(folder),
    }
    return with_tables(page, tables)


def with_tables(page: str, tables: Mapping[str, Iterable[str]]) -> str:
    """Return a page with the lines between its marks made anew.

    Raises:
        ValueError: a mark is missing.
    """
    for name, lines in tables.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        if page.count(begin) != 1 or page.count(end) != 1:
            raise ValueError(f"the page has no place for the table {name!r}.")
        head, _, rest = page.partition(begin)
        _, _, tail = rest.partition(end)
        page = head + begin + "\n".join([*lines, ""]) + end + tail
    return page


def kernel_lines(folder: Path) -> Iterator[str]:
    """Yield the newest table of compiled kernels, and what they were compiled with."""
    rows = [row for row in rows_of(folder / "kernels.jsonl") if not row["check"]]
    if not rows:
        yield "not compiled yet: `python benchmarks/kernel_table.py --append`"
        return
    newest = rows[-1]
    kernels = newest["kernels"]
    forms = {(kernel["kernel"], kernel["form"]) for kernel in kernels}
    shown = [kernel | {"form": _short(kernel["form"])} for kernel in kernels if _is_of_7b(kernel)]
    yield (
        f"Compiled at {_commit(newest)}, triton {newest['triton']}: {len(forms)} forms, "
        f"{sum(kernel['spills'] for kernel in kernels)} spills. Those of a 7B in bfloat16:"
    )
    yield ""
    yield from kernel_table.table_lines(shown)


def gpu_lines(folder: Path) -> Iterator[str]:
    """Yield every figure that is wanted, with what was measured last, where and at which commit."""
    newest: dict[str, dict[str, Any]] = {}
    for row in rows_of(folder / "gpu.jsonl"):
        if any(figure["measured"] is not None for figure in row["figures"]):
            newest[row["section"]] = row
    yield "| section | what | target | limit | measured | on |"
    yield "|---|---|---|---|---|---|"
    for name, section in SECTIONS.items():
        row = newest.get(name)
        found = {} if row is None else {one["key"]: one["measured"] for one in row["figures"]}
        on = "" if row is None else f"{row.get('gpu', row['device'])}, {_commit(row)}"
        for target in section.targets:
            value = found.get(target.key)
            sign = "≤" if target.is_most else "≥"
            cells = (
                name,
                target.what,
                "" if target.target is None else f"{sign} {_plain(target.target)} {target.unit}",
                "" if target.limit is None else _plain(target.limit),
                "not measured" if value is None else f"{_plain(value)} {target.unit}",
                on,
            )
            yield f"| {' | '.join(cells)} |"


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file of results, oldest first."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _is_of_7b(kernel: dict[str, Any]) -> bool:
    """Say whether a form is the one that a 7B in bfloat16 runs."""
    told = kernel["form"].split()
    sizes = {"HEAD_DIM": "128", "NUM_CHANNELS": "3584", "GROUP": "7", "PX": "384"}
    sizes |= {"MODE": "bilinear"}
    values = dict(word.split("=") for word in told if "=" in word)
    fits = all(values.get(name, size) == size for name, size in sizes.items())
    is_tabled = "rotate" in kernel["kernel"] and "cos_ptr" not in values
    is_bf16 = "bf16" in told and told[0] != "fp16"  # scales may be of the other
    return fits and is_bf16 and not is_tabled and values.get("TAPS_X", "2") == "2"


def _short(form: str) -> str:
    """Return what is left to tell of such a form: how numbers are stored, what is resized."""
    told = ("BITS=", "KV_FORMAT=", "IS_INT4=", "GELU=", "AXIS=")
    return " ".join(word for word in form.split() if word.startswith(told)) or "bf16"


def _commit(row: dict[str, Any]) -> str:
    commit = row.get("commit") or "no commit"
    return f"{commit} with changes" if row.get("dirty") else str(commit)


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


if __name__ == "__main__":
    sys.exit(main())
