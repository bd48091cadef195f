"""The plot is sound SVG, and its points stand where the shares are."""

import xml.etree.ElementTree as ET

from length_plot import svg_of

_SVG = "{http://www.w3.org/2000/svg}"


def point(factor: int, scale: int, accuracy: float) -> dict:
    one = {"accuracy": accuracy, "low": 0.0, "high": 1.0, "majority": None}
    facts = {"factor": factor, "length_s": 12.0 * factor, "position_scale": scale}
    return facts | {"groups": {"when < 0.5 s": one}}


def dots(points: list[dict]) -> list[tuple[float, float]]:
    root = ET.fromstring(svg_of({"points": points}))
    return [(float(c.get("cx", 0)), float(c.get("cy", 0))) for c in root.iter(f"{_SVG}circle")]


def test_shares_and_lengths_have_their_places() -> None:
    found = dots([point(1, 1, 0.0), point(2, 1, 1.0), point(4, 1, 0.5)])
    bottom, top, middle = found[:3]
    assert bottom[1] > top[1]
    assert middle[1] == (bottom[1] + top[1]) / 2
    # Each doubling is one step.
    assert top[0] - bottom[0] == middle[0] - top[0] > 0


def test_both_ways_of_positions_are_drawn_apart() -> None:
    found = dots([point(1, 1, 0.5), point(2, 1, 0.5), point(2, 2, 0.5)])
    assert len(set(found)) == 4  # the trained length belongs to both
    assert len({y for _, y in found}) == 1
    assert "when &lt; 0.5 s" in svg_of({"points": [point(1, 1, 0.5)]})
