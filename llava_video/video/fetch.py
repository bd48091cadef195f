"""An http, https or data URL → its bytes, in a temporary file or in memory, within limits.

Knows no video. User names, passwords and query strings of a URL never reach a message. Every hop,
redirects included, goes to an address that `hosts.py` has judged. A proxy would resolve names
itself, behind that judgement, so the environment's proxies are used only where private addresses
are allowed.
"""

import base64
import binascii
import contextlib
import http.client
import os
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import IO, Any

from llava_video.errors import SourceError
from llava_video.video.connections import CheckedHandler
from llava_video.video.settings import FetchSettings
from llava_video.video.spool import Deadline, check_size, public_url, spool, too_slow

_CHUNK_BYTES = 2**16
# One silent connection must not use up the whole download's time.
_MAX_SILENCE_S = 30.0


def fetch(url: str, settings: FetchSettings) -> IO[bytes]:
    """Download an http or https URL into a temporary file that is deleted when it is closed.

    Args:
        url: may carry `user:password@`, which is sent to its own host only.
        settings: the limits.

    Returns:
        The open temporary file; its `name` is the path, every byte is written.

    Raises:
        SourceError: unreachable, at an address that is not public, refused, too large, too slow,
            too many redirects, no disk space.
    """
    name = public_url(url)
    deadline = Deadline(settings.timeout_s, _MAX_SILENCE_S)
    with _typed_errors(name, settings, deadline):
        response = _open(url, settings, deadline)
    with response:
        check_size(response.length or 0, name, settings)
        # read1 returns what has come; read would wait for a full chunk and so past the deadline.
        chunks = iter(lambda: response.read1(_CHUNK_BYTES), b"")
        with _typed_errors(name, settings, deadline):
            return spool(chunks, response.length, name, settings, deadline)


def decode_data_url(url: str, settings: FetchSettings) -> bytes:
    """Return the bytes of a data URL.

    Raises:
        SourceError: when it is malformed or too large.
    """
    header, comma, payload = url.partition(",")
    if not comma:
        raise SourceError("a data URL without a comma.", "data:video/mp4;base64,<base64 text>")
    # base64 takes 4/3, %-escapes 3 characters a byte
    check_size(len(payload) // 4, "the data URL", settings)
    if header.lower().endswith(";base64"):
        try:
            content = base64.b64decode(urllib.parse.unquote_to_bytes(payload), validate=True)
        except binascii.Error as cause:
            raise SourceError(f"a data URL that is no base64: {cause}.") from cause
    else:
        content = urllib.parse.unquote_to_bytes(payload)
    check_size(len(content), "the data URL", settings)
    return content


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow so many redirects, to http and https only; urllib itself would also follow ftp."""

    def __init__(self, max_redirects: int) -> None:
        self._left = max_redirects
        # urllib's own limits, of all and of one address, must not be met before ours.
        vars(self).update(max_redirections=max_redirects + 1, max_repeats=max_redirects + 1)

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
        fp.close()  # urllib would read it to its end, which may never come
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, settings: FetchSettings, deadline: Deadline) -> http.client.HTTPResponse:
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
        urllib.request.ProxyHandler(None if settings.allow_private else {}),
        CheckedHandler(settings, deadline),
        _Redirects(settings.max_redirects),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    response: http.client.HTTPResponse = opener.open(request)
    return response


def _escaped(path: str) -> str:
    # A URL copied from a browser's bar may hold spaces and letters that http cannot carry.
    return urllib.parse.quote(path, safe="/%:@!$&'()*+,;=~-._")


@contextlib.contextmanager
def _typed_errors(name: str, settings: FetchSettings, deadline: Deadline) -> Iterator[None]:
    """Turn what urllib and the disk raise into `SourceError`, without the URL's secrets."""
    try:
        yield
    except SourceError:
        raise
    except urllib.error.HTTPError as cause:
        raise _refused(cause, name) from cause
    except urllib.error.URLError as cause:
        raise _unreached(cause.reason, name, settings, deadline) from cause
    except TimeoutError as cause:
        raise _unreached(cause, name, settings, deadline) from cause
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


def _refused(cause: urllib.error.HTTPError, name: str) -> SourceError:
    code = cause.code
    cause.close()
    if 300 <= code < 400:
        return SourceError(f"{name} redirects too often or to nowhere (HTTP status {code}).")
    hint = "log in, or download the file first." if code in (401, 403) else ""
    return SourceError(f"{name} cannot be fetched: HTTP status {code}.", hint)


def _unreached(
    cause: str | BaseException, name: str, settings: FetchSettings, deadline: Deadline
) -> SourceError:
    if isinstance(cause, SourceError):  # a host that may not be asked; urllib wraps it
        return SourceError(f"{name}: {cause.message}", cause.hint)
    if deadline.is_over:
        return too_slow(f"{name}: no answer", settings)
    if isinstance(cause, TimeoutError):
        return SourceError(f"{name} stopped answering.", "try again.")
    hint = "check the address and the network, or download the file first."
    if not settings.allow_private and urllib.request.getproxies():
        hint = "the environment's proxy is used with allow_private=True only, because a proxy may "
        hint += "lead to private addresses; or download the file first."
    return SourceError(f"{name} cannot be reached: {cause}.", hint)
