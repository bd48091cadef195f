"""A folder of pictures → a `Decoder`: the frames of a video in the order of their names.

As the authors' data comes (Video-ChatGPT's frames, two of each second): "frame_2.jpg" stands before
"frame_10.jpg", and times follow from a rate that is told. The first picture says the size; another
one is brought to it, as frames of a file that changes size midway are.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Self

import numpy as np

from llava_video.errors import ConfigError, SourceError
from llava_video.values import Clip, VideoInfo
from llava_video.video.clips import Frame, clips_at
from llava_video.video.picture import check_header, read_picture
from llava_video.video.upright import fit_size

_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


def frame_files(folder: Path) -> list[Path]:
    """Return the pictures of a folder in natural order; whatever else is there is passed over.

    Args:
        folder: not looked into further down.

    Raises:
        SourceError: it cannot be read, or holds no picture.
    """
    try:
        found = [
            path
            for path in folder.iterdir()
            if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".") and path.is_file()
        ]
    except OSError as cause:
        raise SourceError(f"{folder} cannot be read: {cause.strerror}.") from cause
    if not found:
        raise SourceError(
            f"{folder} holds no picture.", f"frames are files of {', '.join(sorted(_SUFFIXES))}."
        )
    return sorted(found, key=lambda path: natural_key(path.name))


def natural_key(name: str) -> tuple[tuple[str, int], ...]:
    """Return what names are sorted by: numbers in them by their value.

    >>> sorted(["f10.png", "f9.png", "f1b.png", "f1.png"], key=natural_key)
    ['f1.png', 'f1b.png', 'f9.png', 'f10.png']
    """
    parts = re.split(r"([0-9]+)", name)
    numbers = [int(part) for part in parts[1::2]]
    return tuple(zip(parts[::2], [*numbers, -1], strict=True))


class FrameFolder:
    """The pictures of a folder as a video. A kind of `Decoder`.

    Args:
        folder: of pictures.
        rate_hz: how many of them make a second.

    Attributes:
        info: as of a video file; what a container would say is not known.
        backend: "pictures".
        reason: why.

    Raises:
        ConfigError: a rate that is not above 0.
        SourceError: no picture, or the first one cannot be read.
    """

    def __init__(self, folder: str | Path, rate_hz: float) -> None:
        if not 0 < rate_hz < float("inf"):
            raise ConfigError(f"{rate_hz} frames in a second of {folder}.", "a number above 0.")
        self.backend, self.reason = "pictures", "a folder of pictures."
        self._name = str(folder)
        self._files = frame_files(Path(folder))
        height_px, width_px = read_picture(self._files[0]).shape[:2]
        num_frames = len(self._files)
        self.info: VideoInfo = VideoInfo(
            duration_s=num_frames / rate_hz,
            num_frames=num_frames,
            frame_rate_hz=rate_hz,
            height_px=height_px,
            width_px=width_px,
            codec="pictures",
            container="folder",
            colour_range="full",
            pts_s=np.arange(num_frames) / rate_hz,
            tick_s=min(1e-6, 0.5 / rate_hz),
            keyframe_idxs=tuple(range(num_frames)),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def clips_at(self, times_s: Sequence[float], *, chunk_frames: int = 8) -> Iterator[Clip]:
        """See `Decoder`.

        Raises:
            SourceError: a picture cannot be read; it is named.
        """
        return clips_at(
            self.info, times_s, self._frames, chunk_frames=chunk_frames, name=self._name
        )

    def check_headers(self) -> None:
        """See that all of them begin as pictures do; none is decoded.

        Raises:
            SourceError: one does not; it is named.
        """
        for path in self._files:
            check_header(path)

    def close(self) -> None:
        """Nothing is held open."""

    def _frames(self, idxs: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        for idx in idxs:
            picture = read_picture(self._files[idx])
            yield idx, fit_size(picture, self.info.height_px, self.info.width_px)
