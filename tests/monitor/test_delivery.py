"""Each sink gets all its messages in order, whatever it or another one does."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from monitor_cases import message_of, receiving

from llava_video.errors import LedgerError, SinkError
from llava_video.monitor.delivery import Courier, Couriers, with_pictures
from llava_video.monitor.message import Message
from llava_video.monitor.sink_settings import SinkSettings
from llava_video.monitor.spool import Batch, Spool


class Stub:
    """A sink that does what it is told to, message by message."""

    def __init__(self, *acts: Exception | threading.Event | None) -> None:
        self.acts, self.tried, self.taken = list(acts), [], []
        self.is_closed = False

    def send(self, message: Message, body: bytes) -> None:
        self.tried.append(message.id)
        act = self.acts.pop(0) if self.acts else None
        if isinstance(act, threading.Event):
            act.wait(20)
        elif act is not None:
            raise act
        self.taken.append((message.id, body))

    def close(self) -> None:
        self.is_closed = True

    @property
    def ids(self) -> list[str]:
        return [own_id for own_id, _ in self.taken]


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool(tmp_path) as opened:
        yield opened


def until(holds: Callable[[], bool]) -> None:
    for _ in range(2000):
        if holds():
            return
        time.sleep(0.005)
    pytest.fail("it did not come")


def courier_of(spool: Spool, stub: Stub, name: str = "a", **more: float) -> Courier:
    settings = SinkSettings(name=name, **{"first_wait_s": 0.01, "most_wait_s": 0.05, **more})
    return Courier(spool, stub, settings, spool.folder, dice=lambda: 1.0)


def put(spool: Spool, *numbers: int, sinks: tuple[str, ...] = ("a",)) -> list[str]:
    messages = [message_of(number) for number in numbers]
    spool.put(Batch(messages=[(one, sinks) for one in messages]))
    return [one.id for one in messages]


def test_messages_are_delivered_in_order_and_new_ones_when_they_come(spool: Spool) -> None:
    stub = Stub()
    first = put(spool, 1, 2, 3)
    courier = courier_of(spool, stub)
    courier.start()
    until(lambda: len(stub.taken) == 3)
    second = put(spool, 4)
    courier.wake()
    until(lambda: spool.num_waiting() == {})
    courier.stop()
    assert courier.join(10)
    assert stub.ids == first + second
    assert stub.is_closed
    assert (courier.status.delivered, courier.status.problem) == (4, "")


def test_a_refused_message_is_tried_again_before_the_next(spool: Spool) -> None:
    stub = Stub(SinkError("no."), SinkError("no."), OSError("odd"), None, SinkError("no."))
    ids = put(spool, 1, 2)
    courier = courier_of(spool, stub)
    courier.start()
    until(lambda: spool.num_waiting() == {})
    courier.stop()
    courier.join(10)
    assert stub.tried == [ids[0]] * 4 + [ids[1]] * 2
    assert stub.ids == ids


def test_refusals_are_shown_with_the_time_until_the_next_try(
    spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    stub = Stub(*[SinkError("sink 'a' refused: HTTP status 503.")] * 3)
    put(spool, 1)
    courier = courier_of(spool, stub, first_wait_s=0.01, most_wait_s=60.0)
    courier.start()
    until(lambda: courier.status.tries == 1)
    until(lambda: courier.status.tries >= 2 or courier.status.waits_s > 0)
    assert courier.status.problem == "sink 'a' refused: HTTP status 503."
    until(lambda: spool.num_waiting() == {})
    until(lambda: courier.status.problem == "")
    courier.stop()
    courier.join(10)
    assert [one.message for one in caplog.records].count("sink 'a' refused: HTTP status 503.") == 1


def test_a_sink_that_hangs_holds_up_no_other(spool: Spool) -> None:
    release = threading.Event()
    hanging, other = Stub(release), Stub()
    ids = put(spool, 1, 2, sinks=("a", "b"))
    couriers = [courier_of(spool, hanging), courier_of(spool, other, "b")]
    for courier in couriers:
        courier.start()
    until(lambda: other.ids == ids)
    assert hanging.taken == []
    assert spool.num_waiting() == {"a": 2}
    for courier in couriers:
        courier.stop()
    assert couriers[1].join(10)
    assert not couriers[0].join(0.05)
    assert hanging.is_closed
    release.set()
    assert couriers[0].join(10)
    assert spool.num_waiting() == {"a": 1}  # it ended after the message under way


def test_where_the_mark_fails_only_the_mark_is_tried_again(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = Stub()
    ids = put(spool, 1, 2)
    marks, fails = spool.delivered, [LedgerError("full."), LedgerError("full.")]

    def mark(sink: str, seq: int) -> None:
        if fails:
            raise fails.pop()
        marks(sink, seq)

    monkeypatch.setattr(spool, "delivered", mark)
    courier = courier_of(spool, stub)
    courier.start()
    until(lambda: spool.num_waiting() == {})
    courier.stop()
    courier.join(10)
    assert stub.ids == ids


def test_a_watch_that_ends_waits_for_no_next_try(spool: Spool) -> None:
    stub = Stub(*[SinkError("no.")] * 9)
    put(spool, 1)
    courier = courier_of(spool, stub, first_wait_s=100.0, most_wait_s=100.0)
    courier.start()
    until(lambda: courier.status.waits_s > 50)
    courier.stop()
    assert courier.join(10)


def test_pictures_stand_beside_their_names(tmp_path: Path) -> None:
    files = [
        {"name": "a.jpg", "kind": "snapshot", "bytes": 3},
        {"name": "gone.jpg", "kind": "sheet", "bytes": 3},
        {"name": "a.mp4", "kind": "clip", "bytes": 3},
        {"name": "a.jpg", "kind": "sheet", "bytes": 2**30},
    ]
    (tmp_path / "a.jpg").write_bytes(b"jpg")
    body = json.loads(with_pictures(message_of(1, files=files), tmp_path))
    assert body["files"] == [
        {**files[0], "base64": base64.b64encode(b"jpg").decode()},
        {**files[1], "lost": True},
        *files[2:],
    ]
    assert json.loads(with_pictures(message_of(1), tmp_path)) == message_of(1).facts


def test_couriers_deliver_to_sinks_by_their_settings(spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "p.jpg").write_bytes(b"jpg")
    facts = {"files": [{"name": "p.jpg", "kind": "snapshot", "bytes": 3}]}
    with receiving([503, 200]) as receiver:
        sinks = (
            SinkSettings(
                name="hook", kind="webhook", address=receiver.address, secret="${K}",
                pictures=True, first_wait_s=0.01,
            ),
            SinkSettings(name="log", kind="jsonl", path=str(tmp_path / "log.jsonl")),
        )  # fmt: skip
        with Couriers(spool, sinks, {"K": "k"}, tmp_path) as couriers:
            spool.put(Batch(messages=[(message_of(1, **facts), ["hook", "log"])]))
            couriers.wake()
            until(lambda: spool.num_waiting() == {})
            until(lambda: [one.delivered for one in couriers.statuses] == [1, 1])
            assert [one.sink for one in couriers.statuses] == ["hook", "log"]
            assert couriers.close() == []
    ((_, body),) = receiver.taken
    assert json.loads(body)["files"][0]["base64"] == base64.b64encode(b"jpg").decode()
    assert "base64" not in (tmp_path / "log.jsonl").read_text()


def test_a_sink_that_was_away_gets_all_it_missed_in_order(spool: Spool) -> None:
    with receiving([500] * 6 + [200]) as receiver:
        sink = SinkSettings(
            name="hook", kind="webhook", address=receiver.address, secret="${K}",
            first_wait_s=0.01, most_wait_s=0.02,
        )  # fmt: skip
        with Couriers(spool, (sink,), {"K": "k"}, spool.folder) as couriers:
            ids = []
            for number in range(20):
                ids += put(spool, number, sinks=("hook",))
                couriers.wake()
            until(lambda: spool.num_waiting() == {})
    assert receiver.ids == ids
    assert receiver.num_asked == 26
