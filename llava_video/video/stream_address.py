"""The address of a stream → how FFmpeg opens it, and what people may read of it.

An address may hold a password; `shown_address` is what messages, rows and pages get. The operator
names his cameras, so private addresses are the rule here; a playlist still cannot name a file.
Opens nothing.
"""

import os
import re
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from llava_video.errors import SourceError
from llava_video.video.container import FILE_FORMATS
from llava_video.video.settings import StreamSettings
from llava_video.video.spool import public_url

StreamKind = Literal["rtsp", "http", "tcp", "udp", "device", "file"]

_KINDS: dict[str, StreamKind] = {
    "rtsp": "rtsp",
    "rtsps": "rtsp",
    "http": "http",
    "https": "http",
    "tcp": "tcp",
    "udp": "udp",
    "v4l2": "device",
    "file": "file",
}
_PROTOCOLS: dict[StreamKind, str] = {
    "rtsp": "rtsp,rtp,srtp,udp,tcp,tls",
    "http": "http,https,tcp,tls,crypto,httpproxy",
    "tcp": "tcp",
    "udp": "udp",
    "device": "file",
    "file": "file",
}
_LIVE_FORMATS = f"rtsp,rtp,sdp,hls,mpjpeg,video4linux2,v4l2,webvtt,{FILE_FORMATS}"
# Frames over UDP come in bursts, of a keyframe mostly; Linux's own buffer holds 200 kB.
_UDP_OPTIONS = {"overrun_nonfatal": "1", "fifo_size": "100000", "buffer_size": "4194304"}
# FFmpeg looks at 5 s of a stream before it says what it is: too long to wait for a camera.
_LOOK_S = 1.0
_SETS = re.compile(r"[=@]|%3d|%40", re.IGNORECASE)
_HINT = "supported: rtsp://, http:// (HLS, MJPEG), tcp://, udp://, /dev/video0 and files."


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamAddress:
    """How a stream is opened.

    Attributes:
        kind: what is at the other end.
        shown: the address, without secrets.
        url: what FFmpeg opens, secrets included; no part of `repr`.
        format: FFmpeg's name of the format; None lets it look.
        options: FFmpeg's options.
    """

    kind: StreamKind
    shown: str
    url: str = field(repr=False)
    format: str | None = None
    options: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def is_live(self) -> bool:
        """Whether it comes as it comes, and may come again after it ended."""
        return self.kind != "file"


def shown_address(text: str) -> str:
    """Return an address without anything that may be secret.

    User, password, query and fragment go; of a path, the parts that set something, since some
    cameras want their password there.

    >>> shown_address("rtsp://me:secret@10.0.0.7:554/user=me&password=secret/ch1?token=1")
    'rtsp://10.0.0.7:554/.../ch1'
    >>> shown_address("me:secret@10.0.0.7/ch1")
    '...10.0.0.7/ch1'
    """
    scheme, mark, _ = text.partition("://")
    if not mark:  # a file, or an address whose beginning was forgotten
        before, at, after = text.rpartition("@")
        return f"...{after}" if at and ":" in before else text
    if scheme == "file":
        return text
    try:
        shown = public_url(text)
        parts = urllib.parse.urlsplit(shown)
    except ValueError:
        return f"{scheme}://..."
    if "@" in parts.path:  # of a password with a slash the host would be the first half
        return f"{scheme}://..."
    pieces = ("..." if _SETS.search(piece) else piece for piece in parts.path.split("/"))
    path = "/".join(pieces)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def is_live(text: str) -> bool:
    """Say whether an address is a stream's, which may go on for ever, and no file's."""
    scheme, mark, _ = text.partition("://")
    return (_KINDS.get(scheme.lower()) if mark else _kind_of_path(text)) != "file"


def stream_address(text: str | os.PathLike[str], settings: StreamSettings) -> StreamAddress:
    """Say how an address is opened.

    Args:
        text: rtsp, rtsps, http, https, tcp or udp URL, "/dev/video0", or a file.
        settings: the transport, timeouts and pace.

    Raises:
        SourceError: an address of an unknown kind, or a file that is not there.
    """
    text = os.fspath(text)
    shown = shown_address(text)
    scheme, mark, rest = text.partition("://")
    kind = _KINDS.get(scheme.lower()) if mark else _kind_of_path(text)
    if kind is None:
        raise SourceError(f"{scheme}:// addresses are no streams.", _HINT)
    if mark and kind not in ("device", "file"):
        _check_url(text, shown)
    if kind == "device":
        url = rest if mark else text
        return StreamAddress(kind=kind, shown=shown, url=url, format="video4linux2")
    if kind == "file":
        path = urllib.parse.unquote(rest) if mark else text
        return _file(path, shown, settings)
    options = {
        "protocol_whitelist": _PROTOCOLS[kind],
        "format_whitelist": _LIVE_FORMATS,
        "analyzeduration": str(round(_LOOK_S * 1e6)),
    }
    silence_us = str(round(settings.stall_timeout_s * 1e6))
    if kind == "rtsp":
        options |= {"rtsp_transport": settings.transport, "allowed_media_types": "video"}
        options |= {"timeout": silence_us}
        if settings.transport == "udp":
            options |= {"buffer_size": _UDP_OPTIONS["buffer_size"]}
    elif kind == "udp":
        options |= _UDP_OPTIONS
    else:
        options |= {"rw_timeout": silence_us}
    return StreamAddress(kind=kind, shown=shown, url=text, options=options)


def _kind_of_path(text: str) -> StreamKind:
    return "device" if text.startswith("/dev/") else "file"


def _check_url(text: str, shown: str) -> None:
    try:
        parts = urllib.parse.urlsplit(text)
        _ = parts.port
    except ValueError:  # its text quotes the address, a password among it
        hint = "write a / or @ in a password as %2F or %40."
        raise SourceError(f"{shown} is a malformed address.", hint) from None
    if not parts.netloc:
        raise SourceError(f"{shown} names no host.", _HINT)


def _file(path: str, shown: str, settings: StreamSettings) -> StreamAddress:
    found = Path(path)
    if not found.is_file():
        what = "is a folder" if found.is_dir() else "is not there"
        raise SourceError(f"{shown} {what}.", f"check the path; {_HINT}")
    options = {"protocol_whitelist": "file", "format_whitelist": FILE_FORMATS}
    if settings.pace == "follow":
        options |= {"follow": "1"}
    # Absolute: the process that reads stays in the folder it was started in.
    return StreamAddress(kind="file", shown=shown, url=f"file:{found.absolute()}", options=options)
