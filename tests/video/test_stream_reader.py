"""The reader's policy, against a process that says what the test says: every mark, once."""

import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llava_video.errors import (
    AccessRefusedError,
    BackendMissingError,
    CapacityError,
    DecodeError,
    SourceError,
)
from llava_video.video import stream_reader
from llava_video.video.settings import StreamSettings
from llava_video.video.stream_address import StreamAddress, stream_address
from llava_video.video.stream_events import Mark, StreamFrame
from llava_video.video.stream_process import News
from llava_video.video.stream_queue import StreamQueue
from llava_video.video.stream_reader import StreamReader

SECRET = "rtsp://me:SECRET@host/ch1"
QUICK = StreamSettings(
    fps=None, first_wait_s=0.001, most_wait_s=0.002, stall_timeout_s=0.1, open_timeout_s=0.1
)
OPENED = News(kind="opened", values={"codec": "h264", "recorded_at_s": None, "duration_s": 0.0})


def frame(pts_s: float, **more: Any) -> News:
    values = {"pts_s": pts_s, "now_s": pts_s, "wall_s": 1000 + pts_s, "lag_s": 0.0, **more}
    values = {"is_same": False, "odd": [], "unroomed": 0, **values}
    return News(kind="frame", values=values, picture=np.zeros((4, 4, 3), dtype=np.uint8))


def ended(why: str, text: str = "why", *, was_open: bool = True, **more: Any) -> News:
    return News(kind="ended", values={"why": why, "text": text, "was_open": was_open, **more})


class Scripted:
    """Says what stands in its script: news, None for a silence, an error for a failed start."""

    def __init__(self, script: list[Any], queue: StreamQueue) -> None:
        self.script, self.queue = script, queue
        self.num_opened = self.num_killed = self.num_closed = 0
        self.reader: StreamReader | None = None

    def open(self, address: StreamAddress, settings: StreamSettings) -> None:
        self.num_opened += 1
        if self.script and isinstance(self.script[0], Exception):
            raise self.script.pop(0)

    def receive(self, timeout_s: float) -> News | None:
        if not self.script:
            assert self.reader is not None
            self.reader._stopped.set()  # without letting go of what waits
            return None
        return self.script.pop(0)

    def kill(self) -> None:
        self.num_killed += 1

    def close(self, grace_s: float) -> None:
        self.num_closed += 1


def run(
    script: list[Any], address: Any = SECRET, settings: StreamSettings = QUICK
) -> tuple[list[str], StreamReader, Scripted]:
    queue = StreamQueue(100, 2**30)
    process = Scripted(script, queue)
    reader = StreamReader(
        stream_address(address, settings),
        settings,
        queue,
        process=process,  # type: ignore[arg-type]  # as much of it as is used
        chance=random.Random(0),
    )
    process.reader = reader
    reader.run()
    found = []
    while (event := queue.take(0)) is not None:
        if isinstance(event, Mark):
            assert "SECRET" not in repr(event)
        found.append(str(event.idx) if isinstance(event, StreamFrame) else event.kind)
    assert "SECRET" not in repr(reader.status())
    assert process.num_closed == 1
    return found, reader, process


def test_a_good_day() -> None:
    found, reader, _ = run([News(kind="ready"), OPENED, frame(0.0), frame(1.0)])
    assert found == ["opened", "0", "1", "ended"]
    assert reader.error is None
    status = reader.status()
    assert (status.name, status.state, status.codec) == ("rtsp://host/ch1", "ended", "h264")
    assert (status.last_frame_pts_s, status.last_frame_wall_s) == (1.0, 1001.0)
    assert (status.height_px, status.width_px) == (4, 4)


def test_a_connection_that_is_cut_is_made_again() -> None:
    cut = ended("cut", "connection reset by peer")
    found, reader, process = run([OPENED, frame(0.0), cut, OPENED, frame(0.0, now_s=5.0)])
    assert found == ["opened", "0", "lost", "reconnected", "1", "ended"]
    assert process.num_opened == 2
    assert reader.status().reason == "connection reset by peer"


def test_an_outage_is_told_once_and_anew_when_its_reason_changes(caplog) -> None:
    refused = [ended("cut", "connection refused", was_open=False)] * 5
    absent = [ended("missing", "404 Not Found", was_open=False)] * 3
    with caplog.at_level(logging.WARNING):
        found, reader, _ = run([*refused, *absent, OPENED, frame(0.0), ended("end"), *refused])
    assert found == ["unreachable", "unreachable", "opened", "0", "lost", "unreachable", "ended"]
    assert reader.status().counts.failed_tries == 13
    assert reader.error is None
    assert "SECRET" not in caplog.text
    assert "cannot be reached: connection refused" in caplog.text


def test_a_wrong_password_is_not_tried_again() -> None:
    wrong = ended("refused", "it wants another user name or password (401)", was_open=False)
    found, reader, process = run([wrong, frame(0.0)])
    assert found == ["ended"]
    assert process.num_opened == 1
    assert isinstance(reader.error, AccessRefusedError)
    assert "rtsp://host/ch1: it wants another user name or password (401)" in str(reader.error)
    assert "SECRET" not in str(reader.error)


def test_what_ffmpeg_cannot_read_is_not_tried_again() -> None:
    _, reader, process = run([ended("unsupported", "protocol not found", was_open=False)])
    assert isinstance(reader.error, SourceError)
    assert process.num_opened == 1


def silence(seconds: float) -> list[None]:
    return [None] * round(seconds / 0.01)


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each look at the process take 10 ms on a clock of the test."""
    now_s = [0.0]

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return now_s[0]

        @staticmethod
        def time() -> float:
            return 1e9 + now_s[0]

    original = Scripted.receive

    def receive(self: Scripted, timeout_s: float) -> News | None:
        news = original(self, timeout_s)
        now_s[0] += 0.01 if news is None else 0.0
        return news

    monkeypatch.setattr(stream_reader, "time", Clock)
    monkeypatch.setattr(Scripted, "receive", receive)


@pytest.mark.usefixtures("ticking")
def test_silence_is_told_once_and_so_is_its_end() -> None:
    more = [item for k in range(5) for item in (frame(1.0 + k), *silence(0.07))]
    found, _, process = run([OPENED, frame(0.0), *silence(0.5), *more])
    # The first ones may be what a decoder still held.
    assert found == ["opened", "0", "stalled", "1", "2", "3", "resumed", "4", "5", "ended"]
    assert process.num_killed == 0


@pytest.mark.usefixtures("ticking")
def test_signs_of_life_are_no_silence() -> None:
    pulses = [item for _ in range(30) for item in (*silence(0.05), News(kind="pulse"))]
    found, _, _ = run([OPENED, frame(0.0), *pulses])
    assert found == ["opened", "0", "ended"]


@pytest.mark.usefixtures("ticking")
def test_a_stall_after_a_stall_is_told_though_no_frame_was_due() -> None:
    pulses = [item for _ in range(20) for item in (*silence(0.02), News(kind="pulse"))]
    found, *_ = run([OPENED, frame(0.0), *silence(0.5), *pulses, *silence(0.5), *pulses])
    assert found == ["opened", "0", "stalled", "resumed", "stalled", "resumed", "ended"]


@pytest.mark.usefixtures("ticking")
def test_old_pictures_are_no_sign_of_a_living_camera_and_those_who_bring_them_do_not_hang() -> None:
    repeats = [item for _ in range(60) for item in (*silence(0.05), News(kind="repeat"))]
    nothing = ended("end", "it brings nothing new")
    again = [OPENED, *repeats, nothing, OPENED, *repeats, nothing]
    found, reader, process = run([OPENED, frame(0.0), *repeats, nothing, *again])
    # Told once, however often it is tried; such a try has failed.
    assert found == ["opened", "0", "stalled", "lost", "unreachable", "ended"]
    assert process.num_killed == 0
    assert reader.status().counts.failed_tries == 2


@pytest.mark.usefixtures("ticking")
def test_a_playlist_has_twice_the_time_to_say_that_it_is_over() -> None:
    opened = News(kind="opened", values={**OPENED.values, "is_playlist": True})
    script = [frame(0.0), *silence(0.2 + stream_reader._GRACE_S - 0.05), ended("end")]
    found, _, process = run([opened, *script])
    assert found == ["opened", "0", "stalled", "lost", "ended"]
    assert process.num_killed == 0
    _, _, process = run([OPENED, *script])
    assert process.num_killed == 1


@pytest.mark.usefixtures("ticking")
def test_a_process_that_hangs_is_ended_and_another_one_reads() -> None:
    hangs = silence(0.1 + stream_reader._GRACE_S + 0.05)
    found, reader, process = run([OPENED, frame(0.0), *hangs, OPENED, frame(0.0, now_s=9.0)])
    assert found == ["opened", "0", "stalled", "lost", "reconnected", "1", "ended"]
    assert process.num_killed == 1
    assert reader.status().counts.killed == 1


@pytest.mark.usefixtures("ticking")
def test_a_camera_that_accepts_and_says_nothing_is_unreachable() -> None:
    hangs = silence(0.1 + stream_reader._GRACE_S + 0.05)
    found, _, process = run([News(kind="ready"), *hangs, OPENED, frame(0.0)])
    assert found == ["unreachable", "opened", "0", "ended"]
    assert process.num_killed == 1


@pytest.mark.usefixtures("ticking")
def test_a_timeout_of_ffmpegs_own_is_the_same_silence() -> None:
    script = [OPENED, frame(0.0), *silence(0.15), frame(1.0), frame(1.1), ended("timeout")]
    assert run(script)[0] == ["opened", "0", "stalled", "1", "2", "lost", "ended"]
    quick = [OPENED, frame(0.0), ended("timeout")]
    assert run(quick)[0] == ["opened", "0", "stalled", "lost", "ended"]


def test_a_process_that_cannot_be_started_is_an_outage() -> None:
    found, reader, _ = run([CapacityError("no room."), OPENED, frame(0.0)])
    assert found == ["unreachable", "opened", "0", "ended"]
    assert reader.error is None


def test_a_system_without_processes_ends_it() -> None:
    found, reader, process = run([BackendMissingError("needs a Unix system.", "WSL.")])
    assert (found, process.num_opened) == (["ended"], 1)
    assert isinstance(reader.error, BackendMissingError)


def test_nobody_foresaw_it(caplog) -> None:
    found, reader, _ = run([OPENED, frame(float("nan"))])
    assert found == ["ended"]
    assert isinstance(reader.error, DecodeError)
    assert "report it" in reader.error.hint
    assert "reading it failed" in caplog.text


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.ts"
    path.write_bytes(b"x")
    return path


def test_a_recording_ends_and_is_not_read_again(file: Path) -> None:
    found, reader, process = run([OPENED, frame(0.0), ended("end")], file)
    assert (found, process.num_opened) == (["opened", "0", "ended"], 1)
    assert reader.error is None


def test_a_damaged_recording_says_where(file: Path) -> None:
    _, reader, _ = run([OPENED, frame(0.0), frame(3.0), ended("cut", "input/output error")], file)
    assert isinstance(reader.error, DecodeError)
    assert reader.error.pts_s == 3.0


def test_a_finished_playlist_ends_but_a_camera_goes_on() -> None:
    over = News(kind="opened", values={**OPENED.values, "duration_s": 60.0})
    found, _, process = run([over, frame(0.0), ended("end")], "http://host/a.m3u8")
    assert (found, process.num_opened) == (["opened", "0", "ended"], 1)
    _, _, process = run([over, frame(0.0), ended("end"), OPENED])
    assert process.num_opened == 2  # RTSP


def test_what_was_live_and_is_over_is_not_read_from_its_beginning() -> None:
    over = News(kind="opened", values={**OPENED.values, "duration_s": 60.0})
    live = [OPENED, frame(0.0), ended("end")]
    found, _, process = run([*live, over, frame(0.0), ended("end")], "http://host/a.m3u8")
    assert (found, process.num_opened) == (["opened", "0", "lost", "ended"], 2)
    # One that was over when it was found goes on where it was cut.
    found, *_ = run([over, frame(0.0), ended("cut"), over, frame(1.0)], "http://host/a.m3u8")
    assert found == ["opened", "0", "lost", "reconnected", "1", "ended"]


@pytest.mark.usefixtures("ticking")
def test_a_file_that_grows_may_be_silent(file: Path) -> None:
    follow = StreamSettings(pace="follow", stall_timeout_s=0.1, open_timeout_s=0.1)
    more = [item for k in range(5) for item in (frame(1.0 + k), *silence(0.07))]
    found, _, process = run([OPENED, frame(0.0), *silence(30.0), *more], file, follow)
    assert found == ["opened", "0", "stalled", "1", "2", "3", "resumed", "4", "5", "ended"]
    assert process.num_killed == 0


@pytest.mark.parametrize(
    ("starts_at_s", "stated_s", "wall_s"), [(5000.0, 70.0, 5002.0), (None, 70.0, 72.0)]
)
def test_a_recording_read_fast_has_a_wall_clock_of_its_own(
    file: Path, starts_at_s: float | None, stated_s: float, wall_s: float
) -> None:
    fast = StreamSettings(pace="fast", starts_at_s=starts_at_s)
    opened = News(kind="opened", values={**OPENED.values, "recorded_at_s": stated_s})
    _, reader, _ = run([opened, frame(0.0), frame(2.0), ended("end")], file, fast)
    assert reader.status().last_frame_wall_s == wall_s


def test_one_that_says_nothing_began_when_it_was_written_less_its_length(file: Path) -> None:
    opened = News(kind="opened", values={**OPENED.values, "duration_s": 100.0})
    fast = StreamSettings(pace="fast")
    _, reader, _ = run([opened, frame(0.0), frame(2.0), ended("end")], file, fast)
    assert reader.status().last_frame_wall_s == pytest.approx(file.stat().st_mtime - 98.0)
