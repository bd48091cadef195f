"""What probing told of the videos that were opened last, so that each file is probed once.

Several conversations show the same video, and every epoch shows it again; a probe reads all packets
of a file. A file that has changed since is probed anew. Knows no frame.
"""

from collections import OrderedDict
from pathlib import Path
from typing import Final

from llava_video.values import VideoInfo

# A frame's times and places take about 40 bytes, three times as many where all are keyframes: some
# 40 MB in each worker, eleven hours of video at 25 frames/s.
_MOST_FRAMES: Final = 1_000_000

_Stamp = tuple[int, int]  # bytes, and the time of the last change, ns


class KnownVideos:
    """The facts of videos by their paths; the longest unused ones go first.

    Args:
        most_frames: facts of so many frames are kept, all videos together.
    """

    def __init__(self, most_frames: int = _MOST_FRAMES) -> None:
        self._most_frames = most_frames
        self._infos: OrderedDict[str, tuple[_Stamp, VideoInfo]] = OrderedDict()
        self._num_frames = 0

    def info_of(self, path: str) -> VideoInfo | None:
        """Return what is known of a file as it is now; None where it has to be probed."""
        found = self._infos.get(path)
        if found is None:
            return None
        stamp, info = found
        if stamp != _stamp_of(path):
            self._forget(path)
            return None
        self._infos.move_to_end(path)
        return info

    def add(self, path: str, info: VideoInfo) -> None:
        """Remember what a probe told; not of what is no file, and not of more than is kept.

        Args:
            path: as it will be asked for.
            info: of `Decoder.info`.
        """
        stamp = _stamp_of(path)
        self._forget(path)
        if stamp is None or info.num_frames > self._most_frames:
            return
        self._infos[path] = (stamp, info)
        self._num_frames += info.num_frames
        while self._num_frames > self._most_frames:
            self._forget(next(iter(self._infos)))

    def _forget(self, path: str) -> None:
        found = self._infos.pop(path, None)
        if found is not None:
            self._num_frames -= found[1].num_frames


def _stamp_of(path: str) -> _Stamp | None:
    try:
        status = Path(path).stat()
    except OSError:  # an address, or a file that has gone
        return None
    return status.st_size, status.st_mtime_ns
