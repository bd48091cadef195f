"""An s3:// or gs:// address → its bytes in a temporary file, by fsspec.

Which service is asked, and as whom, is fsspec's own configuration (its files, AWS_ENDPOINT_URL, the
machine's credentials), never the address's: it names a bucket and a key and nothing else, so no
address reaches a host of its choosing. Knows no video.
"""

import os
import queue
import threading
from collections.abc import Callable, Iterator
from typing import IO, Any, TypeVar

from llava_video.backends import require
from llava_video.errors import LlavaVideoError, SourceError
from llava_video.video.settings import FetchSettings
from llava_video.video.spool import Deadline, check_size, public_url, spool, too_slow

# fsspec's name of the file system is the scheme; this is the package that brings it.
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}
SCHEMES = frozenset(_PACKAGES)
_CHUNK_BYTES = 2**22

T = TypeVar("T")


def fetch_object(url: str, settings: FetchSettings) -> IO[bytes]:
    """Copy an object into a temporary file that is deleted when it is closed.

    Args:
        url: s3://bucket/key or gs://bucket/key.
        settings: the limits.

    Raises:
        SourceError: not there, not allowed, too large, too slow, or the service cannot be reached.
        BackendMissingError: the package for this kind of address is missing.
    """
    name, deadline = public_url(url), Deadline(settings.timeout_s)
    scheme, _, place = url.partition("://")
    bucket, _, key = place.partition("/")
    if "::" in url or "@" in bucket or not (bucket and key):
        raise SourceError(
            f"{name} is not one bucket and one key.",
            f"write {scheme}://bucket/key; credentials and endpoints are configured for fsspec.",
        )
    require(_PACKAGES[scheme.lower()])
    try:
        # Not `fsspec.open`, which would read "::" as one file system inside another.
        store = require("fsspec").filesystem(scheme.lower())
        found = _in_time(lambda: store.info(url), deadline)
        if found["type"] == "directory":
            raise SourceError(f"{name} is a folder.", "pass the videos in it, one by one.")
        check_size(found["size"] or 0, name, settings)
        remote = _in_time(lambda: store.open(url, "rb", cache_type="none"), deadline)
        with remote:
            return spool(_chunks(remote, deadline), found["size"], name, settings, deadline)
    except LlavaVideoError:
        raise
    except _Late:
        raise too_slow(f"{name}: no answer", settings) from None
    except Exception as cause:
        raise _typed(cause, name) from cause


def object_version(url: str, settings: FetchSettings) -> tuple[int, str] | None:
    """Return the length of an object, in bytes, and the service's own mark of this version of it.

    Args:
        url: s3://bucket/key or gs://bucket/key.
        settings: the time limit.

    Returns:
        None where the service gives no mark.

    Raises:
        SourceError: not there, not allowed, too slow, or the service cannot be reached.
        BackendMissingError: the package for this kind of address is missing.
    """
    name, deadline = public_url(url), Deadline(settings.timeout_s)
    store = _store_of(url, name)
    found = _asked(lambda: store.info(url), name, settings, deadline)
    mark = next((found[key] for key in ("ETag", "etag", "generation") if found.get(key)), None)
    return None if mark is None else (int(found.get("size") or 0), str(mark))


def list_objects(url: str, settings: FetchSettings) -> list[str]:
    """Return the addresses of all objects under a prefix, or that a pattern matches, by name.

    Args:
        url: s3://bucket/folder, or with *, ? or [ in the key; gs:// as well.
        settings: the time limit.

    Raises:
        SourceError: not allowed, too slow, or the service cannot be reached.
        BackendMissingError: the package for this kind of address is missing.
    """
    name, deadline = public_url(url), Deadline(settings.timeout_s)
    scheme, _, place = url.partition("://")
    store = _store_of(url, name)
    look = store.glob if any(sign in place for sign in "*?[") else store.find
    found = _asked(lambda: look(url), name, settings, deadline)
    return sorted(f"{scheme}://{key.partition('://')[2] or key.lstrip('/')}" for key in found)


def _store_of(url: str, name: str) -> Any:
    """Return the file system of an address that names one bucket, and no host or file beside it."""
    scheme, _, place = url.partition("://")
    if "::" in url or "@" in place.partition("/")[0] or not place.strip("/"):
        raise SourceError(
            f"{name} is not one bucket.",
            f"write {scheme}://bucket/folder; credentials and endpoints are configured for fsspec.",
        )
    require(_PACKAGES[scheme.lower()])
    return require("fsspec").filesystem(scheme.lower())


def _asked(call: Callable[[], T], name: str, settings: FetchSettings, deadline: Deadline) -> T:
    """Ask a service something, within the time there is."""
    try:
        return _in_time(call, deadline)
    except _Late:
        raise too_slow(f"{name}: no answer", settings) from None
    except Exception as cause:
        raise _typed(cause, name) from cause


class _Late(Exception):
    """The deadline passed while the service's client was at work."""


def _chunks(remote: Any, deadline: Deadline) -> Iterator[bytes]:
    while chunk := _in_time(lambda: remote.read(_CHUNK_BYTES), deadline):
        yield chunk


def _in_time(call: Callable[[], T], deadline: Deadline) -> T:
    """Call, and leave a call that outlasts the deadline to itself.

    The clients have time limits and retries of their own, minutes altogether.
    """
    outcome: queue.SimpleQueue[tuple[T | None, Exception | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put((call(), None))
        except Exception as error:  # noqa: BLE001 - raised again by whoever waits
            outcome.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        value, error = outcome.get(timeout=deadline.wait_s())
    except (queue.Empty, TimeoutError):
        raise _Late from None
    if error is not None:
        raise error
    return value  # type: ignore[return-value]  # None only beside an error, or where T is None


def _typed(cause: Exception, name: str) -> SourceError:
    """Say what went wrong without the client's words, which may quote signed addresses."""
    if isinstance(cause, FileNotFoundError):
        return SourceError(f"{name} is not there.", "check the bucket's and the object's name.")
    if isinstance(cause, PermissionError):
        hint = "check the credentials of this machine, or download the file first."
        return SourceError(f"{name} may not be read.", hint)
    found = type(cause).__name__
    if isinstance(cause, OSError) and cause.errno:
        found = os.strerror(cause.errno)
    return SourceError(
        f"{name} cannot be fetched: {found}.",
        "check the credentials and the network, or download the file first.",
    )
