"""The same again is the same; whatever was changed is named, causes first."""

import copy
import shutil
from pathlib import Path
from typing import Any

import archive_rows as made
import pytest

from llava_video.api import LlavaVideo
from llava_video.archive.answering import answer_item
from llava_video.archive.content import content_hash
from llava_video.archive.replay import find_row, replay
from llava_video.archive.row import Asked, Row, duplicate_row, error_row, make_row
from llava_video.archive.unit import Unit, UnitError
from llava_video.engine.oracle import OracleEngine
from llava_video.errors import ConfigError, LlavaVideoError
from llava_video.world.bars import paint_index
from llava_video.world.clip import write_clip

OPTIONS: dict[str, Any] = {"num_frames": 3, "max_new_tokens": 64, "loop_guard": False}


@pytest.fixture(scope="module")
def oracle(tiny_model: LlavaVideo) -> LlavaVideo:
    return LlavaVideo(tiny_model.spec, OracleEngine(tiny_model.spec.tokenizer))


def row_by(model: LlavaVideo, clip: Path, asked: Asked, **facts: Any) -> Row:
    """Make a row as a run does."""
    blank = made.unit(0, address=str(clip), **facts)
    unit = Unit(key=blank.key, number=0, item=blank.item, content_hash=content_hash(str(clip)))
    try:
        return make_row(unit, answer_item(model, unit.item, asked), asked)
    except LlavaVideoError as error:
        return error_row(unit, UnitError.of(error), asked)


def fields(row: Row, model: LlavaVideo, **how: Any) -> list[str]:
    return [difference.field for difference in replay(row, model, **how)]


@pytest.mark.parametrize(
    "asked",
    [
        Asked(task="caption", options=OPTIONS),
        Asked(task="ask", prompts=("What is shown?", "Which indices?"), options=OPTIONS),
        Asked(task="timeline", options=OPTIONS, window_s=0.5, overlap_s=0.1),
        Asked(task="caption", options=OPTIONS | {"temperature": 1.0, "seed": 7}),
        Asked(task="ask", prompts=("Red?",), options=OPTIONS | {"response_format": ["yes", "no"]}),
    ],
    ids=["caption", "ask", "timeline", "sampled", "choices"],
)
def test_a_model_says_the_same_again(tiny_model: LlavaVideo, tiny_clip: Path, asked: Asked) -> None:
    assert replay(row_by(tiny_model, tiny_clip, asked, start_s=0.2), tiny_model) == []


def test_a_changed_prompt_is_named_before_its_answer(oracle: LlavaVideo, tiny_clip: Path) -> None:
    row = row_by(
        oracle, tiny_clip, Asked(task="ask", prompts=("How many frames?",), options=OPTIONS)
    )
    row["asked"]["prompts"] = ["Last index?"]
    found = replay(row, oracle)
    assert [one.field for one in found][:2] == ["answers[0].prompt", "answers[0].plan.prompt"]
    text = next(one for one in found if one.field == "answers[0].text")
    assert (text.was, text.now) == ("3", "39")
    assert str(text) == "answers[0].text: '3' -> '39'"


def test_other_frames_are_named_before_what_they_show(oracle: LlavaVideo, tiny_clip: Path) -> None:
    row = row_by(oracle, tiny_clip, Asked(task="caption", options=OPTIONS))
    row["asked"]["options"] = OPTIONS | {"num_frames": 2}
    found = fields(row, oracle)
    assert "answers[0].frame_idxs" in found
    assert found.index("answers[0].frame_idxs") < found.index("answers[0].text")
    assert not any(name.startswith(("video", "provenance")) for name in found)


def test_another_file_comes_first_and_the_same_bytes_elsewhere_are_the_same(
    oracle: LlavaVideo, tiny_clip: Path, tmp_path: Path
) -> None:
    row = row_by(oracle, tiny_clip, Asked(task="caption", options=OPTIONS))
    moved = tmp_path / "moved.mp4"
    shutil.copy(tiny_clip, moved)
    assert replay(row, oracle, address=str(moved)) == []
    write_clip(moved, [paint_index(idx + 1, 96, 128) for idx in range(40)])
    assert fields(row, oracle, address=str(moved)) == ["video.sha256", "answers[0].text"]


def test_another_model_is_named(
    tiny_model: LlavaVideo, oracle: LlavaVideo, tiny_clip: Path
) -> None:
    row = row_by(tiny_model, tiny_clip, Asked(task="caption", options=OPTIONS))
    assert "answers[0].text" in fields(row, oracle)  # the same checkpoint's name, another engine
    other = copy.deepcopy(row)
    other["provenance"] |= {"model": "other/model", "versions": {"torch": "1.0"}}
    found = fields(other, tiny_model)
    assert found[:2] == ["provenance.model", "provenance.versions.torch"]
    assert all(name.startswith("provenance.") for name in found)


def test_an_error_that_comes_again_is_the_same(oracle: LlavaVideo, tmp_path: Path) -> None:
    path = tmp_path / "bad.mp4"
    path.write_bytes(b"no video" * 100)
    row = row_by(oracle, path, Asked(task="caption", options=OPTIONS))
    row["provenance"]["model"] = oracle.spec.name
    assert row["status"] == "failed"
    assert replay(row, oracle) == []
    assert replay(row | {"status": "quarantined"}, oracle) == []
    path.unlink()
    assert fields(row, oracle)[:2] == ["error.message", "error.hint"]


def test_what_was_mended_is_named(oracle: LlavaVideo, tiny_clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"no video" * 100)
    row = row_by(oracle, path, Asked(task="caption", options=OPTIONS))
    shutil.copy(tiny_clip, path)
    found = replay(row, oracle)
    status = next(one for one in found if one.field == "status")
    assert (found[0].field, status.was, status.now) == ("video.sha256", "failed", "done")


def test_what_holds_no_work_is_refused(oracle: LlavaVideo) -> None:
    pointer = duplicate_row(made.unit(3), 1, Asked(task="caption"))
    with pytest.raises(ConfigError, match=r"no work of its own.*replay row 1"):
        replay(pointer, oracle)
    with pytest.raises(ConfigError, match="names no schema"):
        replay({}, oracle)


def test_a_row_is_found_by_number_key_and_name(tmp_path: Path) -> None:
    rows = [
        made.caption_row(0, "one", address="a/x.mp4"),
        made.caption_row(1, "two", address="b/x.mp4"),
        made.caption_row(2, "three", address="c/y.mp4"),
    ]
    made.sealed_run(tmp_path, rows)
    assert find_row(tmp_path, "1") == rows[1]
    assert find_row(tmp_path, rows[2]["key"][:8]) == rows[2]
    assert find_row(tmp_path, "b/x.mp4") == rows[1]
    assert find_row(tmp_path, "y.mp4") == rows[2]
    with pytest.raises(ConfigError, match=r"2 rows of .* are 'x.mp4'.*give one by number: 0, 1"):
        find_row(tmp_path, "x.mp4")
    with pytest.raises(ConfigError, match="no rows of"):
        find_row(tmp_path, rows[2]["key"][:7])
