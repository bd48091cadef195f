"""Cameras made for tests: numbered pictures, encoded once, sent as the test says.

Every picture shows its number as bars, so a test reads from the pixels which pictures came. The
servers run in threads of the test, on the loopback address.
"""

import contextlib
import functools
import http.server
import io
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from llava_video.video.stream import Stream
from llava_video.video.stream_events import Mark, StreamFrame
from llava_video.world.bars import paint_index, read_index

RATE_HZ = 25
_X264 = {"preset": "ultrafast", "tune": "zerolatency", "g": "10", "x264-params": "repeat-headers=1"}


def painted(idxs: Iterable[int], height_px: int = 48, width_px: int = 64) -> Iterator[Any]:
    """Yield the pictures of some numbers."""
    for idx in idxs:
        yield paint_index(idx, height_px, width_px)


def encode(
    pictures: Iterable[npt.NDArray[np.uint8]],
    *,
    container: str = "mpegts",
    first_tick: int = 0,
    rate_hz: int = RATE_HZ,
) -> list[bytes]:
    """Return the bytes of each picture in a stream, in order; each can be decoded when it is there.

    Args:
        pictures: (H, W, 3) uint8, all of one size.
        container: FFmpeg's name of it.
        first_tick: the first picture's time, in pictures.
        rate_hz: pictures a second.
    """
    buffer, pieces, track = io.BytesIO(), [], None
    options = {"flush_packets": "1", "mpegts_flags": "resend_headers"}
    with av.open(buffer, "w", format=container, options=options) as file:
        for tick, picture in enumerate(pictures, first_tick):
            if track is None:
                track = file.add_stream("libx264", rate=rate_hz, options=_X264)
                track.height, track.width = picture.shape[:2]
                track.pix_fmt = "yuv420p"
                track.codec_context.thread_count = 1
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = tick, Fraction(1, rate_hz)
            file.mux(track.encode(frame))
            pieces.append(buffer.getvalue())
            buffer.seek(0)
            buffer.truncate()
    pieces[-1] += buffer.getvalue()
    return pieces


@functools.cache
def numbered(
    first: int,
    end: int,
    height_px: int = 48,
    width_px: int = 64,
    first_tick: int | None = None,
    rate_hz: int = RATE_HZ,
) -> tuple[bytes, ...]:
    """Return the bytes of the pictures first..end-1, whose times follow their numbers."""
    tick = first if first_tick is None else first_tick
    pictures = painted(range(first, end), height_px, width_px)
    return tuple(encode(pictures, first_tick=tick, rate_hz=rate_hz))


def joined(*pieces: bytes) -> list[bytes]:
    """Return pieces of MPEG-TS as one multiplexer would have written them, counts going on.

    Pieces that are no MPEG-TS stay as they are.
    """
    counts: dict[int, int] = {}
    found = []
    for piece in pieces:
        if len(piece) % 188 or piece[:1] != b"\x47":
            found.append(piece)
            continue
        packets = bytearray(piece)
        for start in range(0, len(packets), 188):
            track = (packets[start + 1] & 0x1F) << 8 | packets[start + 2]
            if packets[start + 3] & 0x10:  # it carries something
                counts[track] = (counts.get(track, -1) + 1) % 16
            packets[start + 3] = packets[start + 3] & 0xF0 | counts.get(track, 0)
        found.append(bytes(packets))
    return found


Visit = Callable[[socket.socket], None]


class TcpCamera:
    """A server whose n-th visitor gets what the n-th visit sends; the last one is repeated.

    Args:
        visits: each writes to its socket, which is closed after it returns.
        port: 0 chooses one.
    """

    def __init__(self, visits: Sequence[Visit], port: int = 0) -> None:
        self._visits = visits
        self.num_visitors = 0
        self._stopped = threading.Event()
        self._server = socket.create_server(("127.0.0.1", port))
        self._server.settimeout(0.05)
        self.port = self._server.getsockname()[1]
        self.url = f"tcp://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stopped.is_set():
            try:
                line, _ = self._server.accept()
            except TimeoutError:
                continue
            visit = self._visits[min(self.num_visitors, len(self._visits) - 1)]
            self.num_visitors += 1
            with line, contextlib.suppress(OSError):
                visit(line)
                line.shutdown(socket.SHUT_WR)

    def hold(self, line: socket.socket) -> None:
        """Send nothing more, and keep the connection until the camera is closed."""
        del line
        self._stopped.wait(30)

    def close(self) -> None:
        """Close the server."""
        self._stopped.set()
        self._thread.join(5)
        self._server.close()

    def __enter__(self) -> "TcpCamera":
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def sending(*pieces: bytes, pause_s: float = 0.0) -> Visit:
    """Return a visit that sends some pieces."""

    def visit(line: socket.socket) -> None:
        for piece in pieces:
            line.sendall(piece)
            if pause_s:
                time.sleep(pause_s)

    return visit


class _Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words: Any) -> None:
        """Say nothing."""


class FileServer:
    """A folder over HTTP on the loopback address."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        handler = functools.partial(_Files, directory=str(folder))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Close the server."""
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()

    def __enter__(self) -> "FileServer":
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def _ten(number: int) -> bytes:
    return b"".join(numbered(number * 10, number * 10 + 10))


def write_playlist(
    folder: Path,
    first: int,
    last: int,
    *,
    is_over: bool,
    segment: Callable[[int], bytes] = _ten,
) -> None:
    """Write a playlist of segments of ten pictures, numbers first..last."""
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1"]
    lines.append(f"#EXT-X-MEDIA-SEQUENCE:{first}")
    for number in range(first, last + 1):
        name = f"s{number}.ts"
        (folder / name).write_bytes(segment(number))
        lines += ["#EXTINF:0.4,", name]
    whole = folder / "a.m3u8.new"  # whoever reads it meanwhile has the one before
    whole.write_text("\n".join([*lines, *["#EXT-X-ENDLIST"] * is_over]))
    whole.replace(folder / "a.m3u8")


def take(
    stream: Stream,
    *,
    frames: int | None = None,
    until: str | None = None,
    timeout_s: float = 60.0,
) -> tuple[list[StreamFrame], list[Mark]]:
    """Take events until so many frames, or a mark, have come, or the stream is over.

    Raises:
        AssertionError: not in time.
    """
    found: tuple[list[StreamFrame], list[Mark]] = ([], [])
    until_s = time.monotonic() + timeout_s
    while not stream.is_over:
        event = stream.next(0.1)
        if isinstance(event, StreamFrame):
            found[0].append(event)
        elif isinstance(event, Mark):
            found[1].append(event)
            if event.kind == until:
                return found
        if frames is not None and len(found[0]) >= frames:
            return found
        assert time.monotonic() < until_s, (kinds(found[1]), len(found[0]), stream.status())
    return found


def numbers(frames: Iterable[StreamFrame]) -> list[int]:
    """Return the numbers that pictures show."""
    return [read_index(frame.picture) for frame in frames]


def kinds(marks: Iterable[Mark]) -> list[str]:
    """Return what marks tell of."""
    return [mark.kind for mark in marks]


def is_gone(pid: int) -> bool:
    """Say whether a process has ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in "ZX"
