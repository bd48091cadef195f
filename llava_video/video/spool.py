"""Bytes as they come from afar → a temporary file, within limits of size and time.

Knows no network: who brings the bytes is `fetch.py` and `object_store.py`.
"""

import math
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from typing import IO

from llava_video.errors import SourceError
from llava_video.video.settings import FetchSettings


class Deadline:
    """When a download has to be over, and how long one connection may stay silent.

    Args:
        timeout_s: from now, s.
        most_silent_s: longest wait for one answer, s.
    """

    def __init__(self, timeout_s: float, most_silent_s: float = math.inf) -> None:
        self._end_s = time.monotonic() + timeout_s
        self._most_silent_s = most_silent_s

    @property
    def is_over(self) -> bool:
        """Whether no time is left."""
        return time.monotonic() > self._end_s

    def wait_s(self) -> float:
        """Return how long to wait for the next answer, s.

        Raises:
            TimeoutError: no time is left.
        """
        left_s = self._end_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return min(self._most_silent_s, left_s)


def public_url(url: str) -> str:
    """Return a URL without user name, password, query and fragment, for people to read.

    >>> public_url("https://me:secret@example.org/a.mp4?token=1")
    'https://example.org/a.mp4'
    """
    parts = urllib.parse.urlsplit(url)
    try:
        _ = parts.port
    except ValueError:  # a password with a slash in it looks like this
        return f"{parts.scheme}://..."
    return urllib.parse.urlunsplit(
        (parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")
    )


def spool(
    chunks: Iterator[bytes],
    stated_bytes: int | None,
    name: str,
    settings: FetchSettings,
    deadline: Deadline,
) -> IO[bytes]:
    """Write what comes into a temporary file that is deleted when it is closed.

    Args:
        chunks: the bytes, in pieces.
        stated_bytes: how many there should be; None when nobody said.
        name: of their source, for messages.
        settings: the limits.
        deadline: when the last piece has to be here.

    Raises:
        SourceError: too many bytes, too few, none, or too late. OSError: no disk space.
    """
    # Returned open: closing it deletes it.
    file = tempfile.NamedTemporaryFile(prefix="llava_video_", suffix=".video")  # noqa: SIM115
    try:
        num_bytes = 0
        for chunk in chunks:
            num_bytes += len(chunk)
            check_size(num_bytes, name, settings)
            if deadline.is_over:
                raise too_slow(f"{name}: {num_bytes} bytes", settings)
            file.write(chunk)
        if stated_bytes is not None and num_bytes < stated_bytes:
            found = f"the connection ended after {num_bytes} of {stated_bytes} bytes"
            raise SourceError(f"{name}: {found}.", "try again.")
        if num_bytes == 0:
            raise SourceError(f"{name} is empty.")
        file.flush()
    except BaseException:
        file.close()
        raise
    return file


def check_size(num_bytes: int, name: str, settings: FetchSettings) -> None:
    """Refuse more bytes than are allowed.

    Raises:
        SourceError: more than `max_bytes`.
    """
    if num_bytes > settings.max_bytes:
        message = f"{name} is larger than {settings.max_bytes} bytes."
        raise SourceError(message, "download the file first, and pass its path.")


def too_slow(what: str, settings: FetchSettings) -> SourceError:
    """Return the error of a download that outlasts its time.

    Args:
        what: which, and how far it got.
        settings: the limits.
    """
    message = f"{what} after {settings.timeout_s:g} s, and not the end."
    return SourceError(message, "download the file first, and pass its path.")
