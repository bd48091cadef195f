"""The worker: takes what is due, waits for room only where it may, and ends when it is told to."""

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import synthetic

from llava_video.config import to_mapping
from llava_video.video import stream_worker
from llava_video.video.sandbox_channel import Channel
from llava_video.video.sandbox_memory import FrameRing
from llava_video.video.settings import StreamSettings
from llava_video.video.stream_address import stream_address
from llava_video.video.stream_connection import Remembered
from llava_video.video.stream_worker import serve


class Parent:
    """The other end of the line."""

    def __init__(self, path: Path, settings: StreamSettings, last: Any = None) -> None:
        self.last = last
        ours, theirs = socket.socketpair()
        self.channel = Channel(ours)
        self._theirs = Channel(theirs, takes_descriptors=True)
        self.ring: FrameRing | None = None
        order = {
            "do": "open",
            "address": asdict(stream_address(path, settings)),
            "settings": to_mapping(settings),
        }
        self.channel.send(order)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        message = self._theirs.receive()
        assert message is not None
        self.last = serve(self._theirs, message, Remembered(), self.last)

    def until_end(self, on_frame: Callable[[int], bool], timeout_s: float = 30) -> list[Any]:
        """Return all messages; `on_frame` says whether a frame's slot is freed."""
        found = []
        while (message := self.channel.receive(timeout_s)) is not None:
            values = message.values
            found.append(values)
            if values["is"] == "ended":
                break
            if values["is"] == "size":
                self.ring = FrameRing(values["height_px"], values["width_px"], 4)
                shape = [self.ring.num_slots, *self.ring.shape]
                descriptors = [self.ring.descriptor]
                self.channel.send({"do": "ring", "shape": shape}, descriptors=descriptors)
                self.ring.sent()
            elif values["is"] == "frame" and on_frame(len(found)):
                self.channel.send({"do": "free"})
        return found

    def close(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()
        self.channel.close()
        self._theirs.close()
        if self.ring is not None:
            self.ring.close()


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Callable[..., Parent]]:
    path, made = synthetic.write_video(tmp_path / "a.mp4", 24), []

    def make(**changes: Any) -> Parent:
        made.append(Parent(path, StreamSettings(**changes)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def frames(messages: list[Any]) -> list[Any]:
    return [values for values in messages if values["is"] == "frame"]


def test_a_recording_read_fast_waits_for_room_and_drops_nothing(parent) -> None:
    found = parent(pace="fast", fps=None).until_end(lambda _: True)
    assert [round(values["pts_s"] * 30) for values in frames(found)] == list(range(24))
    assert found[-1]["why"] == "end"
    assert found[-1]["decoded"] == 24
    assert found[-1]["unroomed"] == 0


def test_a_live_stream_waits_for_nobody_and_counts(parent, monkeypatch) -> None:
    monkeypatch.setattr(stream_worker, "_ROOM_S", 0.01)
    found = parent(pace="real", fps=None).until_end(lambda _: False)
    assert len(frames(found)) == 4  # as many as there are slots
    assert found[-1]["unroomed"] == 20
    assert found[-1]["decoded"] == 24


def test_the_rate_is_kept_and_the_rest_are_signs_of_life(parent) -> None:
    found = parent(pace="real", fps=2.0).until_end(lambda _: True)
    assert [round(values["pts_s"], 2) for values in frames(found)] == [0.0, 0.5]
    assert found[-1]["decoded"] == 24
    assert {values["is"] for values in found} == {"opened", "size", "frame", "pulse", "ended"}


def test_it_ends_when_it_is_told_to(parent) -> None:
    one = parent(pace="real", fps=None)

    def close_at_once(_: int) -> bool:
        one.channel.send({"do": "close"})
        return True

    found = one.until_end(close_at_once)
    assert len(frames(found)) < 10


def test_equal_pictures_are_told(parent, tmp_path: Path) -> None:
    from llava_video.world.clip import write_clip

    picture = synthetic.paint_frame(7)
    write_clip(tmp_path / "still.mp4", [picture] * 20, codec_options={"qp": "0"})
    one = Parent(tmp_path / "still.mp4", StreamSettings(pace="fast", fps=None))
    found = one.until_end(lambda _: True)
    one.close()
    assert [values["is_same"] for values in frames(found)] == [False] + [True] * 19
    again = Parent(tmp_path / "still.mp4", StreamSettings(pace="fast", fps=None), one.last)
    found = again.until_end(lambda _: True)  # a new connection of a frozen camera
    again.close()
    assert all(values["is_same"] for values in frames(found))
    moving = parent(pace="fast", fps=None).until_end(lambda _: True)
    assert not any(values["is_same"] for values in frames(moving))
