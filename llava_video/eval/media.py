"""What annotations call a video → its file in a local copy of a benchmark, and how it is shown.

Copies are unpacked in many ways: a name is looked for where the benchmark keeps it, and else
anywhere in the folder, with any suffix of videos. Decodes nothing before it is asked; knows no
benchmark.
"""

import io
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from llava_video.errors import ConfigError, DecodeError, LlavaVideoError, SourceError
from llava_video.inputs import Picture, Video

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".gif")
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Footage:
    """What a question is about.

    Attributes:
        path: file of a video or a picture, or a folder of numbered pictures; None with `pictures`.
        pictures: still pictures as encoded bytes.
        start_s: first moment asked about, s; None is the beginning.
        end_s: end of the span, s; None is the end.
        frame_rate_hz: of a folder of pictures, the first of which is at 0 s.
        missing: why there is nothing to show.
    """

    path: Path | None = None
    pictures: tuple[bytes, ...] = ()
    start_s: float | None = None
    end_s: float | None = None
    frame_rate_hz: float | None = None
    missing: LlavaVideoError | None = None

    def load(self) -> Any:
        """Return what `LlavaVideo.ask` takes.

        Raises:
            DecodeError: a picture of a folder cannot be read. SourceError: the span has none, or
                the file is not there.
        """
        if self.missing is not None:
            raise self.missing
        if self.path is None:
            return [Picture(one) for one in self.pictures]
        if self.frame_rate_hz is not None:
            return _frames_in(self.path, self.frame_rate_hz, self.start_s, self.end_s)
        if self.path.suffix.lower() in PICTURE_SUFFIXES:
            return Picture(self.path)
        return Video(self.path, start=self.start_s, end=self.end_s)

    @property
    def name(self) -> str:
        """What it is called, for records: the path, or how many pictures."""
        return str(self.path) if self.path is not None else f"{len(self.pictures)} pictures"


class MediaIndex:
    """The videos, pictures and folders of pictures under a folder, by name; walked when first used.

    Args:
        folder: of the local copy.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._by_stem: dict[str, list[Path]] | None = None

    def footage(
        self, name: str, *places: str, start_s: float | None = None, end_s: float | None = None
    ) -> Footage:
        """Return the video or picture of a name; when there is none, a footage that says so.

        Args:
            name: as `find`.
            *places: as `find`.
            start_s: first moment asked about, s; None is the beginning.
            end_s: end of the span, s; None is the end.
        """
        try:
            return Footage(path=self.find(name, *places), start_s=start_s, end_s=end_s)
        except LlavaVideoError as error:
            return Footage(path=Path(name), missing=error)

    def find(self, name: str, *places: str) -> Path:
        """Return the file of a name.

        Args:
            name: as the annotations have it, with or without suffix and folder.
            *places: folders, relative to the copy, that are looked at first.

        Raises:
            SourceError: there is none. ConfigError: several files could be meant.
        """
        for place in (*places, ""):
            exact = self.folder / place / name
            if exact.is_file():
                return exact
        found = self._anywhere(Path(name))
        if len(found) == 1:
            return found[0]
        if found:
            shown = ", ".join(str(path.relative_to(self.folder)) for path in found[:3])
            raise ConfigError(f"{name} may be any of {shown}.", "leave one of them.")
        raise SourceError(f"{name} is not in {self.folder}.", "unpack the videos there.")

    def frames(
        self, name: str, *places: str, rate_hz: float, start_s: float | None, end_s: float | None
    ) -> Footage:
        """Return the folder of numbered pictures of a name; when there is none, one that says so.

        Args:
            name: of the folder.
            *places: as `find`.
            rate_hz: pictures per second.
            start_s: first moment asked about, s; None is the beginning.
            end_s: end of the span, s; None is the end.
        """
        for place in (*places, ""):
            path = self.folder / place / name
            if path.is_dir():
                return Footage(path=path, frame_rate_hz=rate_hz, start_s=start_s, end_s=end_s)
        lost = SourceError(f"{name} is no folder in {self.folder}.", "unpack the frames there.")
        return Footage(path=Path(name), missing=lost)

    def _anywhere(self, name: Path) -> list[Path]:
        """Return the files that end in this path, by their whole name or else by their stem."""
        stems = self._stems()
        inner = name.parent.parts  # "cam01/x.avi" is another video than "cam02/x.avi"
        for key in (name.name, name.stem):
            found = [
                path
                for path in stems.get(key, [])
                if not inner or path.parent.parts[-len(inner) :] == inner
            ]
            if found:
                return found
        return []

    def _stems(self) -> dict[str, list[Path]]:
        if self._by_stem is None:
            by_stem: defaultdict[str, list[Path]] = defaultdict(list)
            for path in _media_under(self.folder):
                by_stem[path.stem].append(path)
                by_stem[path.name].append(path)
            self._by_stem = dict(by_stem)
        return self._by_stem


def _media_under(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders.sort()
        for file in sorted(files):
            if file.lower().endswith(VIDEO_SUFFIXES + PICTURE_SUFFIXES):
                yield Path(place, file)


def _frames_in(
    folder: Path, frame_rate_hz: float, start_s: float | None, end_s: float | None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Read a folder of numbered pictures as (frames (T, H, W, 3) uint8, times (T,) s)."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
    times_s = np.arange(len(files)) / frame_rate_hz
    last_s = np.inf if end_s is None else end_s
    kept = np.flatnonzero((times_s >= (start_s or 0.0)) & (times_s < last_s))
    if not len(kept):
        raise SourceError(f"{folder} has no picture in the span asked about.", "fetch it again.")
    frames = [_frame(files[idx]) for idx in kept]
    if len({frame.shape for frame in frames}) > 1:
        raise DecodeError(f"the pictures in {folder} differ in size.", "fetch it again.")
    return np.stack(frames), times_s[kept]


def _frame(path: Path) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError) as cause:
        raise DecodeError(f"{path} cannot be read: {cause}.", "fetch it again.") from cause
