"""A container → whether it lists where its keyframes lie, or a seek has to search.

Decodes nothing and reads no packets of its own; knows formats by FFmpeg's names.
"""

import contextlib
from typing import TYPE_CHECKING

from llava_video.backends import require
from llava_video.video.container import open_container
from llava_video.video.source import Source

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

# Of MP4 and MOV FFmpeg always has an index: the file's own, a list of its fragments, or the one it
# makes by reading all fragments' headers on opening.
ALWAYS_INDEXED = "mov"
# These should keep one. All others have none by design.
INDEXED_FORMATS = frozenset({"matroska", "avi", "flv"})


def last_indexed_tick(
    source: Source, container: "InputContainer", track: "VideoStream"
) -> int | None:
    """Return the last time the container's index knows of, as the container counts it.

    FFmpeg adds what it reads to the same list, so this has to be asked before any packet is read;
    the beginning of the file, which it reads to find out what is in it, is on the list anyway.

    Args:
        source: the same as the container's.
        container: just opened.
        track: one of its.

    Returns:
        None without any entry.
    """
    if "matroska" not in container.format.name:
        return _last_tick(track)
    # Matroska's index lies at the end and is read by the first seek, which must not move the
    # container that is read from: leading pictures would be lost.
    with open_container(source) as other:
        twin = other.streams.video[container.streams.video.index(track)]
        with contextlib.suppress(require("av").error.FFmpegError):
            other.seek(0, stream=twin)
        return _last_tick(twin)


def is_indexed(last_tick: int | None, first_key_tick: int, last_key_tick: int) -> bool:
    """Say whether an index reaches beyond a file's beginning: past the middle of its keyframes.

    An index may skip keyframes, and what FFmpeg read on opening looks like a short index.

    >>> is_indexed(900, 0, 1000), is_indexed(100, 0, 1000), is_indexed(None, 0, 0)
    (True, False, False)

    Args:
        last_tick: from `last_indexed_tick`.
        first_key_tick: when the first keyframe is decoded.
        last_key_tick: when the last one is.
    """
    return last_tick is not None and 2 * last_tick >= first_key_tick + last_key_tick


def _last_tick(track: "VideoStream") -> int | None:
    entries = track.index_entries
    return entries[len(entries) - 1].timestamp if len(entries) else None
