"""A sheet shows frames from the beginning to the end of what was seen."""

import dataclasses
from pathlib import Path

import archive_rows as made
import numpy as np
import pytest
from PIL import Image

from llava_video.archive.shards import sweep
from llava_video.archive.sheets import (
    frame_near,
    frames_of,
    sheet_of,
    sheet_path,
    write_frames,
    write_sheet,
)
from llava_video.timeline import Caption, Timeline
from llava_video.values import Description, Segment

KEY = "ab" * 32


def seen(levels: list[int]) -> Description:
    pictures = np.stack([np.full((18, 32, 3), level, np.uint8) for level in levels])
    times_s = tuple(float(idx) for idx in range(len(levels)))
    return made.description("x", thumbnails=pictures, thumbnail_times_s=times_s)


def written(folder: Path, results: list[Description] | Timeline) -> Path:
    sheet = sheet_of(results)
    assert sheet is not None
    return write_sheet(folder, KEY, sheet)


def levels_in(path: Path) -> list[int]:
    """Return the grey level in the middle of each picture of a sheet of one line."""
    sheet = np.asarray(Image.open(path).convert("L"))
    return [int(sheet[6 + 9, 6 + 38 * column + 16]) for column in range((sheet.shape[1] - 6) // 38)]


def test_frames_are_spread_over_what_was_seen(tmp_path: Path) -> None:
    path = written(tmp_path, [seen([10 * idx for idx in range(22)])])
    assert path == sheet_path(tmp_path, KEY) == tmp_path / "sheets/abababababababab.jpg"
    wanted = np.array([0, 30, 60, 90, 120, 150, 180, 210])
    assert np.abs(np.array(levels_in(path)) - wanted).max() <= 4
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_questions_share_their_frames_and_windows_have_each_their_own(tmp_path: Path) -> None:
    path = written(tmp_path, [seen([50, 100]), seen([50, 100])])
    assert len(levels_in(path)) == 2
    captions = tuple(
        Caption(segment=Segment(0, 1), text="x", description=seen([level]))
        for level in (40, 120, 200)
    )
    path = written(tmp_path, Timeline(captions=captions, summary="", coverage=()))
    assert np.abs(np.array(levels_in(path)) - [40, 120, 200]).max() <= 4


def test_where_nothing_was_seen_there_is_no_sheet() -> None:
    assert sheet_of([made.description("x")]) is None


def test_every_span_has_the_frame_nearest_to_its_middle(tmp_path: Path) -> None:
    answer = dataclasses.replace(seen([10, 90, 170, 250]), coverage=(Segment(0.0, 3.8),))
    (path,) = write_frames(tmp_path, KEY, frames_of([answer, answer]))
    assert path == tmp_path / "frames/abababababababab/000002000.jpg"
    assert np.abs(np.array(levels_in(path)) - [170]).max() <= 4
    windows = tuple(
        Caption(segment=span, text="x", description=dataclasses.replace(answer, coverage=(span,)))
        for span in (Segment(0.0, 1.9), Segment(1.9, 4.0))
    )
    timeline = Timeline(captions=windows, summary="", coverage=())
    paths = write_frames(tmp_path, "cd" * 32, frames_of(timeline))
    assert [path.name for path in paths] == ["000001000.jpg", "000003000.jpg"]
    assert frame_near(tmp_path, "cd" * 32, 0.4) == paths[0]
    assert frame_near(tmp_path, "cd" * 32, 2.5) == paths[1]
    assert frame_near(tmp_path, "ef" * 32, 2.5) is None
    assert write_frames(tmp_path, "ef" * 32, frames_of([made.description("x")])) == []


def test_what_a_kill_leaves_of_a_frame_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = frames_of([seen([50, 100])])
    with monkeypatch.context() as killed:
        # A killed process neither renames nor deletes.
        killed.setattr(Path, "replace", lambda path, target: None)
        killed.setattr(Path, "unlink", lambda path, missing_ok=False: None)
        write_frames(tmp_path, KEY, frames)
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(left) == len(frames) == 1
    assert sweep(tmp_path) == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
