"""The answers about a video → one small picture of the frames that were seen, for people.

It stands beside the rows, not in them. Knows no decoder.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from llava_video.contact_sheet import contact_sheet
from llava_video.files import replacing
from llava_video.timeline import Timeline
from llava_video.values import Description

SHEETS: Final = "sheets"
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
    if isinstance(results, Timeline):
        seen = [caption.description for caption in results.captions]
    else:
        seen = list(results[:1])
    shown = [
        (picture, time_s)
        for answer in seen
        if answer.thumbnails is not None
        for picture, time_s in zip(answer.thumbnails, answer.thumbnail_times_s, strict=True)
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
