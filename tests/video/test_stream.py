"""Streams end to end: what was sent is what comes, less what is counted, whatever befalls them."""

import http.server
import logging
import os
import socket
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
from stream_servers import (
    FileServer,
    TcpCamera,
    encode,
    is_gone,
    joined,
    kinds,
    numbered,
    numbers,
    painted,
    sending,
    take,
    write_playlist,
)

from llava_video.errors import AccessRefusedError, BackendMissingError, SourceError
from llava_video.video.settings import StreamSettings
from llava_video.video.stream import Stream, StreamGroup, open_stream
from llava_video.video.stream_events import StreamFrame
from llava_video.video.stream_process import StreamProcess
from llava_video.world.bars import paint_index

QUICK: dict[str, Any] = {
    "fps": None,
    "first_wait_s": 0.05,
    "most_wait_s": 0.1,
    "stall_timeout_s": 1.0,
    "open_timeout_s": 5.0,
    "queue_frames": 500,
}
LIVE = StreamSettings(**QUICK)


def assert_whole(stream: Stream, frames: list[Any]) -> None:
    """Check what holds of every stream."""
    counts = stream.status().counts
    assert counts.taken == counts.delivered + counts.dropped + stream.status().queue_depth
    assert counts.decoded == counts.taken
    assert all(a.pts_s < b.pts_s and a.idx < b.idx for a, b in pairwise(frames))
    assert all(a.wall_s <= b.wall_s for a, b in pairwise(frames))


def test_cut_noise_freeze_and_another_size() -> None:
    noise = np.random.default_rng(0).bytes(20_000)
    frozen = tuple(encode([paint_index(70, 48, 64)] * 30, first_tick=70))
    visits = [
        sending(*numbered(0, 40)),  # and cut
        sending(*joined(*numbered(40, 60), *numbered(60, 70, 64, 96), *frozen)),
        sending(noise),
    ]
    with TcpCamera(visits) as camera:
        camera._visits = [*visits, camera.hold]
        settings = StreamSettings(**{**QUICK, "frozen_s": 0.8})
        with open_stream(camera.url, settings) as stream:
            frames, marks = take(stream, frames=100)
            rest, later = take(stream, until="unreachable")
            pid = stream._reader._process.pid
            assert_whole(stream, frames)
    # TcpCamera never repeats a number, so this is all of them, in order.
    assert numbers(frames + rest) == [*range(70), *[70] * 30]
    assert kinds(marks + later) == [
        "opened",
        "lost",
        "reconnected",
        "resized",
        "resized",
        "frozen",
        "lost",
        "unreachable",
    ]
    assert "no video" in later[-1].text
    assert is_gone(pid)


def test_a_slow_reader_loses_the_oldest_and_each_is_counted() -> None:
    settings = StreamSettings(**{**QUICK, "queue_frames": 5})
    with TcpCamera([sending(*numbered(0, 100))]) as camera:
        camera._visits = [*camera._visits, camera.hold]
        with Stream(camera.url, settings) as stream:
            first = stream.next(30)  # and then he sleeps
            assert first is not None
            assert first.kind == "opened"
            while stream.status().state != "waiting":
                time.sleep(0.01)
            assert stream.status().queue_depth == 5
            frames, marks = take(stream, frames=5)
            assert numbers(frames) == [95, 96, 97, 98, 99]
            assert [frame.idx for frame in frames] == [95, 96, 97, 98, 99]
            assert (marks[0].kind, marks[0].num_frames) == ("dropped", 95)
            assert stream.status().counts.dropped == 95
            assert_whole(stream, frames)


@pytest.mark.slow
def test_pictures_that_come_ten_times_too_late_come_all_the_same() -> None:
    # 25 a second by their own clock, 2.5 a second by ours.
    def visit(line: socket.socket) -> None:
        sending(*numbered(0, 40)[:32])(line)
        sending(*numbered(0, 40)[32:], pause_s=0.4)(line)

    with TcpCamera([visit]) as camera:
        settings = StreamSettings(**{**QUICK, "late_s": 1.0})
        with Stream(camera.url, settings) as stream:
            frames, marks = take(stream, until="lost")
            lag_s = stream.status().lag_s
    assert numbers(frames) == list(range(40))
    assert frames[-1].pts_s == pytest.approx(1.56, abs=0.01)  # its own clock
    assert frames[-1].wall_s - frames[0].wall_s > 1.0  # ours
    assert lag_s > 1.0
    assert kinds(marks) == ["opened", "late", "lost"]


def test_a_stall_is_noticed_and_nothing_hangs() -> None:
    with TcpCamera([]) as camera:
        camera._visits = [lambda line: (sending(*numbered(0, 20))(line), camera.hold(line))]
        begun_s = time.monotonic()
        stream = Stream(camera.url, LIVE)
        frames, marks = take(stream, until="lost")
        assert time.monotonic() - begun_s < 10
        assert numbers(frames) == list(range(20))
        assert kinds(marks) == ["opened", "stalled", "lost"]
        begun_s = time.monotonic()
        stream.close()
        assert time.monotonic() - begun_s < 3
        assert stream.is_over


@pytest.mark.slow
def test_a_process_that_hangs_is_ended_again_and_again_and_never_more_than_one_runs() -> None:
    settings = StreamSettings(**{**QUICK, "open_timeout_s": 0.2})
    process = StreamProcess("stream_stubs")
    pids = set()
    with Stream("tcp://mute:1", settings, process=process) as stream:
        until_s = time.monotonic() + 60
        while stream.status().counts.killed < 2:
            assert time.monotonic() < until_s
            if process.pid is not None:
                pids.add(process.pid)
            running = {pid for pid in pids if not is_gone(pid)}
            assert len(running) <= 1
            time.sleep(0.05)
        begun_s = time.monotonic()
    assert time.monotonic() - begun_s < 3
    assert len(pids) >= 2
    assert all(is_gone(pid) for pid in pids)


@pytest.mark.slow
def test_mpegts_over_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    stopped = threading.Event()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
            for piece in numbered(0, 200):
                for start in range(0, len(piece), 7 * 188):
                    line.sendto(piece[start : start + 7 * 188], ("127.0.0.1", port))
                if stopped.wait(0.02):
                    return

    thread = threading.Thread(target=send)
    thread.start()
    with Stream(f"udp://127.0.0.1:{port}", LIVE) as stream:
        frames, _ = take(stream, frames=40)
        stopped.set()
        thread.join()
        rest, marks = take(stream, until="stalled")
    found = numbers(frames + rest)
    assert found == list(range(found[0], found[0] + len(found)))
    assert found[0] % 10 == 0  # it looks from the first keyframe on
    assert kinds(marks) == ["stalled"]


@pytest.mark.slow
def test_hls_over_an_outage_gives_nothing_twice(tmp_path: Path) -> None:
    write_playlist(tmp_path, 0, 5, is_over=False)
    server = FileServer(tmp_path)
    settings = StreamSettings(**{**QUICK, "stall_timeout_s": 1.5})
    with Stream(f"{server.url}/a.m3u8", settings) as stream:
        frames, marks = take(stream, frames=28)  # the last ones' end is seen with the next one
        assert kinds(marks) == ["opened"]
        found = numbers(frames)
        server.close()
        rest, marks = take(stream, until="unreachable")
        assert numbers(rest) == [58, 59]
        assert kinds(marks)[-2:] == ["lost", "unreachable"]
        write_playlist(tmp_path, 3, 8, is_over=False)
        with FileServer(tmp_path, server.port):
            more, marks = take(stream, frames=28)
        assert kinds(marks) == ["reconnected"]
    # A playlist that goes on is read from its third last piece.
    assert [*found, *numbers(rest), *numbers(more)] == list(range(30, 88))


@pytest.mark.slow
def test_a_playlist_that_stands_still_is_a_stall_and_its_pictures_come_once(tmp_path: Path) -> None:
    write_playlist(tmp_path, 0, 5, is_over=False)
    settings = StreamSettings(**{**QUICK, "stall_timeout_s": 2.5})  # the process's grace is 2 s
    with FileServer(tmp_path) as server, Stream(f"{server.url}/a.m3u8", settings) as stream:
        frames, marks = take(stream, until="unreachable")
        assert kinds(marks) == ["opened", "stalled", "lost", "unreachable"]
        assert marks[-1].text == "it cannot be reached: it brings nothing new; it is tried again."
        time.sleep(6.0)  # another try
        write_playlist(tmp_path, 3, 8, is_over=False)
        more, marks = take(stream, frames=28)
        assert kinds(marks) == ["reconnected"]
        assert numbers([*frames, *more]) == list(range(30, 88))
        assert stream.status().counts.killed == 0


class _Mjpeg(http.server.BaseHTTPRequestHandler):
    """Numbered JPEGs, as cheap cameras send them, for those who know the password."""

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != "Basic bWU6cmlnaHQ=":  # me:right
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for picture in painted(range(30)):
            jpeg = synthetic_jpeg(picture)
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            self.wfile.write(head.encode() + jpeg + b"\r\n")
            time.sleep(0.02)

    def log_message(self, *words: Any) -> None:
        """Say nothing."""


def synthetic_jpeg(picture: Any) -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "jpeg", quality=95)
    return buffer.getvalue()


def test_mjpeg_and_a_wrong_password(caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Mjpeg)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    place = f"127.0.0.1:{server.server_address[1]}/video.mjpg"
    with caplog.at_level(logging.DEBUG), Stream(f"http://me:right@{place}", LIVE) as stream:
        frames, _ = take(stream, until="lost")
        assert numbers(frames) == list(range(30))
        assert 0.5 < frames[-1].pts_s < 10  # by the clock of arrival
        with Stream(f"http://me:SECRET@{place}", LIVE) as other:
            frames, marks = take(other)
            assert (frames, kinds(marks)) == ([], ["ended"])
            assert isinstance(other.error, AccessRefusedError)
            seen = f"{other.error!r} {marks} {other.status()} {other.name} {caplog.text}"
    server.shutdown()
    server.server_close()
    assert "SECRET" not in seen
    assert "SECRET" not in "".join(capfd.readouterr())


def test_recordings_at_both_speeds(tmp_path: Path) -> None:
    path = synthetic.write_video(tmp_path / "a.mp4", 60)
    fast = StreamSettings(fps=10, pace="fast", starts_at_s=1000.0, queue_frames=2)
    with Stream(path, fast) as stream:
        frames, marks = take(stream)
        assert numbers(frames) == list(range(0, 60, 3))
        assert [round(frame.wall_s - 1000 - frame.pts_s, 6) for frame in frames] == [0.0] * 20
        assert (stream.error, kinds(marks)) == (None, ["opened", "ended"])
        assert stream.status().counts.dropped == 0
    with Stream(path, StreamSettings(fps=10)) as stream:
        frames, _ = take(stream, frames=10)
        assert numbers(frames) == list(range(0, 30, 3))
        assert frames[-1].wall_s - frames[0].wall_s > 0.85


@pytest.mark.slow
def test_a_file_that_grows(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(numbered(0, 60)))
    whole = joined(*numbered(0, 60), *numbered(60, 120))
    with Stream(path, StreamSettings(**QUICK, pace="follow")) as stream:
        frames, _ = take(stream, frames=50)
        with path.open("ab") as file:
            for piece in whole[60:]:
                file.write(piece)
                file.flush()
        more, marks = take(stream, frames=60)
        assert stream.status().counts.connections == 1
    found = numbers(frames + more)
    assert found == list(range(len(found)))
    assert "lost" not in kinds(marks)


def test_a_group_waits_for_nobody(tmp_path: Path) -> None:
    path = synthetic.write_video(tmp_path / "a.mp4", 30)
    fast = StreamSettings(fps=None, pace="fast")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        gone = f"tcp://127.0.0.1:{nobody.getsockname()[1]}"
        group = StreamGroup({"gone": (gone, LIVE), "one": (path, fast), "two": (path, fast)})
        found: dict[str, list[int]] = {"one": [], "two": []}
        until_s = time.monotonic() + 60
        while not all(group.streams[name].is_over for name in found):
            assert time.monotonic() < until_s
            named = group.next(0.5)
            if named is not None and hasattr(named[1], "picture"):
                found[named[0]] += numbers([named[1]])
        assert found == {"one": list(range(30)), "two": list(range(30))}
        assert not group.is_over
        assert group.streams["gone"].status().counts.failed_tries > 0
        group.close()
    assert group.is_over
    assert group.next() is None


def test_without_pyav_it_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(BackendMissingError, match="av"):
        open_stream("rtsp://host/a")


def test_wrong_addresses_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no streams"):
        open_stream("gopher://host/a")
    path = synthetic.write_video(tmp_path / "a.mp4", 3)
    before = threading.active_count()
    with pytest.raises(SourceError, match="is not there"):
        StreamGroup({"a": (path, LIVE), "b": (tmp_path / "b.mp4", LIVE)})
    assert threading.active_count() <= before


@pytest.mark.slow
def test_many_pictures_take_no_more_memory_than_a_few() -> None:
    pieces = b"".join(numbered(0, 250))

    def resident(pid: int | str) -> int:
        text = Path(f"/proc/{pid}/statm").read_text(encoding="ascii")
        return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def visit(line: socket.socket) -> None:
        for _ in range(20):
            line.sendall(pieces)

    def pass_by(stream: Stream, num_frames: int) -> None:
        until_s = time.monotonic() + 200
        while num_frames:
            assert time.monotonic() < until_s
            num_frames -= isinstance(stream.next(1), StreamFrame)

    settings = StreamSettings(**{**QUICK, "queue_frames": 8})
    with TcpCamera([visit]) as camera, Stream(camera.url, settings) as stream:
        # Two connections and a part of the third: an old one is held until the new one is made.
        pass_by(stream, 12_000)
        pid = stream._reader._process.pid
        assert pid is not None
        before = resident("self"), resident(pid)
        pass_by(stream, 30_000)
        after = resident("self"), resident(pid)
    assert after[0] - before[0] < 2**23
    assert after[1] - before[1] < 2**23
