"""The answers about a video → small pictures of the frames that were seen, for people.

One of all of it, and one of each span that was answered about. They stand beside the rows, not in
them. Knows no decoder.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from llava_video.contact_sheet import write_contact_sheet
from llava_video.timeline import Timeline
from llava_video.values import Description

SHEETS: Final = "sheets"
FRAMES: Final = "frames"
# One line of a screen; some 40 KB.
_MOST_FRAMES: Final = 8


def sheet_path(folder: Path, key: str) -> Path:
    """Return where the sheet of a unit stands in a run folder, whether it does or not."""
    return folder / SHEETS / f"{key[:16]}.jpg"


def write_sheet(folder: Path, key: str, results: Sequence[Description] | Timeline) -> Path | None:
    """Write the sheet of a unit: frames spread evenly over what was seen, each with its time.

    Args:
        folder: the run folder.
        key: of the unit.
        results: its answers, which share one look, or its timeline.

    Returns:
        The file; None where no frame was seen.

    Raises:
        SourceError: it cannot be written. OSError: nor can its folder.
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
    path = sheet_path(folder, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = np.stack([picture for picture, _ in kept])
    write_contact_sheet(pictures, [time_s for _, time_s in kept], path, columns=_MOST_FRAMES)
    return path


def frame_near(folder: Path, key: str, time_s: float) -> Path | None:
    """Return the picture of a unit that is nearest to a time, s; None where there is none."""
    place = _frames_of(folder, key)
    pictures = sorted(place.glob("*.jpg")) if place.is_dir() else []
    return min(pictures, key=lambda path: abs(int(path.stem) - 1000 * time_s), default=None)


def write_frames(folder: Path, key: str, results: Sequence[Description] | Timeline) -> list[Path]:
    """Write a picture for each span that was answered about: the frame nearest to its middle.

    Args and errors: as `write_sheet`.

    Returns:
        The files, named by their times in ms.
    """
    place = _frames_of(folder, key)
    written: list[Path] = []
    for answer in _looks(results):
        if answer.thumbnails is None or not answer.coverage:
            continue
        middle_s = (answer.coverage[0].start_s + answer.coverage[-1].end_s) / 2
        times_s = answer.thumbnail_times_s
        at = min(range(len(times_s)), key=lambda idx: abs(times_s[idx] - middle_s))
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"{round(1000 * times_s[at]):09d}.jpg"
        write_contact_sheet(answer.thumbnails[at : at + 1], times_s[at : at + 1], path)
        written.append(path)
    return written


def _frames_of(folder: Path, key: str) -> Path:
    return folder / FRAMES / key[:16]


def _looks(results: Sequence[Description] | Timeline) -> list[Description]:
    """Return one answer for each look at the video: questions share theirs, windows do not."""
    if isinstance(results, Timeline):
        return [caption.description for caption in results.captions]
    return list(results[:1])
