"""`llava-video search`: for people, for programs, and what it refuses."""

import json
from pathlib import Path

import archive_rows as made
import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    captions = [(0.0, 30.0, "An empty yard."), (30.0, 75.5, "A red truck\nreverses.")]
    rows = [made.timeline_row(0, captions, address="my clips/yard.mp4")]
    rows.append(made.ask_row(1, {"What is red?": "A truck."}))
    return made.sealed_run(tmp_path / "run", rows)


def test_people_see_where_and_what(run, folder: Path) -> None:
    outcome = run("search", folder, "truck", "reversing")
    assert outcome.status == 0
    assert outcome.out.splitlines()[:2] == [
        "my clips/yard.mp4  0:30.00 - 1:15.50  caption",
        "    A red truck reverses.",
    ]
    outcome = run("search", folder, "truck", "--limit", "1")
    assert outcome.out.splitlines() == [
        "clips/one.mp4  0:00.00 - 0:04.00  answer",
        "    What is red?",
        "    A truck.",
    ]


def test_people_see_where_the_frames_are(run, folder: Path) -> None:
    hit = json.loads(run("search", folder, "truck", "--json", "--limit", "1").out)
    path = folder / "sheets" / f"{hit['key'][:16]}.jpg"
    assert hit["sheet"] is None
    path.parent.mkdir()
    path.write_bytes(b"picture")
    frame = folder / "frames" / hit["key"][:16] / "000001500.jpg"
    frame.parent.mkdir(parents=True)
    frame.write_bytes(b"picture")
    outcome = run("search", folder, "truck", "--limit", "1")
    assert outcome.out.splitlines()[-2:] == [f"    frame: {frame}", f"    frames: {path}"]


def test_programs_get_a_line_a_hit(run, folder: Path) -> None:
    outcome = run("search", folder, '"red truck"', "--json")
    first, second = map(json.loads, outcome.out.splitlines())
    assert (first["number"], first["start_s"], first["end_s"]) == (0, 30.0, 75.5)
    assert first["text"] == "A red truck\nreverses."
    assert second["kind"] == "summary"


def test_nothing_found_is_a_status(run, folder: Path) -> None:
    outcome = run("search", folder, "zebra")
    assert (outcome.status, outcome.out) == (3, "")
    assert "nothing was found" in outcome.err


def test_the_index_can_be_made_anew(run, folder: Path) -> None:
    run("search", folder, "truck")
    path = folder / "search.sqlite"
    before = path.stat().st_ino, path.stat().st_mtime_ns
    run("search", folder, "truck")
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == before
    run("search", folder, "truck", "--rebuild")
    assert (path.stat().st_ino, path.stat().st_mtime_ns) != before


def test_what_is_no_query_and_no_archive_is_refused(refused, folder: Path, tmp_path: Path) -> None:
    assert "holds no word" in refused("search", folder, "--", "-(*")
    assert "holds no rows" in refused("search", tmp_path, "dog")
