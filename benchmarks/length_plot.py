"""A row of `length_generalisation` → its plot as SVG: a panel a group, a line a way of positions.

Drawn by hand: a few lines and letters need no plotting library. The same row gives the same bytes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

_COLUMNS, _WIDTH, _HEIGHT = 4, 200, 150
_LEFT, _TOP, _RIGHT, _BOTTOM = 34, 30, 12, 26
_HEAD = 34
# label, colour, dashes
_AS_THEY_COME = ("positions as they come", "#1f5fa8", "")
_SCALED = ("positions divided by the factor", "#c2571a", "6 3")
_GREY = "#888"


def svg_of(row: Mapping[str, Any]) -> str:
    """Return the plot.

    Args:
        row: `points`, each with factor, length_s, position_scale and groups: name -> accuracy, low,
            high, majority.
    """
    names = list(dict.fromkeys(name for point in row["points"] for name in point["groups"]))
    columns = min(_COLUMNS, max(1, len(names)))
    num_rows = math.ceil(len(names) / columns)
    width, height = columns * _WIDTH, _HEAD + num_rows * _HEIGHT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="10">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        *_legend(),
    ]
    for idx, name in enumerate(names):
        left, top = idx % columns * _WIDTH, _HEAD + idx // columns * _HEIGHT
        lines.append(f'<g transform="translate({left} {top})">')
        lines += _panel(name, row["points"])
        lines.append("</g>")
    return "\n".join([*lines, "</svg>", ""])


def _legend() -> Iterator[str]:
    x = 10
    for label, colour, dashes in (_AS_THEY_COME, _SCALED, ("commonest answer", _GREY, "2 2")):
        yield _line([(x, 16), (x + 24, 16)], colour, dashes)
        yield f'<text x="{x + 30}" y="20">{label}</text>'
        x += 60 + 6 * len(label)


def _panel(name: str, points: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    factors = sorted({point["factor"] for point in points})
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    yield f'<text x="{_LEFT}" y="{_TOP - 10}" font-weight="bold">{escape(name)}</text>'
    for percent in (0, 50, 100):
        y = _y(percent / 100)
        yield _line([(_LEFT, y), (right, y)], "#ddd", "")
        yield f'<text x="{_LEFT - 4}" y="{y + 3:g}" text-anchor="end">{percent}</text>'
    lengths = {point["factor"]: point["length_s"] for point in points}
    for factor in factors:
        x = _x(factor, factors)
        yield f'<text x="{x:g}" y="{bottom + 14}" text-anchor="middle">{lengths[factor]:g} s</text>'
    plain = [p for p in points if p["position_scale"] == 1 and name in p["groups"]]
    scaled = [p for p in points if p["position_scale"] == p["factor"] and name in p["groups"]]
    guesses = [
        (_x(p["factor"], factors), _y(p["groups"][name]["majority"]))
        for p in plain
        if p["groups"][name]["majority"] is not None
    ]
    yield _line(guesses, _GREY, "2 2")
    for found, (_, colour, dashes), shift in ((plain, _AS_THEY_COME, -2), (scaled, _SCALED, 2)):
        yield from _curve(name, found, factors, colour, dashes, shift)


def _curve(
    name: str,
    points: Sequence[Mapping[str, Any]],
    factors: Sequence[int],
    colour: str,
    dashes: str,
    shift: int,
) -> Iterator[str]:
    """Yield a line with its intervals, a little aside so that both can be seen."""
    ends = [(_x(p["factor"], factors) + shift, p["groups"][name]) for p in points]
    yield _line([(x, _y(one["accuracy"])) for x, one in ends], colour, dashes)
    for x, one in ends:
        yield _line([(x, _y(one["low"])), (x, _y(one["high"]))], colour, "")
        yield f'<circle cx="{x:g}" cy="{_y(one["accuracy"]):g}" r="2.5" fill="{colour}"/>'


def _line(ends: Sequence[tuple[float, float]], colour: str, dashes: str) -> str:
    path = " ".join(f"{x:g},{y:g}" for x, y in ends)
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"{dashed}/>'


def _x(factor: int, factors: Sequence[int]) -> float:
    """Place a length: each doubling is one step."""
    steps = math.log2(max(factors) / min(factors)) or 1.0
    span = _WIDTH - _RIGHT - _LEFT - 24
    return round(_LEFT + 12 + span * math.log2(factor / min(factors)) / steps, 2)


def _y(share: float) -> float:
    return round(_HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * share, 2)
