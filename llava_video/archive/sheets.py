"""The answers about a video → one small picture of the frames that were seen, for people.

It stands beside the rows, not in them. Knows no decoder.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from llava_video.contact_sheet import write_contact_sheet
from llava_video.timeline import Timeline
from llava_video.values import Description

SHEETS: Final = "sheets"
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
    path = sheet_path(folder, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = np.stack([picture for picture, _ in kept])
    write_contact_sheet(pictures, [time_s for _, time_s in kept], path, columns=_MOST_FRAMES)
    return path
