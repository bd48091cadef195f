"""`llava-video replay`: the same, or what differs, with a status."""

import json
from pathlib import Path

import archive_rows as made
import pytest

from llava_video.api import load
from llava_video.archive.answering import answer_item
from llava_video.archive.content import content_hash
from llava_video.archive.row import Asked, make_row
from llava_video.archive.unit import Unit


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, tiny_clip: Path) -> Path:
    asked = Asked(task="caption", options={"num_frames": 2, "max_new_tokens": 4})
    blank = made.unit(0, address=str(tiny_clip))
    unit = Unit(key=blank.key, number=0, item=blank.item, content_hash=content_hash(str(tiny_clip)))
    with load(tiny_folder) as model:
        row = make_row(unit, answer_item(model, unit.item, asked), asked)
    other = row | {"number": 1, "asked": row["asked"] | {"prompts": ["What else?"]}}
    return made.sealed_run(tmp_path_factory.mktemp("run"), [row, other])


def test_the_rows_own_model_says_the_same(run, folder: Path) -> None:
    outcome = run("replay", folder, "0")
    assert (outcome.status, outcome.out) == (0, "the same.\n")


def test_differences_are_lines(run, folder: Path) -> None:
    outcome = run("replay", folder, "1")
    assert outcome.status == 3
    assert outcome.out.startswith("answers[0].prompt: '' -> 'What else?'\n")
    lines = run("replay", folder, "1", "--json").out.splitlines()
    first = json.loads(lines[0])
    assert first == {"field": "answers[0].prompt", "was": "", "now": "What else?"}


def test_another_model_and_another_place_can_be_named(
    run, folder: Path, tmp_path: Path, tiny_clip: Path
) -> None:
    outcome = run("replay", folder, "0", "-m", tmp_path / "nothing")
    assert outcome.status == 1
    assert "nothing" in outcome.err
    moved = tmp_path / "moved.mp4"
    moved.write_bytes(tiny_clip.read_bytes())
    assert run("replay", folder, "0", "--video", moved).out == "the same.\n"


def test_what_is_no_row_is_refused(refused, folder: Path, tmp_path: Path) -> None:
    assert "no rows of" in refused("replay", folder, "zebra.mp4")
    assert "no rows of" in refused("replay", tmp_path, "0")
