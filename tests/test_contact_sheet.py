import os
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llava_video.contact_sheet import clock_text, write_contact_sheet
from llava_video.errors import ConfigError, SourceError


def _thumbnails(num: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Picture i is grey of level 40 + 10 i."""
    levels = 40 + 10 * np.arange(num, dtype=np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (num, 90, 160, 3))


def test_pictures_stand_in_rows_in_order(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    write_contact_sheet(_thumbnails(5), [0, 1, 2, 3, 4], path, columns=2)
    sheet = np.asarray(Image.open(path).convert("L"))
    centres = [(45 + row * 112, 80 + column * 166) for row in range(3) for column in range(2)]
    assert [int(sheet[y, x]) for y, x in centres] == [40, 50, 60, 70, 80, 24]


def test_each_picture_has_its_time_underneath(tmp_path: Path) -> None:
    sheets = []
    for times_s in ([1.0, 2.0], [1.0, 3.0]):
        write_contact_sheet(_thumbnails(2), times_s, tmp_path / "a.png", columns=2)
        sheets.append(np.asarray(Image.open(tmp_path / "a.png").convert("L")).astype(int))
    one, other = sheets
    captions = one[96:112]
    assert captions[:, 6:166].max() > 150  # ink under the first
    changed = np.argwhere(one != other)
    assert len(changed) > 0
    assert changed[:, 0].min() >= 96  # only in the caption row
    assert changed[:, 1].min() > 166  # only under the second


def test_captions_may_stand_where_times_would(tmp_path: Path) -> None:
    times_s = [1.0, 62.5]
    write_contact_sheet(_thumbnails(2), times_s, tmp_path / "a.png")
    texts = [clock_text(time_s) for time_s in times_s]
    write_contact_sheet(_thumbnails(2), [9.0, 9.0], tmp_path / "b.png", captions=texts)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with pytest.raises(ConfigError, match="2 thumbnails, 1 captions"):
        write_contact_sheet(_thumbnails(2), times_s, tmp_path / "c.png", captions=["one"])


def test_a_sheet_is_about_as_wide_as_high(tmp_path: Path) -> None:
    write_contact_sheet(_thumbnails(20), range(20), tmp_path / "a.png")
    width_px, height_px = Image.open(tmp_path / "a.png").size
    assert 0.6 < width_px / height_px < 1.6


def test_one_picture_and_too_many_columns(tmp_path: Path) -> None:
    write_contact_sheet(_thumbnails(1), [7.0], tmp_path / "a.jpg", columns=9)
    assert Image.open(tmp_path / "a.jpg").size == (172, 118)


@pytest.mark.parametrize(
    ("time_s", "text"),
    [
        (0.0, "0:00.00"),
        (9.994, "0:09.99"),
        (9.996, "0:10.00"),
        (59.999, "1:00.00"),
        (3599.999, "1:00:00.00"),
        (3723.256, "1:02:03.26"),
        (36000.0, "10:00:00.00"),
    ],
)
def test_clock_text(time_s: float, text: str) -> None:
    assert clock_text(time_s) == text


@pytest.mark.parametrize(
    ("num", "times_s", "name", "columns", "message"),
    [
        (0, [], "a.png", None, "0 thumbnails"),
        (2, [1.0], "a.png", None, "2 thumbnails, 1 times"),
        (2, [1.0, 2.0], "a.txt", None, "suffixes"),
        (2, [1.0, 2.0], "a", None, "suffixes"),
        (2, [1.0, 2.0], "a.png", 0, "columns"),
    ],
)
def test_bad_arguments(
    tmp_path: Path, num: int, times_s: list[float], name: str, columns: int | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        write_contact_sheet(_thumbnails(num), times_s, tmp_path / name, columns=columns)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(2, 4, 4), (2, 4, 4, 4)])
def test_bad_shapes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="N, h, w, 3"):
        write_contact_sheet(np.zeros(shape, np.uint8), [0, 1], tmp_path / "a.png")


@pytest.mark.parametrize(
    ("cause", "raised", "message"),
    [
        (
            OSError(28, "No space left on device"),
            SourceError,
            r"cannot be written: No space left.*has room",
        ),
        (MemoryError("no room to compress"), MemoryError, "no room to compress"),
        (KeyboardInterrupt("stopped"), KeyboardInterrupt, "stopped"),
    ],
)
def test_nothing_half_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cause: BaseException,
    raised: type[BaseException],
    message: str,
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"what was there before")

    def full(self: object, file: object, **_: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise cause

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(raised, match=message):
        write_contact_sheet(_thumbnails(2), [0, 1], path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert path.read_bytes() == b"what was there before"


def test_the_process_keeps_its_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread that makes a file meanwhile would get everybody's permissions."""

    def touched(mask: int) -> int:
        raise AssertionError(f"umask set to {mask}")

    monkeypatch.setattr(os, "umask", touched)
    write_contact_sheet(_thumbnails(2), [0, 1], tmp_path / "a.png")
    (tmp_path / "plain").write_bytes(b"")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.png", "plain")}
    assert len(modes) == 1


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        write_contact_sheet(_thumbnails(2), [0, 1], tmp_path / "none" / "a.png")
