"""What did the demo model's training look like? Its logs → the curve in docs/, as SVG by hand.

    python benchmarks/training_curve.py [--write]

Reads docs/demo_training/*.jsonl, which are the stages' metrics.jsonl, and says where the curve is
not what they give; `--write` draws it anew.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent.parent / "docs"
LOGS, CURVE = DOCS / "demo_training", DOCS / "demo_training.svg"

_PANEL_WIDTH, _HEIGHT = 330, 230
_LEFT, _TOP, _RIGHT, _BOTTOM = 40, 40, 12, 30
# What a line of metrics says of each loss, how it is called, and its colour.
_LOSSES = (
    ("loss_looks", "what a cell shows", "#2f7d32"),
    ("loss_story", "what happened in it", "#c2571a"),
    ("loss_answers", "answers", "#1f5fa8"),
    ("loss_pointers", "where heads look", "#7a3fa0"),
)
_LEAST = 0.03


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw, or return 1 where the curve is not what the logs give."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args(arguments)
    curve = svg_of({path.stem: read_log(path) for path in sorted(LOGS.glob("*.jsonl"))})
    if asked.write:
        CURVE.write_text(curve, encoding="utf-8")
        return 0
    is_same = CURVE.is_file() and CURVE.read_text(encoding="utf-8") == curve
    return 0 if is_same else 1


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a stage's metrics."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def svg_of(logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return the curves, a panel a stage; losses on a logarithmic scale.

    Args:
        logs: stage → its lines, by step.
    """
    width = _PANEL_WIDTH * len(logs)
    most = max(line[key] for lines in logs.values() for line in lines for key in _known(line))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{_HEIGHT}" '
        f'viewBox="0 0 {width} {_HEIGHT}" font-family="sans-serif" font-size="10">',
        f'<rect width="{width}" height="{_HEIGHT}" fill="white"/>',
    ]
    for idx, (name, log) in enumerate(logs.items()):
        lines.append(f'<g transform="translate({idx * _PANEL_WIDTH} 0)">')
        lines += _panel(name, log, most)
        lines.append("</g>")
    return "\n".join([*lines, "</svg>", ""])


def _panel(name: str, log: Sequence[Mapping[str, Any]], most: float) -> Iterator[str]:
    right, bottom, last = _PANEL_WIDTH - _RIGHT, _HEIGHT - _BOTTOM, log[-1]["step"]
    yield f'<text x="{_LEFT}" y="14" font-weight="bold">{name}: loss by step</text>'
    for loss in (0.05, 0.1, 0.2, 0.5, 1, 2):
        if _LEAST <= loss <= most:
            y = _y(loss, most)
            yield _line([(_LEFT, y), (right, y)], "#ddd")
            yield f'<text x="{_LEFT - 4}" y="{y + 3:g}" text-anchor="end">{loss:g}</text>'
    for share in (0, 0.5, 1):
        x = _LEFT + (right - _LEFT) * share
        yield f'<text x="{x:g}" y="{bottom + 14}" text-anchor="middle">{round(last * share)}</text>'
    x = _LEFT
    for key, label, colour in _LOSSES:
        ends = [
            (round(_LEFT + (right - _LEFT) * line["step"] / last, 2), _y(line[key], most))
            for line in log
            if key in line
        ]
        if ends:
            yield _line(ends, colour)
            yield f'<text x="{x}" y="30" fill="{colour}">{label}</text>'
            x += 12 + 6 * len(label)


def _known(line: Mapping[str, Any]) -> list[str]:
    return [key for key, _, _ in _LOSSES if key in line]


def _line(ends: Sequence[tuple[float, float]], colour: str) -> str:
    path = " ".join(f"{x:g},{y:g}" for x, y in ends)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'


def _y(loss: float, most: float) -> float:
    share = math.log(max(loss, _LEAST) / _LEAST) / math.log(most / _LEAST)
    return round(_HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * share, 2)


if __name__ == "__main__":
    sys.exit(main())
