"""Rows and numbers → pieces of HTML, everything that is not ours escaped. Knows no files."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from llava_video.archive.row import plain_text

# Nothing may be fetched or run, whatever a name or a caption holds.
_POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE: Final = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 1rem; }
th, td { text-align: left; vertical-align: top; padding: .2rem .9rem .2rem 0; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
.bar { background: #4a7fb5; height: .9rem; min-width: 1px; }
.wide { width: 24rem; }
img { max-width: 100%; display: block; margin: .4rem 0; }
article { border-top: 1px solid #8886; padding: .6rem 0; overflow-wrap: anywhere; }
.dim { opacity: .7; }
p { white-space: pre-wrap; margin: .2rem 0; }
"""


def document(title: str, body: str) -> str:
    """Return a page.

    Args:
        title: HTML.
        body: HTML.
    """
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{title}</h1>\n{body}\n</body></html>\n"
    )


def said(value: Any) -> str:
    """Return any value as text of a page."""
    return escape(plain_text(str(value)))


def facts_table(facts: Mapping[str, str]) -> str:
    """Return names and values."""
    rows = [
        f"<tr><th>{said(name)}</th><td>{said(value)}</td></tr>" for name, value in facts.items()
    ]
    return f"<table>{''.join(rows)}</table>"


def failures_table(kind: str, num_rows: int, named: Sequence[Mapping[str, Any]]) -> str:
    """Return the failures of one class.

    Args:
        kind: the class.
        num_rows: how many there are.
        named: the rows that are named.
    """
    lines = []
    for row in named:
        error = row["error"]
        place = "" if error["position_s"] is None else f" (at {error['position_s']:.3f} s)"
        tries = "1 try" if row["run"]["attempts"] == 1 else f"{row['run']['attempts']} tries"
        lines.append(
            f'<tr><td class="n">{row["number"]}</td><td>{said(row["video"]["address"])}</td>'
            f"<td>{said(error['message'])}{place}"
            f'<div class="dim">{said(error["hint"])}</div></td>'
            f"<td>{said(row['status'])} after {tries}</td></tr>"
        )
    more = "" if num_rows <= len(named) else f"<p>and {num_rows - len(named):,} more.</p>"
    return (
        f"<details open><summary>{said(kind)}: {num_rows:,}</summary>"
        f"<table>{''.join(lines)}</table>{more}</details>"
    )


def bars(title: str, unit: str, values: Sequence[float]) -> str:
    """Return a histogram whose bins double in width, with the median.

    Args:
        title: what is counted.
        unit: of the values.
        values: at least one, none negative.
    """
    counts: dict[int, int] = {}
    for value in values:
        place = bin_of(value)
        counts[place] = counts.get(place, 0) + 1
    most = max(counts.values())
    ordered = sorted(values)
    median = ordered[len(ordered) // 2]
    lines = [
        f'<tr><td class="n">{bin_words(place)} {unit}</td><td class="wide">'
        f'<div class="bar" style="width:{100 * counts.get(place, 0) / most:.1f}%"></div></td>'
        f'<td class="n">{counts.get(place, 0):,}</td></tr>'
        for place in range(min(counts), max(counts) + 1)
    ]
    caption = f"{len(values):,} in all, from {ordered[0]:,.4g} to {ordered[-1]:,.4g} {unit}, "
    return (
        f"<h2>{said(title)}</h2><p>{caption}median {median:,.4g} {unit}.</p>"
        f"<table>{''.join(lines)}</table>"
    )


def bin_of(value: float) -> int:
    """Return the bin of a value: 0 below 1, k of 2^(k - 1) <= value < 2^k.

    >>> [bin_of(value) for value in (0, 0.9, 1, 1.9, 2, 3.9, 4)]
    [0, 0, 1, 1, 2, 2, 3]
    """
    return 0 if value < 1 else math.frexp(value)[1]


def bin_words(place: int) -> str:
    """Return the bounds of a bin.

    >>> bin_words(0), bin_words(3)
    ('0 – 1', '4 – 8')
    """
    return "0 – 1" if place == 0 else f"{2 ** (place - 1):,} – {2**place:,}"


def shown_row(row: Mapping[str, Any], picture: str) -> str:
    """Return a video with its frames and what was said of it.

    Args:
        row: it has answers.
        picture: JPEG in base 64; "" for none.
    """
    parts = [f'<article id="row{row["number"]}"><b>{said(row["video"]["address"])}</b>']
    parts.append(f'<span class="dim"> row {row["number"]}</span>')
    if picture:
        parts.append(f'<img alt="frames that were seen" src="data:image/jpeg;base64,{picture}">')
    if row["summary"]:
        parts.append(f"<p>{said(row['summary'])}</p>")
    for answer in row["answers"]:
        span = f"{answer['start_s']:.2f} – {answer['end_s']:.2f} s"
        asked = f"{said(answer['prompt'])} " if answer["prompt"] else ""
        parts.append(f'<p><span class="dim">{span} {asked}</span>{said(answer["text"])}</p>')
    warnings = dict.fromkeys(
        [*row["warnings"], *(w for a in row["answers"] for w in a["warnings"])]
    )
    parts += [f'<p class="dim">warning: {said(warning)}</p>' for warning in warnings]
    return "\n".join([*parts, "</article>"])
