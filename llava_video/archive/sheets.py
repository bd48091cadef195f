"""The answers about a video → small pictures of the frames that were seen, for people.

One of all of it, and one of each span that was answered about. They stand beside the rows, not in
them. Knows no decoder.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from llava_video.contact_sheet import contact_sheet
from llava_video.files import replacing
from llava_video.timeline import Timeline
from llava_video.values import Description

SHEETS: Final = "sheets"
FRAMES: Final = "frames"
# One line of a screen; some 40 KB.
_MOST_FRAMES: Final = 8


def sheet_path(folder: Path, key: str) -> Path:
    """Return where the sheet of a unit stands in a run folder, whether it does or not."""
    return folder / SHEETS / f"{key[:16]}.jpg"


def sheet_of(results: Sequence[Description] | Timeline) -> bytes | None:
    """Draw a sheet: frames spread evenly over what was seen, each with its time.

    Args:
        results: the answers about a unit, which share one look, or its timeline.

    Returns:
        A JPEG; None where no frame was seen.
    """
    shown = [
        pair
        for answer in _looks(results)
        if answer.thumbnails is not None
        for pair in zip(answer.thumbnails, answer.thumbnail_times_s, strict=True)
    ]
    if not shown:
        return None
    places = np.linspace(0, len(shown) - 1, min(_MOST_FRAMES, len(shown))).round().astype(int)
    kept = [shown[place] for place in places]
    pictures = np.stack([picture for picture, _ in kept])
    return contact_sheet(pictures, [time_s for _, time_s in kept], columns=_MOST_FRAMES)


def write_sheet(folder: Path, key: str, sheet: bytes) -> Path:
    """Put the sheet of a unit into its run folder, whole or not at all, and return the file.

    Raises:
        OSError: it cannot be written.
    """
    path = sheet_path(folder, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        unfinished.write_bytes(sheet)
    return path


def frames_of(results: Sequence[Description] | Timeline) -> dict[int, bytes]:
    """Draw a frame of each span that was answered about: the nearest to its middle.

    Args:
        results: as of `sheet_of`.

    Returns:
        Its time, ms → a JPEG.
    """
    drawn: dict[int, bytes] = {}
    for answer in _looks(results):
        if answer.thumbnails is not None and answer.coverage:
            middle_s = (answer.coverage[0].start_s + answer.coverage[-1].end_s) / 2
            times_s = answer.thumbnail_times_s
            at = min(range(len(times_s)), key=lambda idx: abs(times_s[idx] - middle_s))
            one = slice(at, at + 1)
            drawn[round(1000 * times_s[at])] = contact_sheet(answer.thumbnails[one], times_s[one])
    return drawn


def write_frames(folder: Path, key: str, frames: Mapping[int, bytes]) -> list[Path]:
    """Put the frames of a unit into its run folder, each whole or not at all; return the files.

    Raises:
        OSError: one cannot be written.
    """
    place, written = _frames_place(folder, key), list[Path]()
    for time_ms, picture in frames.items():
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"{time_ms:09d}.jpg"
        # Where it is swept: nobody looks into the folders of 100,000 units for what a kill left.
        with replacing(path, place.parent) as unfinished:
            unfinished.write_bytes(picture)
        written.append(path)
    return written


def frame_near(folder: Path, key: str, time_s: float) -> Path | None:
    """Return the frame of a unit that is nearest to a time, s; None where there is none."""
    place = _frames_place(folder, key)
    frames = sorted(place.glob("[0-9]*.jpg")) if place.is_dir() else []
    return min(frames, key=lambda path: abs(int(path.stem) - 1000 * time_s), default=None)


def _frames_place(folder: Path, key: str) -> Path:
    return folder / FRAMES / key[:16]


def _looks(results: Sequence[Description] | Timeline) -> list[Description]:
    """Return one answer for each look at the video: questions share theirs, windows do not."""
    if isinstance(results, Timeline):
        return [caption.description for caption in results.captions]
    return list(results[:1])
