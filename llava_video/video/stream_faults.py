"""What FFmpeg raises → why a connection failed or ended, in words without an address.

FFmpeg's own sentences quote the address, a password among it, so that only their kinds are used.
"""

from typing import Literal, NamedTuple

import av.error

# "refused": it wants another password. "unsupported": this program cannot read it, now or later.
# "missing", "cut", "timeout", "unreadable": it may work next time.
FaultKind = Literal["refused", "unsupported", "missing", "cut", "timeout", "unreadable"]

_REFUSED = (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError)
_UNSUPPORTED = (
    av.error.ProtocolNotFoundError,
    av.error.DemuxerNotFoundError,
    av.error.DecoderNotFoundError,
)


class Fault(NamedTuple):
    """Why a connection is over.

    Attributes:
        kind: what may be done about it.
        text: the middle of a sentence.
    """

    kind: FaultKind
    text: str


def fault_of(error: BaseException) -> Fault:
    """Say what an error of FFmpeg or of the system means.

    >>> fault_of(av.error.ConnectionRefusedError(111, "Connection refused", "rtsp://me:secret@a"))
    Fault(kind='cut', text='connection refused')
    """
    words = str(getattr(error, "strerror", None) or "").strip().rstrip(".")
    text = words[:1].lower() + words[1:] if words else type(error).__name__
    if isinstance(error, _REFUSED):
        code = 401 if isinstance(error, av.error.HTTPUnauthorizedError) else 403
        return Fault("refused", f"it wants another user name or password ({code})")
    if isinstance(error, _UNSUPPORTED):
        return Fault("unsupported", text)
    # ExitError: our own clock ended the call.
    if isinstance(error, TimeoutError | av.error.ExitError | av.error.TimeoutError):
        return Fault("timeout", "no answer in time")
    if isinstance(error, FileNotFoundError | av.error.HTTPNotFoundError):
        return Fault("missing", text)
    if isinstance(error, av.error.InvalidDataError):
        return Fault("unreadable", "what it sends is no video")
    return Fault("cut", text)
