"""Every way a worker can misbehave ends it within a second of the limit, and the next one works."""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import synthetic
from sandbox_cases import QUICK, STALL_S, assert_error, given_and_raised

from llava_video.errors import DecodeError
from llava_video.video.sandbox import DecoderPool, open_sandboxed
from llava_video.video.sandbox_process import WorkerProcess
from llava_video.video.settings import SandboxSettings
from llava_video.video.source import open_source

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return synthetic.write_video(tmp_path / "a.mp4", 30)


MISDEEDS = {
    "sleeps_in_c": (r"said nothing for 0.8 s \(stall_timeout_s\)", "leave the file out.*stall"),
    "is_busy": (r"said nothing for 0.8 s", "stall_timeout_s"),
    "aborts": (r"crashed \(SIGABRT\)", "convert it"),
    "crashes": (r"crashed \(SIGSEGV\)", "convert it"),
    "exits": (r"ended by itself \(exit status 7\)", "convert it"),
    "is_killed": (r"killed from outside \(SIGKILL\)", "convert it"),
    "fails": (r"not foreseen: KeyError: 'nobody thought of this'", "report it"),
    "floods_bytes": (r"the worker sent a message of \d+ bytes", "convert it"),
    "lies_about_the_frame": ("answer makes no sense", "report it"),
    "ends_without_a_word": ("answer makes no sense", "report it"),
    "says_something_else": ("answer makes no sense", "report it"),
}


# The others only in `make test-full`: a worker's start each.
_QUICK = ("sleeps_in_c", "crashes", "fails", "lies_about_the_frame", "ends_without_a_word")


@pytest.mark.parametrize(
    "stub",
    [pytest.param(s, marks=() if s in _QUICK else pytest.mark.slow) for s in MISDEEDS],
)
def test_a_decoder_that_misbehaves(path: Path, stub: str) -> None:
    found, hint = MISDEEDS[stub]
    with DecoderPool(QUICK, opener=f"sandbox_stubs:{stub}") as pool:
        decoder = pool.open(open_source(path))
        given, caught, took_s = given_and_raised(decoder, [0.0, 0.1, 0.5, 0.9])
        assert given == [0, 3]  # what came before stays
        assert isinstance(caught, DecodeError)
        assert str(path) in caught.message
        assert pytest.approx(0.5) == caught.pts_s or stub == "fails"
        assert took_s < STALL_S + 1
        with pytest.raises(AssertionError):  # the patterns would notice another error
            assert_error(caught, "stopped for another reason", hint)
        assert_error(caught, found, hint)
        decoder.close()
        with pool.open(open_source(path)) as again:  # the next video works
            assert synthetic.indices(again.clips_at([0.0, 0.1])) == [0, 3]


@pytest.mark.parametrize(
    ("stub", "changes", "found"),
    [
        ("allocates", {"max_memory_bytes": 3 * 2**28, "stall_timeout_s": 20.0}, "max_memory_bytes"),
        ("walks_for_ever", {"max_walked_frames": 500}, r"more than 500 frames.*max_walked_frames"),
        pytest.param(
            "walks_for_ever",
            {"video_timeout_s": 2.0},
            r"longer than 2 s \(video_timeout_s\)",
            marks=pytest.mark.slow,
        ),
        ("floods_pulses", {"video_timeout_s": 1.0}, r"longer than 1 s \(video_timeout_s\)"),
        (
            "reads_for_ever",
            {"max_read_bytes": 10**8, "stall_timeout_s": 20.0},
            r"more than 100,000,000 bytes of it were read",
        ),
    ],
)
def test_limits(path: Path, stub: str, changes: dict[str, Any], found: str) -> None:
    settings = SandboxSettings(**{"stall_timeout_s": 5.0, "num_workers": 1} | changes)
    with DecoderPool(settings, opener=f"sandbox_stubs:{stub}") as pool:
        with pool.open(open_source(path)) as decoder:
            given, caught, took_s = given_and_raised(decoder, [0.0, 0.1, 0.5])
        assert given == [0, 3]
        assert isinstance(caught, DecodeError)
        assert took_s < settings.video_timeout_s + 1
        assert_error(caught, found, rf"sandbox=SandboxSettings\({next(iter(changes))}=…\)")
        with pool.open(open_source(path)) as again:
            assert synthetic.indices(again.clips_at([0.0, 0.1])) == [0, 3]


def test_a_process_that_is_gone_is_not_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number may be another's."""
    killed: list[int] = []
    worker = WorkerProcess(QUICK, "sandbox_stubs:tells")
    os.kill(worker.pid, signal.SIGKILL)
    until_s = time.monotonic() + 5
    while worker.is_alive and time.monotonic() < until_s:
        time.sleep(0.01)
    monkeypatch.setattr(os, "killpg", lambda pid, _: killed.append(pid))
    worker.kill()
    assert killed == []
    worker = WorkerProcess(QUICK, "sandbox_stubs:tells")
    worker.kill()  # one that runs is, with all it started
    assert killed == [worker.pid]


@pytest.mark.parametrize("stub", ["hangs_at_once", "crashes_at_once"])
def test_while_it_is_opened(path: Path, stub: str) -> None:
    with DecoderPool(QUICK, opener=f"sandbox_stubs:{stub}") as pool:
        for _ in range(2):
            started_s = time.monotonic()
            with pytest.raises(DecodeError, match=r"a\.mp4: .*, while it was opened") as caught:
                pool.open(open_source(path))
            assert caught.value.pts_s is None
            assert time.monotonic() - started_s < STALL_S + 1 + 3  # with the worker's own start
        assert pool._num_lent == 0


@pytest.mark.slow
def test_a_decoder_short_of_memory_is_told_apart_from_damage(tmp_path: Path) -> None:
    """64 MiB do not hold 4K for FFmpeg: it gives no frame, crashes or hangs, by chance."""
    path = synthetic.write_video(tmp_path / "4k.mp4", 4, height_px=2160, width_px=3840)
    for most_bytes, is_enough in ((2**26, False), (2**31, True)):
        settings = SandboxSettings(max_memory_bytes=most_bytes, stall_timeout_s=4.0)
        with contextlib.ExitStack() as stack:
            try:
                decoder = stack.enter_context(open_sandboxed(open_source(path), settings=settings))
                given, caught, _ = given_and_raised(decoder, [0.0, 0.1])
            except DecodeError as error:
                given, caught = [], error
        assert given == ([0, 3] if is_enough else [])
        assert (caught is None) == is_enough
        if not is_enough:
            assert_error(caught, "4k.mp4: ", r"SandboxSettings\(max_memory_bytes=…\)")


def test_a_size_that_cannot_be_is_not_believed(path: Path) -> None:
    with (
        DecoderPool(QUICK, opener="sandbox_stubs:lies_about_the_size") as pool,
        pytest.raises(DecodeError, match="answer makes no sense"),
    ):
        pool.open(open_source(path))
