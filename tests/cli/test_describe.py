"""`llava-video describe`: the text of the API, on stdout or in files."""

import json
import shutil
from pathlib import Path

import pytest

from llava_video.api import LlavaVideo

FAST = ("--num-frames", "4", "--max-new-tokens", "6", "--no-loop-guard")
SAME = {"num_frames": 4, "max_new_tokens": 6, "loop_guard": False}
CUT = "the answer was cut at 6 tokens; --max-new-tokens allows more.\n"


@pytest.fixture
def describe(run, tiny_folder: Path):
    return lambda *arguments: run("describe", *arguments, "-m", tiny_folder, *FAST)


def test_the_text_is_the_apis_and_alone_on_stdout(
    describe, tiny_model: LlavaVideo, tiny_clip: Path
) -> None:
    outcome = describe(tiny_clip)
    assert outcome.status == 0
    assert outcome.out == tiny_model.describe(tiny_clip, **SAME).text.strip() + "\n"
    assert outcome.err == f"warning: {CUT}"


def test_options_reach_the_model(describe, tiny_model: LlavaVideo, tiny_clip: Path) -> None:
    outcome = describe(tiny_clip, "-p", "What now?", "--start", "0:01", "--json", "-q")
    own = tiny_model.describe(tiny_clip, "What now?", start=1.0, **SAME)
    values = json.loads(outcome.out)
    assert outcome.out.count("\n") == 1
    assert outcome.err == ""
    assert values["text"] == own.text
    assert values["plan"]["prompt"] == own.plan.prompt
    assert values["frames"][0]["pts_s"] == 1.0


def test_a_terminal_sees_the_same_text_piece_by_piece(describe, tiny_clip, monkeypatch) -> None:
    whole = describe(tiny_clip)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    live = describe(tiny_clip)
    assert (live.status, live.out, live.err) == (0, whole.out, whole.err)


def test_several_are_told_apart_and_one_may_fail(describe, tiny_clip: Path, tmp_path) -> None:
    text = describe(tiny_clip).out
    outcome = describe(tiny_clip, tmp_path / "none.mp4", tiny_clip)
    assert outcome.status == 3
    assert outcome.out == f"== {tiny_clip}\n{text}\n" * 2
    assert "none.mp4' cannot be opened" in outcome.err
    assert f"warning: {tiny_clip}: {CUT}" in outcome.err


def test_all_failing_is_failing(describe, tmp_path: Path) -> None:
    outcome = describe(tmp_path / "none.mp4", tmp_path / "neither.mp4")
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.count("error: ") == 2


def test_all_failing_late_is_failing_too(describe, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_text("this is text, and long enough to be looked at")
    outcome = describe(tmp_path / "a.mp4", tmp_path / "b.mp4")
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.count("error: ") == 2


def test_json_of_several_is_a_line_each(describe, tiny_clip: Path) -> None:
    lines = describe(tiny_clip, tiny_clip, "-f", "json").out.splitlines()
    assert len(lines) == 2
    assert {json.loads(line)["finish_reason"] for line in lines} == {"length"}


def test_files_go_to_a_folder(describe, tiny_clip: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(tiny_clip, other / "clip.mp4")
    shutil.copy(tiny_clip, tmp_path / "b.mp4")
    out = tmp_path / "out"
    files = (tiny_clip, other / "clip.mp4", tmp_path / "b.mp4", tmp_path / "none.mp4")
    outcome = describe(*files, "-o", out, "--contact-sheet", "--progress")
    assert (outcome.status, outcome.out) == (3, "")
    assert f"wrote {out / 'b.txt'}" in outcome.err
    written = sorted(path.name for path in out.iterdir())
    assert len(written) == 6
    assert {"b.txt", "b.jpg"} < set(written)
    assert (out / "b.txt").read_text() == describe(tiny_clip).out


def test_files_are_kept_unless_asked(describe, tiny_clip: Path, tmp_path: Path) -> None:
    (tmp_path / "clip.txt").write_text("mine")
    outcome = describe(tiny_clip, "-o", tmp_path)
    assert outcome.status == 1
    assert "hint:  --overwrite replaces; another -o keeps both." in outcome.err
    assert (tmp_path / "clip.txt").read_text() == "mine"
    assert describe(tiny_clip, "-o", tmp_path, "--overwrite").status == 0
    assert (tmp_path / "clip.txt").read_text() == describe(tiny_clip).out


def test_json_files_are_whole_descriptions(describe, tiny_clip: Path, tmp_path: Path) -> None:
    assert describe(tiny_clip, "-o", tmp_path, "--json").status == 0
    values = json.loads((tmp_path / "clip.json").read_text())
    assert values["usage"]["new_tokens"] == 6


@pytest.mark.parametrize("flag", ["--contact-sheet", "--overwrite"])
def test_what_belongs_to_files_needs_a_folder(refused, tiny_clip: Path, flag: str) -> None:
    assert "hint:  add -o DIR." in refused("describe", tiny_clip, flag)


def test_ctrl_c_between_videos_leaves_whole_files_only(
    describe, tiny_clip: Path, tmp_path: Path, monkeypatch
) -> None:
    copied = [shutil.copy(tiny_clip, tmp_path / f"{name}.mp4") for name in "ab"]

    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("llava_video.cli.describe.remark", interrupt)
    outcome = describe(*copied, "-o", tmp_path / "out")
    assert outcome.status == 130
    assert outcome.err.strip() == "interrupted."
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.txt"]
