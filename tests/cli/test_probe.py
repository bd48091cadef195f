"""`llava-video probe`: what a video is, for people and for programs."""

import json
from fractions import Fraction
from pathlib import Path

import pytest
from synthetic import write_video


def test_facts_stand_a_line_each(run, tiny_clip: Path) -> None:
    outcome = run("probe", tiny_clip)
    assert (outcome.status, outcome.err) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in outcome.out.splitlines())
    assert lines["video"] == str(tiny_clip)
    assert lines["length"] == "1.33 s, 40 frames, 30 per second"
    assert lines["picture"] == "128 px wide, 96 px high"
    assert lines["format"] == "h264 in mov, yuv420p (8 bits, no range stated)"
    assert lines["seeking"].startswith("by index; ")
    assert lines["reader"].startswith(("decord: ", "pyav: "))


def test_what_is_odd_is_said(run, tmp_path: Path) -> None:
    path = write_video(tmp_path / "odd.mp4", 8, rotation_deg=90, sample_aspect=Fraction(4, 3))
    said = run("probe", path).out
    assert "turned clockwise by 90 degrees" in said
    assert "stored pixels are 4/3 as wide as high" in said


def test_faults_are_said(run, tmp_path: Path) -> None:
    path = write_video(tmp_path / "cut.mkv", 48)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    outcome = run("probe", path)
    assert outcome.status == 0
    assert "\nfault     truncated at 0.93 s: " in outcome.out
    assert outcome.out.endswith(" s: its header says 1.60 s.\n")


def test_long_videos_are_told_in_hours(run, tmp_path: Path) -> None:
    path = write_video(tmp_path / "long.mp4", 6, frame_rate_hz=Fraction(1, 1000))
    said = run("probe", path).out
    assert "length    1:40:00.00 (6000.00 s), 6 frames, 0.001 per second" in said


def test_json_holds_the_facts_but_not_every_time(run, tiny_clip: Path) -> None:
    values = json.loads(run("probe", "--json", tiny_clip).out)
    assert values["num_frames"] == 40
    assert values["source"] == str(tiny_clip)
    assert values["sample_aspect"] == "1"
    assert values["reader"] in ("decord", "pyav")
    assert "pts_s" not in values
    facts = (values["mirrored"], values["bit_depth"], values["is_indexed"])
    assert facts == (False, 8, True)
    assert (values["colour_range"], values["truncated_at_s"], values["faults"]) == (None, None, [])
    assert "key_ticks" not in values  # the readers' own business


def test_every_time_when_asked_for(run, tiny_clip: Path) -> None:
    values = json.loads(run("probe", "--json", "--times", tiny_clip).out)
    assert values["pts_s"] == pytest.approx([idx / 30 for idx in range(40)])
    outcome = run("probe", "--times", tiny_clip)
    assert outcome.status == 1
    assert "add --json" in outcome.err


def test_pixels_mirrors_and_uneven_times(run, tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "a.mp4", 4, mirrored=True, pixel_format="yuvj420p", times_s=[0, 0.1, 0.3, 0.4]
    )
    said = run("probe", path).out
    assert ", 100 to 200 ms apart\n" in said
    assert " high; mirrored left to right\n" in said
    assert "yuvj420p (8 bits, full range)\n" in said
    values = json.loads(run("probe", "--json", path).out)
    assert (values["mirrored"], values["colour_range"]) == (True, "full")
    said = run("probe", write_video(tmp_path / "b.mp4", 2, pixel_format="yuv420p10le")).out
    assert "yuv420p10le (10 bits, no range stated)\n" in said


def test_how_a_seek_finds_its_way(run, tmp_path: Path) -> None:
    def seeking(name: str) -> str:
        said = run("probe", write_video(tmp_path / name, 30)).out
        return next(line for line in said.splitlines() if line.startswith("seeking"))[10:]

    assert seeking("a.mp4") == "by index; 3 keyframes, at most 12 frames apart"
    assert seeking("a.ts") == (
        "by search, the file has no index; 3 keyframes, at most 12 frames apart"
    )
    assert seeking("a.avi") == "never: its frames are told by their order, from the first one on"


def test_private_addresses_are_asked_only_when_allowed(run) -> None:
    assert "loopback address" in run("probe", "http://127.0.0.1:9/a.mp4").err
    said = run("probe", "--allow-private", "http://127.0.0.1:9/a.mp4").err
    assert "cannot be reached" in said


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_one_that_fails_does_not_stop_the_others(run, tiny_clip, tmp_path, order) -> None:
    files = (tiny_clip, tmp_path / "none.mp4")
    outcome = run("probe", *(files[idx] for idx in order))
    assert outcome.status == 3
    assert outcome.out.startswith("video ")
    assert "none.mp4" in outcome.err


def test_several_are_set_apart(run, tiny_clip: Path) -> None:
    assert run("probe", tiny_clip, tiny_clip).out.count("\n\nvideo ") == 1
    assert run("probe", "--json", tiny_clip, tiny_clip).out.count("\n") == 2


def test_the_same_in_a_process_of_its_own(run, tiny_clip: Path, tmp_path: Path) -> None:
    assert run("probe", "--sandbox", tiny_clip) == run("probe", tiny_clip)
    (tmp_path / "text.mp4").write_text("words\n" * 99)
    outcome = run("probe", "--sandbox", tmp_path / "text.mp4")
    assert outcome.status == 1
    assert "is text, not a video" in outcome.err
