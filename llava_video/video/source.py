"""An address (path, URL, bytes, file object, frames with times) → a `Source`: bytes at hand.

A URL or a file object is copied to a temporary file first, so that every reader may pass over it as
often as it likes. Opens no container and decodes nothing.
"""

import hashlib
import io
import os
import shutil
import stat
import tempfile
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

from llava_video.errors import SourceError
from llava_video.video.fetch import decode_data_url, fetch
from llava_video.video.object_store import SCHEMES, fetch_object
from llava_video.video.settings import FetchSettings
from llava_video.video.spool import public_url

_PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
_FRAMES_HINT = "pass (frames, times_s): (T, H, W, 3) uint8 RGB and T ascending seconds."
_DEFAULT_FETCH = FetchSettings()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """Where encoded bytes, or decoded frames, come from.

    Attributes:
        kind: what was handed over. A URL is a "path" once it has been fetched, or "bytes".
        name: for people; holds no password or query string.
        path: the file to read, for "path" and "file".
        content: the bytes, for "bytes".
        frames: (T, H, W, 3) uint8, for "frames".
        times_s: (T,) float64, for "frames".
    """

    kind: Literal["path", "bytes", "file", "frames"]
    name: str
    path: Path | None = None
    content: bytes | None = field(default=None, repr=False)
    frames: npt.NDArray[np.uint8] | None = field(default=None, repr=False)
    times_s: npt.NDArray[np.float64] | None = field(default=None, repr=False)
    # Held only so that the temporary file lives as long as the source.
    spool: IO[bytes] | None = field(default=None, repr=False)

    def identity(self) -> str:
        """Return the sha256 of the content as hex: equal bytes, equal identity.

        Raises:
            SourceError: when the file has gone.
        """
        digest = hashlib.sha256()
        if self.frames is not None and self.times_s is not None:
            digest.update(repr(self.frames.shape).encode())
            digest.update(self.times_s.tobytes())
            for frame in self.frames:
                digest.update(np.ascontiguousarray(frame).data)
        elif self.content is not None:
            digest.update(self.content)
        else:
            try:
                with Path(self.path or "").open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256")
            except OSError as cause:
                raise SourceError(f"{self.name} cannot be read: {cause.strerror}.") from cause
        return digest.hexdigest()

    def reader(self) -> str | io.BytesIO:
        """Return what a decoder opens: a path, or a new in-memory file."""
        return io.BytesIO(self.content) if self.content is not None else str(self.path)


def open_source(address: Any, *, fetch_settings: FetchSettings = _DEFAULT_FETCH) -> Source:
    """Find the bytes behind an address.

    Args:
        address: path; http, https, s3, gs, file or data URL; bytes; binary file object (read from
            where it stands to its end); (frames (T, H, W, 3) uint8, times_s) tuple; or a `Source`,
            returned as it is.
        fetch_settings: whom a download may ask, and its limits.

    Raises:
        SourceError: missing, a folder, empty, unreachable, too large, or of an unknown kind.
        BackendMissingError: an s3 or gs address without the package that reads it.
    """
    if isinstance(address, Source):
        return address
    if isinstance(address, str):
        return _from_text(address, fetch_settings)
    if isinstance(address, os.PathLike):
        return _from_path(os.fspath(address))
    if isinstance(address, bytes | bytearray | memoryview):
        return _from_bytes(bytes(address))
    if isinstance(address, tuple) and len(address) == 2:
        return _from_frames(*address)
    if hasattr(address, "read"):
        return _from_file(address)
    what = type(address).__name__
    if isinstance(address, np.ndarray):
        raise SourceError("an array of frames without their times.", _FRAMES_HINT)
    raise SourceError(
        f"a {what} is no video.", f"pass a path, URL, bytes or file; or {_FRAMES_HINT}"
    )


def _from_text(text: str, fetch_settings: FetchSettings) -> Source:
    if text[:5].lower() == "data:":
        content = decode_data_url(text, fetch_settings)
        return _from_bytes(content, f"data URL ({len(content)} bytes)")
    if "://" not in text:
        return _from_path(text)
    try:
        scheme = urllib.parse.urlsplit(text).scheme.lower()
    except ValueError:  # its text quotes the address, a password among it
        raise SourceError("a malformed URL.") from None
    if scheme == "file":
        return _from_path(urllib.request.url2pathname(urllib.parse.urlsplit(text).path))
    if scheme not in ("http", "https", *SCHEMES):
        raise SourceError(
            f"{scheme}:// addresses are not read.",
            "supported: a path, http://, https://, s3://, gs://, file:// and data:.",
        )
    spool = (fetch_object if scheme in SCHEMES else fetch)(text, fetch_settings)
    return Source(kind="path", name=public_url(text), path=Path(spool.name), spool=spool)


def _from_path(text: str | bytes) -> Source:
    name = os.fsdecode(text)
    path = Path(name)
    try:
        status = path.stat()
    except (OSError, ValueError) as cause:  # ValueError: a null character
        reason = getattr(cause, "strerror", None) or str(cause)
        raise SourceError(f"{name!r} cannot be opened: {reason}.", "check the path.") from cause
    if stat.S_ISDIR(status.st_mode):
        raise SourceError(f"{name!r} is a folder.", _folder_hint(path))
    if not stat.S_ISREG(status.st_mode):
        raise SourceError(f"{name!r} is not a regular file.", "copy the video to a file first.")
    if status.st_size == 0:
        raise SourceError(f"{name!r} is empty (0 bytes).", "check how it was copied or recorded.")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{name!r} may not be read by this user.", "check its permissions.")
    return Source(kind="path", name=name, path=path)


def _folder_hint(folder: Path) -> str:
    try:
        pictures = any(entry.suffix.lower() in _PICTURE_SUFFIXES for entry in folder.iterdir())
    except OSError:
        pictures = False
    if pictures:
        return f"pictures have no times: read them and {_FRAMES_HINT}"
    return "pass the video files in it, one by one."


def _from_bytes(content: bytes, name: str = "") -> Source:
    if not content:
        raise SourceError("0 bytes are no video.")
    return Source(kind="bytes", name=name or f"{len(content)} bytes", content=content)


def _from_file(file: Any) -> Source:
    label = getattr(file, "name", None)
    name = Path(label).name if isinstance(label, str) and label else "file object"
    # Kept open by the source: closing it deletes it.
    spool = tempfile.NamedTemporaryFile(prefix="llava_video_", suffix=".video")  # noqa: SIM115
    try:
        shutil.copyfileobj(file, spool, 2**20)
        spool.flush()
        if spool.tell() == 0:
            raise SourceError(f"{name} has no bytes left to read.", "seek it to its start first.")
    except SourceError:
        spool.close()
        raise
    except (OSError, ValueError, TypeError) as cause:  # closed, or opened as text
        spool.close()
        hint = 'open it with mode "rb".'
        raise SourceError(f"{name} cannot be read as bytes: {cause}.", hint) from cause
    path = Path(spool.name)
    return Source(kind="file", name=name, path=path, spool=spool)


def _from_frames(frames: Any, times_s: Any) -> Source:
    try:
        pixels, times = np.asarray(frames), np.asarray(times_s, dtype=np.float64)
    except (TypeError, ValueError) as cause:
        raise SourceError(f"frames that make no array: {cause}.", _FRAMES_HINT) from cause
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3 or 0 in pixels.shape:
        found = f"an array of shape {pixels.shape}, {pixels.dtype}"
        raise SourceError(f"{found} is not (T, H, W, 3) uint8.", _FRAMES_HINT)
    if times.shape != pixels.shape[:1]:
        found = f"{len(pixels)} frames, times of shape {times.shape}"
        raise SourceError(f"{found}.", _FRAMES_HINT)
    if not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise SourceError("the frames' times are not finite and strictly ascending.", _FRAMES_HINT)
    num_frames, height_px, width_px, _ = pixels.shape
    name = f"{num_frames} frames of {width_px}x{height_px}"
    return Source(kind="frames", name=name, frames=pixels, times_s=times)
