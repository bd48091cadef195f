"""docs/length.md and its plot say what the newest kept row says."""

import json
from pathlib import Path

import length_page
import pytest
from length_plot import svg_of

PAGE = length_page.PAGE.read_text(encoding="utf-8")


def row(accuracy: float, *, check: bool = False) -> dict:
    one = {"accuracy": accuracy, "low": 0.5, "high": 0.9, "n": 9, "majority": 0.25}
    points = [
        {
            "factor": factor,
            "length_s": 12.0 * factor,
            "position_scale": scale,
            "frames": 24 * factor,
        }
        | {"visual_tokens": 480 * factor, "groups": {"yes/no": one}}
        for factor, scale in ((1, 1), (2, 1), (2, 2))
    ]
    facts = {"device": "a CPU", "commit": "0123456789ab", "dirty": False, "model": "demo"}
    return {"clips": 150, "check": check, "points": points, **facts}


def test_the_page_is_up_to_date() -> None:
    due = "run: python benchmarks/length_page.py --write"
    assert length_page.rewritten(PAGE) == PAGE, due
    newest = length_page.newest()
    if newest is not None:
        plot = length_page.PAGE.with_suffix(".svg")
        assert plot.read_text(encoding="utf-8") == svg_of(newest), due


def test_the_newest_row_that_was_no_trial_is_shown(tmp_path: Path) -> None:
    rows = [row(0.61), row(0.75), row(0.99, check=True)]
    text = "\n".join(json.dumps(one) for one in rows) + "\n"
    (tmp_path / "length_generalisation.jsonl").write_text(text, encoding="utf-8")
    page = length_page.rewritten(PAGE, tmp_path)
    assert "| share of right answers, % | 12 s | 24 s | 24 s, ÷ 2 |" in page
    assert "| yes/no | 75.0 (50 to 90; 25) | 75.0 (50 to 90; 25) | 75.0 (50 to 90; 25) |" in page
    assert "| visual tokens | 480 | 960 | 960 |" in page
    assert "(length.svg)" in page
    assert "not measured yet" in length_page.rewritten(page, tmp_path / "nothing")
    with pytest.raises(ValueError, match="'length'"):
        length_page.rewritten("no marks", tmp_path)
