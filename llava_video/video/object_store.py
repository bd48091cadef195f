"""An s3:// or gs:// address → its bytes in a temporary file, by fsspec.

Which service is asked, and as whom, is fsspec's own configuration (its files, AWS_ENDPOINT_URL, the
machine's credentials), never the address's: it names a bucket and a key and nothing else, so no
address reaches a host of its choosing. Knows no video.
"""

import os
from collections.abc import Iterator
from typing import IO, Any

from llava_video.backends import require
from llava_video.errors import LlavaVideoError, SourceError
from llava_video.video.settings import FetchSettings
from llava_video.video.spool import Deadline, check_size, public_url, spool, too_slow

# fsspec's name of the file system is the scheme; this is the package that brings it.
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}
SCHEMES = frozenset(_PACKAGES)
_CHUNK_BYTES = 2**22


def fetch_object(url: str, settings: FetchSettings) -> IO[bytes]:
    """Copy an object into a temporary file that is deleted when it is closed.

    The deadline is looked at between pieces of 4 MiB; how long one piece may take is up to the
    service's client.

    Args:
        url: s3://bucket/key or gs://bucket/key.
        settings: the limits.

    Raises:
        SourceError: not there, not allowed, too large, too slow, or the service cannot be reached.
        BackendMissingError: the package for this kind of address is missing.
    """
    name, deadline = public_url(url), Deadline(settings.timeout_s)
    scheme, _, place = url.partition("://")
    if "::" in url or "@" in place.partition("/")[0]:
        raise SourceError(
            f"{name} is more than a bucket and a key.",
            "credentials and endpoints are configured for fsspec, not written into the address.",
        )
    require(_PACKAGES[scheme.lower()])
    try:
        # Not `fsspec.open`, which would read "::" as one file system inside another.
        store = require("fsspec").filesystem(scheme.lower())
        size_bytes = store.info(url)["size"]
        check_size(size_bytes or 0, name, settings)
        if deadline.is_over:
            raise too_slow(f"{name}: no answer", settings)
        with store.open(url, "rb", cache_type="none") as remote:
            return spool(_chunks(remote), size_bytes, name, settings, deadline)
    except LlavaVideoError:
        raise
    except Exception as cause:
        raise _typed(cause, name) from cause


def _chunks(remote: Any) -> Iterator[bytes]:
    while chunk := remote.read(_CHUNK_BYTES):
        yield chunk


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
