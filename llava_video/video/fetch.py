"""An http, https or data URL → its bytes, in a temporary file or in memory, within limits.

Knows no video. User names, passwords and query strings of a URL never reach a message. Which hosts
may be asked is not decided here.
"""

import base64
import binascii
import contextlib
import http.client
import os
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import IO, Any

from llava_video.errors import SourceError
from llava_video.video.settings import FetchSettings

_CHUNK_BYTES = 2**16
# One silent connection must not use up the whole download's time.
_MAX_SILENCE_S = 30.0


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


def fetch(url: str, settings: FetchSettings) -> IO[bytes]:
    """Download an http or https URL into a temporary file that is deleted when it is closed.

    Args:
        url: may carry `user:password@`, which is sent to its own host only.
        settings: the limits.

    Returns:
        The open temporary file; its `name` is the path, every byte is written.

    Raises:
        SourceError: unreachable, refused, too large, too slow, too many redirects, no disk space.
    """
    name = public_url(url)
    deadline_s = time.monotonic() + settings.timeout_s
    with _typed_errors(name):
        response = _open(url, settings)
    with response:
        _check_length(response, name, settings.max_bytes)
        # Returned open: closing it deletes it.
        file = tempfile.NamedTemporaryFile(prefix="llava_video_", suffix=".video")  # noqa: SIM115
        try:
            with _typed_errors(name):
                _copy(response, file, name, settings, deadline_s)
        except BaseException:
            file.close()
            raise
    return file


def decode_data_url(url: str, settings: FetchSettings) -> bytes:
    """Return the bytes of a data URL.

    Raises:
        SourceError: when it is malformed or too large.
    """
    header, comma, payload = url.partition(",")
    if not comma:
        raise SourceError("a data URL without a comma.", "data:video/mp4;base64,<base64 text>")
    if len(payload) > settings.max_bytes * 4:  # base64 takes 4/3, %-escapes 3 characters a byte
        raise _too_large("the data URL", settings.max_bytes)
    if header.lower().endswith(";base64"):
        try:
            content = base64.b64decode(urllib.parse.unquote_to_bytes(payload), validate=True)
        except binascii.Error as cause:
            raise SourceError(f"a data URL that is no base64: {cause}.") from cause
    else:
        content = urllib.parse.unquote_to_bytes(payload)
    if len(content) > settings.max_bytes:
        raise _too_large("the data URL", settings.max_bytes)
    return content


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow so many redirects, to http and https only; urllib itself would also follow ftp."""

    def __init__(self, max_redirects: int) -> None:
        self._left = max_redirects

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Return the next request; raise on one more than allowed or another scheme."""
        scheme = urllib.parse.urlsplit(newurl).scheme.lower()
        if scheme not in ("http", "https"):
            raise SourceError(f"{public_url(req.full_url)} redirects to a {scheme} address.")
        self._left -= 1
        if self._left < 0:
            raise SourceError(f"{public_url(req.full_url)} redirects once more than max_redirects.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, settings: FetchSettings) -> http.client.HTTPResponse:
    parts = urllib.parse.urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    bare = urllib.parse.urlunsplit((parts.scheme, host, _escaped(parts.path), parts.query, ""))
    request = urllib.request.Request(
        bare, headers={"User-Agent": "llava_video", "Accept-Encoding": "identity"}
    )
    if at:
        token = base64.b64encode(urllib.parse.unquote_to_bytes(user)).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        _Redirects(settings.max_redirects),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    response: http.client.HTTPResponse = opener.open(
        request, timeout=min(_MAX_SILENCE_S, settings.timeout_s)
    )
    return response


def _escaped(path: str) -> str:
    # A URL copied from a browser's bar may hold spaces and letters that http cannot carry.
    return urllib.parse.quote(path, safe="/%:@!$&'()*+,;=~-._")


def _check_length(response: http.client.HTTPResponse, name: str, max_bytes: int) -> None:
    if (response.length or 0) > max_bytes:
        raise _too_large(name, max_bytes)


def _copy(
    response: http.client.HTTPResponse,
    file: Any,
    name: str,
    settings: FetchSettings,
    deadline_s: float,
) -> None:
    stated_bytes, num_bytes = response.length, 0
    # read1 returns what has come; read would wait for a full chunk and so past the deadline.
    while chunk := response.read1(_CHUNK_BYTES):
        num_bytes += len(chunk)
        if num_bytes > settings.max_bytes:
            raise _too_large(name, settings.max_bytes)
        if time.monotonic() > deadline_s:
            raise SourceError(
                f"{name}: {num_bytes} bytes after {settings.timeout_s} s, and not the end.",
                "download the file first, and pass its path.",
            )
        file.write(chunk)
    if stated_bytes is not None and num_bytes < stated_bytes:
        raise SourceError(
            f"{name}: the connection ended after {num_bytes} of {stated_bytes} bytes.", "try again."
        )
    if num_bytes == 0:
        raise SourceError(f"{name} is empty.")
    file.flush()


@contextlib.contextmanager
def _typed_errors(name: str) -> Iterator[None]:
    """Turn what urllib and the disk raise into `SourceError`, without the URL's secrets."""
    try:
        yield
    except SourceError:
        raise
    except urllib.error.HTTPError as cause:
        code = cause.code
        cause.close()
        if 300 <= code < 400:
            message = f"{name} redirects too often or to nowhere (HTTP status {code})."
            raise SourceError(message) from cause
        hint = "log in, or download the file first." if code in (401, 403) else ""
        raise SourceError(f"{name} cannot be fetched: HTTP status {code}.", hint) from cause
    except urllib.error.URLError as cause:
        hint = "check the address and the network, or download the file first."
        raise SourceError(f"{name} cannot be reached: {cause.reason}.", hint) from cause
    except TimeoutError as cause:
        raise SourceError(f"{name} stopped answering.", "try again.") from cause
    except (http.client.InvalidURL, ValueError):
        # Their texts quote parts of the address, a password among them.
        raise SourceError(f"{name} is not a valid address.") from None
    except http.client.HTTPException as cause:
        message = f"{name} answered no valid HTTP ({type(cause).__name__})."
        raise SourceError(message) from cause
    except OSError as cause:
        reason = os.strerror(cause.errno) if cause.errno else cause
        raise SourceError(
            f"{name} cannot be stored or read: {reason}.",
            f"free space in {tempfile.gettempdir()}, or set TMPDIR.",
        ) from cause


def _too_large(name: str, max_bytes: int) -> SourceError:
    message = f"{name} is larger than {max_bytes} bytes."
    return SourceError(message, "download the file first, and pass its path.")
