"""FFmpeg's errors: sorted by what may be done, without the address they quote."""

import av
import av.error
import pytest

from llava_video.video.stream_faults import fault_of

SECRET = "rtsp://me:SECRET@host/a"


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (av.error.HTTPUnauthorizedError(1, "Server returned 401", SECRET), "refused", "401"),
        (av.error.HTTPForbiddenError(1, "Server returned 403", SECRET), "refused", "403"),
        (av.error.HTTPNotFoundError(1, "Server returned 404 Not Found", SECRET), "missing", "404"),
        (av.error.ExitError(1, "Immediate exit requested", SECRET), "timeout", "no answer"),
        (av.error.TimeoutError(110, "Connection timed out", SECRET), "timeout", "no answer"),
        (av.error.InvalidDataError(1, "Invalid data", SECRET), "unreadable", "no video"),
        (
            av.error.ProtocolNotFoundError(1, "Protocol not found", SECRET),
            "unsupported",
            "protocol",
        ),
        (ConnectionResetError(104, "Connection reset by peer", SECRET), "cut", "connection reset"),
        (OSError(5, "Input/output error", SECRET), "cut", "input/output error"),
        (ValueError(SECRET), "cut", "ValueError"),
    ],
)
def test_each_kind(error: BaseException, kind: str, text: str) -> None:
    fault = fault_of(error)
    assert fault.kind == kind
    assert text in fault.text
    assert "SECRET" not in fault.text


def test_what_this_ffmpeg_really_raises() -> None:
    with pytest.raises(av.error.FFmpegError) as caught:
        av.open("rtsp://me:SECRET@127.0.0.1:1/a", timeout=2.0)
    assert "SECRET" in str(caught.value)  # which is why its words are not used
    assert fault_of(caught.value) == ("cut", "connection refused")
