"""Every length is asked about in both ways of positions, at the trained rate."""

import json
from pathlib import Path

import length_generalisation as length
import pytest

from llava_video.eval.records import Record, Shown
from llava_video.eval.small_world import groups_of as groups_of_kind
from llava_video.world.example import make_example


def test_longer_clips_have_as_many_times_more_frames() -> None:
    assert length.options_of(1, 1) == {"fps": 2.0, "max_frames": 24, "position_scale": 1.0}
    assert length.options_of(8, 8) == {"fps": 2.0, "max_frames": 192, "position_scale": 8.0}
    for factor in (1, 4):
        scene = make_example(length.settings_of(factor), "long", 0, 0).scene
        assert scene.length_s == pytest.approx(12 * factor, abs=0.5)
        assert scene.height_px in (68, 76)


def test_a_point_is_counted_by_hand() -> None:
    shown = (
        Shown(
            kind="video",
            num_frames=48,
            num_tokens=960,
            height_px=1,
            width_px=1,
            first_s=0,
            last_s=1,
        ),
    )

    def record(name: str, kind: str, answer: str, *, correct: bool) -> Record:
        return Record(
            id=name,
            cluster=name,
            view="video",
            run="r",
            example="e",
            groups=groups_of_kind(kind),
            choices=("1", "2", "3"),
            answer=answer,
            correct=correct,
            shown=shown,
        )

    point = length.point_of(
        [
            record("a", "count", "1", correct=True),
            record("b", "count", "1", correct=False),
            record("c", "count", "2", correct=True),
            record("d", "count_now", "3", correct=True),
        ]
    )
    assert (point["frames"], point["visual_tokens"], point["failed"]) == (48, 960, 0)
    assert set(point["groups"]) == {"all questions", "count"}
    count = point["groups"]["count"]
    # "1" is right twice in three, "3" once in one.
    assert (count["accuracy"], count["n"], count["majority"]) == (0.75, 4, 0.75)


def test_a_toy_run(tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", str(tiny_folder), "--clips", "1", "--workers", "1", "--check"]
    assert length.main([*arguments, "--folder", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    points = json.loads(lines[-1])["points"]
    ways = [(point["length_s"], point["position_scale"]) for point in points]
    assert ways == [(12.0, 1), (24.0, 1), (24.0, 2)]
    assert [point["frames"] for point in points] == [24, 48, 48]
    assert (
        points[1]["visual_tokens"] == points[2]["visual_tokens"] == 2 * points[0]["visual_tokens"]
    )
    records = (tmp_path / "2x-records-2/world-00.jsonl").read_text().splitlines()
    assert {json.loads(line)["position_scale"] for line in records} == {2.0}
    assert any(line.startswith("| all questions | ") for line in lines)
