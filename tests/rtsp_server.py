"""The camera of `rtsp_camera.py` in a process of its own, as tests handle it.

It needs GStreamer's server for the system's Python (Debian: gir1.2-gst-rtsp-server-1.0 and
python3-gi); where that is not installed, tests that ask for it skip.
"""

import functools
import socket
import struct
import subprocess
from pathlib import Path

import pytest

PYTHON = "/usr/bin/python3"
SCRIPT = Path(__file__).with_name("rtsp_camera.py")
ASKED = (
    "import gi; gi.require_version('Gst', '1.0'); gi.require_version('GstRtspServer', '1.0'); "
    "from gi.repository import Gst, GstRtspServer; Gst.init(None); "
    "assert Gst.ElementFactory.find('rtph264pay') and Gst.ElementFactory.find('appsrc')"
)


@functools.cache
def has_server() -> bool:
    """Say whether the system's Python has GStreamer's RTSP server."""
    if not Path(PYTHON).exists():
        return False
    return not subprocess.run([PYTHON, "-c", ASKED], capture_output=True, check=False).returncode


def needs_server() -> None:
    """Skip a test where there is no server."""
    if not has_server():
        pytest.skip("needs gir1.2-gst-rtsp-server-1.0 and python3-gi for /usr/bin/python3")


class Camera:
    """The server in a process, which can be killed and started again where it would be by now."""

    def __init__(self, folder: Path, pieces: list[bytes], *secrets: str) -> None:
        self._feed = folder / "feed.bin"
        self._feed.write_bytes(b"".join(struct.pack("!I", len(p)) + p for p in pieces))
        self._secrets = secrets
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"rtsp://127.0.0.1:{self.port}/ch1"
        self.handed: list[tuple[int, int, int]] = []  # start, connection, number
        self._process: subprocess.Popen[str] | None = None
        self._starts = 0

    def start(self, first: int) -> None:
        """Serve from a number on."""
        words = [PYTHON, str(SCRIPT), str(self.port), str(self._feed), str(first), *self._secrets]
        pipe = subprocess.PIPE
        self._starts += 1
        self._process = subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def tell(self, word: str) -> None:
        """Have it do something: a word of `rtsp_camera.py`, now or when a number is due."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """End it at once, and keep what it had handed over."""
        if self._process is not None:
            self._process.kill()
            out, _ = self._process.communicate()
            pairs = (line.split() for line in out.splitlines())
            self.handed += [(self._starts, int(connection), int(idx)) for connection, idx in pairs]
            self._process = None
