"""The figures of the demo model are those of its records, and a toy run gives all of them."""

import json
from collections import Counter
from pathlib import Path

import pytest
from demo_card import main as make_card
from demo_model import EXACTLY_WHEN, GROUPS, TARGETS, groups_of, main, table_lines

from llava_video.eval.example import Measure
from llava_video.eval.records import Record
from llava_video.eval.small_world import groups_of as groups_of_kind
from llava_video.model.card import read_card


def record(name: str, kind: str, *, correct: bool, view: str = "video", **facts) -> Record:
    base = {"cluster": name.partition("/")[0], "run": view, "example": name, "answer": "x"}
    values = {**base, "groups": groups_of_kind(kind), "correct": correct, "exact": correct}
    return Record(id=name, view=view, **{**values, **facts})


def test_groups_counted_by_hand() -> None:
    """Two clips; of noise one in three is right where four in five of the video are."""
    shown = [
        record("a/1", "is_there", correct=True),
        record("a/2", "before", correct=False),
        record("b/1", "order", correct=True),
        record("b/2", "when", correct=True, exact=False),
        record("b/3", "when", correct=True),
    ]
    blind = [
        record("a/1", "is_there", correct=True, view="noise"),
        record("a/2", "before", correct=False, view="noise"),
        record("b/1", "order", correct=False, view="noise"),
    ]
    found = groups_of(shown + blind, [])
    shares = {name: (row["accuracy"], row["n"], row["blind"]) for name, row in found.items()}
    assert shares == {
        "all questions": (0.8, 5, pytest.approx(1 / 3)),
        "yes/no": (0.5, 2, 0.5),  # `before` is one of them, `order` is not
        "order of events": (0.5, 2, 0.0),
        "when, within 0.5 s": (1.0, 2, None),
        EXACTLY_WHEN: (0.5, 2, None),
        "type: before": (0.0, 1, 0.0),
        "type: is_there": (1.0, 1, 1.0),
        "type: order": (1.0, 1, 0.0),
        "type: when": (1.0, 2, None),
    }
    assert all(row["low"] <= row["accuracy"] <= row["high"] for row in found.values())


def test_captions_add_up_over_clips() -> None:
    def described(clip: str, named: int, due: int, view: str = "video") -> Record:
        measures = (Measure("objects named", named, due),)
        groups = {"type": "short"}
        return record(clip, "short", correct=False, view=view, groups=groups, measures=measures)

    captions = [described("a", 1, 1), described("b", 1, 3), described("a", 0, 1, "noise")]
    found = groups_of([], captions)
    # Of four objects two are named: not the mean of 1 and 1/3.
    assert found["captions: objects named"]["accuracy"] == 0.5
    assert found["captions: objects named"]["n"] == 4
    assert found["captions: objects named"]["blind"] == 0.0
    assert found["short captions: objects named"] == found["captions: objects named"]


def test_every_target_has_a_group() -> None:
    told = {*GROUPS, *(f"captions: {name}" for name in ("objects named", "events named"))}
    assert set(TARGETS) <= told | {"captions: invented"}


def test_a_toy_run_gives_everything(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", str(tiny_folder), "--clips", "2", "--captions", "1", "--workers", "1"]
    arguments += ["--blind", "1"]
    arguments += ["--folder", str(tmp_path / "run"), "--card", str(tmp_path / "card"), "--check"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    row = json.loads(lines[-1])
    handed = json.loads((tmp_path / "card/measured.json").read_text())
    assert handed == row["groups"]
    assert set(handed["colour"]) == {"accuracy", "low", "high", "n", "blind"}
    assert handed["captions: objects named"]["n"] >= 3
    assert handed["all questions"]["n"] == row["groups"]["all questions"]["n"] > 10
    assert row["calibration"]["num_examples"] > 5
    assert row["failed"] == 0
    views = {
        number: Counter(json.loads(line)["view"] for line in path.read_text().splitlines())
        for number, path in enumerate(sorted((tmp_path / "run/records").glob("world-[0-9]*")))
    }
    # Of the two clips the first is asked about twice.
    assert views[0]["video"] == views[0]["noise"] > 5
    assert views[1]["video"] > 5
    assert views[1]["noise"] == 0
    assert handed["colour"]["blind"] is not None
    assert set(table_lines(row)) <= set(lines)
    # What is handed over is what a card is made of.
    card = tmp_path / "card"
    assert make_card([str(card), "--results", str(card / "measured.json")]) == 0
    made = read_card(card)
    assert made is not None
    assert {one.kind: one.accuracy for one in made.results} == {
        name: one["accuracy"] for name, one in handed.items()
    }
    kept = sorted(path.name for path in (tmp_path / "run/records").iterdir())
    assert kept[:2] == ["world-00.jsonl", "world-01.jsonl"]
    # What stands in the files is not asked again.
    sizes = [path.stat().st_size for path in sorted((tmp_path / "run/records").iterdir())]
    assert main(arguments) == 0
    again = [path.stat().st_size for path in sorted((tmp_path / "run/records").iterdir())]
    assert again == sizes
