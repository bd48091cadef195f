"""`llava-video watch` over RTSP and HLS with faults in them: each planted event is told once."""

import functools
import json
import os
import random
import re
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from rtsp_server import Camera, needs_server
from stream_servers import FileServer, encode, write_playlist
from watch_footage import oracle_of

from llava_video.api import LlavaVideo
from llava_video.cli import watch as command
from llava_video.monitor.trace import read_trace
from llava_video.video.settings import StreamSettings
from llava_video.world.bars import paint_index

pytestmark = pytest.mark.slow

FPS, EVERY = 5, 5  # of 25 pictures a second each fifth is looked at
QUICK = {"first_wait_s": 0.05, "most_wait_s": 0.1, "open_timeout_s": 5.0, "queue_frames": 1000}
MOST_S = 120.0
FAULTS = {"opened", "unreachable", "lost", "stalled", "reconnected", "frozen", "moving", "ended"}


class Footage:
    """Pictures of which bit 0 says whether it is there, the others where we are.

    Args:
        events: first picture and end of each time it is there.
        frozen: first picture and end of a time of equal pictures.
    """

    def __init__(self, events: list[tuple[int, int]], frozen: tuple[int, int]) -> None:
        self.events, self.frozen = events, frozen

    def pictures(
        self, first: int, end: int, height_px: int = 48, width_px: int = 64
    ) -> Iterator[Any]:
        """Paint some pictures; those that are looked at all differ, the frozen ones aside."""
        for number in range(first, end):
            shown = self.frozen[0] if number in range(*self.frozen) else number
            is_there = any(number in range(*one) for one in self.events)
            yield paint_index(shown // EVERY << 1 | is_there, height_px, width_px)

    @functools.cache  # noqa: B019 - ends with its test
    def segment(self, number: int) -> bytes:
        """Return ten pictures of a playlist."""
        pictures = self.pictures(number * 10, number * 10 + 10)
        return b"".join(encode(pictures, first_tick=number * 10))


class Watched:
    """A watch in this thread, and who plays its cameras in another.

    Args:
        run: runs a command.
        folder: where everything lies.
        address: of the camera.
        stall_timeout_s: how long it may be silent.
    """

    def __init__(
        self, run: Callable[..., Any], folder: Path, address: str, stall_timeout_s: float
    ) -> None:
        self._run, self._folder = run, folder
        self._error: BaseException | None = None
        self._is_over = threading.Event()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        log = {"name": "log", "kind": "jsonl", "path": str(folder / "log.jsonl")}
        values = {
            "cameras": [{"name": "gate", "address": address, "fps": FPS, "window_s": 0.4,
                         "step_s": 0.4, "frozen_s": 1.0, "stall_timeout_s": stall_timeout_s}],
            "rules": [{"name": "object", "question": "Is bit 0 set?", "cooldown_s": 0,
                       "tell_end": True}],
            "sinks": [log],
            "guard": False,
        }  # fmt: skip
        (folder / "rules.yaml").write_text(yaml.safe_dump(values))

    def run(self, play: Callable[[], None]) -> Any:
        """Watch until it ends, while the cameras play; return how it ended.

        Raises:
            AssertionError: of the player, or it took too long.
        """
        player = threading.Thread(target=self._play, args=(play,))
        player.start()
        try:
            outcome = self._run(
                "watch", "--rules", self._folder / "rules.yaml", "--out", self._folder / "out",
                "--loop", "queue_windows=1000", "--page", f":{self._port}",
            )  # fmt: skip
        finally:
            self._is_over.set()
            player.join(MOST_S)
        if self._error is not None:
            raise self._error
        return outcome

    def _play(self, play: Callable[[], None]) -> None:
        try:
            play()
        except BaseException as error:  # noqa: BLE001 - raised again by who waits for this thread
            self._error = error
            self.stop()

    def stop(self) -> None:
        """Press Ctrl-C, where it still runs."""
        if not self._is_over.is_set():
            os.kill(os.getpid(), signal.SIGINT)

    def marks(self) -> list[str]:
        """Return what befell the camera, but for what a busy machine makes."""
        kinds = [line.get("mark", "") for line in read_trace(self._folder / "out")]
        return [kind for kind in kinds if kind in FAULTS]

    def told(self, kind: str) -> list[dict[str, Any]]:
        """Return what the sink took of a kind."""
        path = self._folder / "log.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [one for one in map(json.loads, lines) if one["kind"] == kind]

    def wait(self, is_so: Callable[[], bool], what: str) -> None:
        """Wait until something is so."""
        until_s = time.monotonic() + MOST_S
        while not is_so():
            assert time.monotonic() < until_s, (what, self.marks())
            assert not self._is_over.wait(0.05), (what, self.marks())

    def state(self) -> tuple[str, int]:
        """Return where the camera stands, and the status of the check of health."""
        address = f"http://127.0.0.1:{self._port}/health"
        try:
            with urllib.request.urlopen(address, timeout=20) as reply:
                return json.load(reply)["cameras"]["gate"], reply.status
        except urllib.error.HTTPError as error:
            return json.load(error)["cameras"]["gate"], error.code

    def assert_exact(self, footage: Footage) -> None:
        """Check that each event was told once: at its first window, and its end."""
        kinds = [*self.told("alert"), *self.told("end")]
        numbers = list(range(1, len(footage.events) + 1))
        assert [one["number"] for one in self.told("alert")] == numbers
        assert len(kinds) == 2 * len(footage.events)
        updates = {one["alert_id"]: one["description"] for one in self.told("update")}
        assert len(updates) == len(self.told("update")) == len(footage.events)
        for alert, (first, _) in zip(self.told("alert"), footage.events, strict=True):
            *_, last = re.findall(r"\d+", updates[alert["alert_id"]])
            # The window in which it came, or the one after, where its last picture decides.
            # A picture shows eight bits of its number.
            assert ((int(last) >> 1) - first // EVERY) % 128 in range(3), (updates, footage.events)


@pytest.fixture
def watched(
    run: Callable[..., Any],
    tiny_model: LlavaVideo,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Callable[..., Watched]:
    """Return what makes a watch of an address, with the oracle and with little patience."""
    model = oracle_of(tiny_model)
    monkeypatch.setattr(command, "load_model", lambda *_, **more: model)

    def make(address: str, stall_timeout_s: float) -> Watched:
        settings = functools.partial(StreamSettings, **QUICK)
        monkeypatch.setattr("llava_video.monitor.settings.StreamSettings", settings)
        return Watched(run, tmp_path, address, stall_timeout_s)

    return make


def test_rtsp_cut_silent_frozen_killed_resized_noisy_and_late(
    watched: Callable[..., Watched], tmp_path: Path
) -> None:
    needs_server()
    events = [(50, 150), (200, 275), (400, 450), (600, 680), (705, 720)]
    footage = Footage(events, frozen=(300, 375))
    pieces = encode(footage.pictures(0, 600), container="h264")
    pieces += encode(footage.pictures(600, 640, 64, 96), container="h264")
    pieces += encode(footage.pictures(640, 760), container="h264")
    # What is built on it is damaged too, to the next keyframe: a window in the midst of an event.
    pieces[651] = b"\0\0\0\1\x41" + random.Random(0).randbytes(3000)
    camera = Camera(tmp_path, pieces)
    watch = watched(camera.url, stall_timeout_s=1.5)
    camera.start(0)
    camera.tell("cut 75")
    camera.tell("hush 225")

    def play() -> None:
        watch.wait(lambda: watch.marks().count("lost") == 2, "silent")
        assert watch.state()[0] != "live"
        camera.tell("speak")
        watch.wait(lambda: len(watch.told("end")) == 3, "three are over")
        assert watch.state() == ("live", 200)
        camera.kill()
        watch.wait(lambda: "unreachable" in watch.marks(), "gone")
        state, status = watch.state()
        assert (state in ("waiting", "connecting"), status) == (True, 503)
        camera.start(560)
        camera.tell("slow 690")
        watch.wait(lambda: len(watch.told("end")) == 5, "all are over")
        watch.stop()

    try:
        outcome = watch.run(play)
    finally:
        camera.kill()
    assert outcome.status == 130
    assert "5 alerts; windows: " in outcome.err
    assert "Traceback" not in outcome.err
    watch.assert_exact(footage)
    assert watch.marks()[:11] == [
        "opened", "lost", "reconnected", "stalled", "lost", "reconnected", "frozen", "moving",
        "lost", "unreachable", "reconnected",
    ]  # fmt: skip
    odd = {line.get("mark") for line in read_trace(tmp_path / "out")}
    assert {"resized", "damaged"} <= odd


def test_hls_over_an_outage_a_silence_and_a_freeze(
    watched: Callable[..., Watched], tmp_path: Path
) -> None:
    footage = Footage([(60, 120), (150, 210), (300, 360)], frozen=(210, 280))
    folder = tmp_path / "served"
    folder.mkdir()

    def write(last: int, *, is_over: bool = False) -> None:
        write_playlist(folder, 0, last, is_over=is_over, segment=footage.segment)

    write(8)
    server = FileServer(folder)
    watch = watched(f"{server.url}/a.m3u8", stall_timeout_s=3.0)

    def play() -> None:
        watch.wait(lambda: len(watch.told("alert")) == 1, "the first is there")
        server.close()
        watch.wait(lambda: "unreachable" in watch.marks(), "an outage")
        write(11)  # of a playlist the last three pieces are read first
        with FileServer(folder, server.port):
            watch.wait(lambda: "reconnected" in watch.marks(), "again")
            write(24)
            watch.wait(lambda: watch.marks().count("lost") == 2, "silent, its picture frozen")
            assert watch.state()[0] != "live"
            write(27)
            watch.wait(lambda: watch.marks().count("reconnected") == 2, "goes on, frozen")
            write(38, is_over=True)
            watch.wait(lambda: "ended" in watch.marks(), "over")

    outcome = watch.run(play)
    assert outcome.status == 0
    assert "3 alerts; windows: " in outcome.err
    assert "Traceback" not in outcome.err
    watch.assert_exact(footage)
    # What FFmpeg still holds when it gives up may come right before a stall would be told.
    assert [kind for kind in watch.marks() if kind != "stalled"] == [
        "opened", "lost", "unreachable", "reconnected", "frozen", "lost", "reconnected", "moving",
        "lost", "ended",
    ]  # fmt: skip
