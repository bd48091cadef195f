"""Videos are under way as far as their frames have room, and one always is."""

import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from archive_runs import QUESTION, truth, write_clips

from llava_video.api import LlavaVideo
from llava_video.archive.room import BusyTime, Room, RoomyEngine
from llava_video.engine.oracle import OracleEngine
from llava_video.engine.request import Event, Finished, Request
from llava_video.errors import CapacityError

CLIP_BYTES = 4 * 32 * 64 * 3  # frames, height, width, colours of a clip


class Crowd:
    """The oracle, which answers when so many ask at once; counts how many did at most."""

    def __init__(self, oracle: OracleEngine, awaited: int) -> None:
        self._oracle, self._lock = oracle, threading.Lock()
        self._awaited, self._is_full = awaited, threading.Event()
        self.now = self.most = 0

    def run(self, requests: Iterable[Request]) -> Iterator[Event]:
        """See `Engine`."""
        for request in requests:
            with self._lock:
                self.now += 1
                self.most = max(self.most, self.now)
                if self.now >= self._awaited:
                    self._is_full.set()
            self._is_full.wait(10)
            time.sleep(0.02)  # one too many would come now
            for event in self._oracle.run([request]):
                if isinstance(event, Finished):
                    with self._lock:
                        self.now -= 1
                yield event


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_clips(tmp_path_factory.mktemp("room"), 8)


@pytest.mark.parametrize(
    ("limit_bytes", "most"), [(1, 1), (CLIP_BYTES, 1), (3 * CLIP_BYTES, 3), (99 * CLIP_BYTES, 8)]
)
def test_the_bytes_of_frames_bound_what_is_under_way(
    clips: list[Path], tiny_model: LlavaVideo, limit_bytes: int, most: int
) -> None:
    crowd = Crowd(OracleEngine(tiny_model.spec.tokenizer), most)
    engine = RoomyEngine(crowd, Room(limit_bytes))
    model = LlavaVideo(tiny_model.spec, engine)
    answers = [""] * len(clips)

    def ask(number: int) -> None:
        answers[number] = model.ask(clips[number], QUESTION, max_new_tokens=64).text

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(clips))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [truth(number) for number in range(len(clips))]
    assert crowd.most == most
    assert engine.room.most_bytes == most * CLIP_BYTES
    assert engine.room.held_bytes == 0


def test_a_batch_is_drawn_as_there_is_room(clips: list[Path], tiny_model: LlavaVideo) -> None:
    engine = RoomyEngine(OracleEngine(tiny_model.spec.tokenizer), Room(2 * CLIP_BYTES))
    model = LlavaVideo(tiny_model.spec, engine)
    texts = [answer.text for answer in model.batch(clips, QUESTION, max_new_tokens=64)]  # type: ignore[union-attr]  # errors are raised
    assert texts == [truth(number) for number in range(len(clips))]
    assert engine.room.held_bytes == 0


def test_a_stopped_engine_ends_its_runs(clips: list[Path], tiny_model: LlavaVideo) -> None:
    engine = RoomyEngine(OracleEngine(tiny_model.spec.tokenizer), Room(2**30))
    engine.stop()
    with pytest.raises(CapacityError, match="to go on"):
        LlavaVideo(tiny_model.spec, engine).ask(clips[0], QUESTION)
    assert engine.room.held_bytes == 0


def test_busy_is_the_time_with_somebody_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr("llava_video.archive.room.time.monotonic", lambda: now_s)
    busy = BusyTime()
    now_s = 2.0  # nobody for two seconds
    busy.change(1)
    now_s = 4.0
    busy.change(1)
    now_s = 5.0
    busy.change(-2)  # three seconds of one or two
    now_s = 10.0
    assert busy.share == pytest.approx(0.3)
