"""Cameras become alerts; what is not looked at is told of; ends and restarts lose nothing."""

import http.client
import io
import json
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from watch_footage import START_S, Day, FakeStreams, oracle_of, picture_of, settings_of

from llava_video.api import LlavaVideo
from llava_video.engine.request import Event, Request
from llava_video.errors import AccessRefusedError, CapacityError, ConfigError, LedgerError
from llava_video.monitor.instructions import GUARD
from llava_video.monitor.loop_settings import LoopSettings
from llava_video.monitor.questions import WindowAnswers, WindowFrames
from llava_video.monitor.rules import Observation, Rule
from llava_video.monitor.settings import WatchSettings
from llava_video.monitor.spool import Spool
from llava_video.monitor.summary import WatchSummary
from llava_video.monitor.trace import read_trace
from llava_video.monitor.updates import UpdateWriter
from llava_video.monitor.watch import Asker, asker_of, run_watch
from llava_video.video.stream_events import Mark, StreamFrame
from llava_video.world.bars import read_index


def frames(states: Sequence[int], first: int = 0) -> Iterator[StreamFrame]:
    """Yield a frame a second."""
    for second, state in enumerate(states, first):
        picture = picture_of(state).astype("uint8")
        yield StreamFrame(idx=second, picture=picture, pts_s=float(second), wall_s=START_S + second)


def settings(folder: Path, names: tuple[str, ...] = ("gate",), **camera: Any) -> WatchSettings:
    log = {"name": "log", "kind": "jsonl", "path": str(folder / "alerts.jsonl")}
    return settings_of(names, [log], window_s=4, step_s=4, **camera)


def bars(window: WindowFrames, rules: Sequence[Rule]) -> WindowAnswers:
    """Say of every rule whether bit 0 is set: a stand-in that takes no time."""
    is_there = read_index(window.frames[-1]) & 1
    seen = {
        rule.name: Observation(
            start_s=window.start_s, at_s=window.end_s, confidence=0.9,
            value=("yes" if is_there else "no") if rule.name == "object" else 0,
        )
        for rule in rules
    }  # fmt: skip
    return WindowAnswers(observations=seen, num_asked=len(rules), reused_tokens=0, seconds={})


def watched(
    folder: Path, made: WatchSettings, streams: FakeStreams, asker: Asker | None = None, **more: Any
) -> WatchSummary:
    return run_watch(
        made, asker or Asker(ask=bars, describe=lambda window: ("an object", ())), folder / "watch",
        environ={}, open_streams=lambda _: streams, **{"pace": "fast", **more},
    )  # fmt: skip


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "alerts.jsonl").read_text().splitlines()]


def test_two_cameras_one_model(tiny_model: LlavaVideo, tmp_path: Path) -> None:
    made = settings(tmp_path, ("gate", "yard"))
    days = {name: Day(260, seed=seed, every_s=30) for name, seed in (("gate", 3), ("yard", 5))}
    streams = FakeStreams({name: day.frames() for name, day in days.items()})
    summary = watched(tmp_path, made, streams, asker_of(oracle_of(tiny_model), made))
    told = lines(tmp_path)
    alerts = [one for one in told if one["kind"] == "alert"]
    wanted = {
        (name, label.rule, label.start_s) for name, day in days.items() for label in day.labels
    }
    assert len(alerts) == len(wanted) == summary.alerts >= 3
    for one in alerts:
        assert any(
            (camera, rule) == (one["camera"], one["rule"]) and 0 <= at - START_S - start <= 10
            for camera, rule, start in wanted
            for at in [one["at_s"]]
        ), one
    updates = {one["alert_id"]: one for one in told if one["kind"] == "update"}
    assert set(updates) == {one["alert_id"] for one in alerts}
    assert all("show the indices" in one["description"] for one in updates.values())
    kinds = {one["files"][0]["kind"] for one in updates.values()}
    assert (kinds, {one["files"][0]["kind"] for one in alerts}) == ({"sheet"}, {"snapshot"})
    assert (summary.exit_status, summary.waiting, streams.is_closed) == (0, {}, True)


def test_a_model_that_is_too_slow_costs_windows_which_are_told(tmp_path: Path) -> None:
    go = threading.Event()

    def slow(window: WindowFrames, rules: Sequence[Rule]) -> WindowAnswers:
        assert go.wait(20)
        return bars(window, rules)

    def events() -> Iterator[StreamFrame]:
        yield from frames([second // 4 % 2 for second in range(80)])
        go.set()

    loop = LoopSettings(queue_windows=3)
    streams = FakeStreams({"gate": events()})
    summary = watched(
        tmp_path, settings(tmp_path), streams, Asker(ask=slow), pace="real", loop=loop
    )
    trace = [line for line in read_trace(tmp_path / "watch") if line.get("rule") == "object"]
    dropped = [line for line in trace if line["why"] == "dropped"]
    assert [line["window"] for line in trace] == list(range(20))  # each once, in order
    assert len(dropped) == summary.windows["dropped"] >= 15
    assert {line["reason"] for line in dropped} == {"the model was busy"}
    assert sum(summary.windows.values()) == 20


def test_an_alert_that_waited_for_the_model_keeps_the_time_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, seen = threading.Event(), list[tuple[float, ...]]()

    def slow(window: WindowFrames, rules: Sequence[Rule]) -> WindowAnswers:
        assert window.end_s - START_S != 32 or full.wait(20)
        return bars(window, rules)

    def events() -> Iterator[StreamFrame]:
        for one in frames([second in range(28, 32) for second in range(60)]):
            if one.pts_s == 53:  # those that end at 36 to 52 wait
                full.set()
            yield one

    monkeypatch.setattr(UpdateWriter, "put", lambda _, told: seen.append(told.times_s))
    loop = LoopSettings(evidence_frames=64, queue_windows=5)
    watched(tmp_path, settings(tmp_path), FakeStreams({"gate": events()}), Asker(ask=slow),
            loop=loop)  # fmt: skip
    assert [[when - START_S for when in times_s] for times_s in seen] == [list(range(18, 33))]


def test_a_recording_that_is_read_fast_loses_no_window(tmp_path: Path) -> None:
    loop = LoopSettings(queue_windows=1)
    streams = FakeStreams({"gate": frames([second // 8 % 2 for second in range(160)])})
    summary = watched(tmp_path, settings(tmp_path), streams, loop=loop)
    assert summary.windows == {"asked": 20, "reused": 20}
    assert summary.alerts == 10


def test_stopping_finishes_what_is_under_way_and_drops_what_waits(tmp_path: Path) -> None:
    stop, asked, go = threading.Event(), threading.Event(), threading.Event()

    def slow(window: WindowFrames, rules: Sequence[Rule]) -> WindowAnswers:
        asked.set()
        assert go.wait(20)
        return bars(window, rules)

    def events() -> Iterator[StreamFrame]:
        yield from frames([1] * 12)
        assert asked.wait(20)
        stop.set()
        threading.Timer(0.2, go.set).start()
        yield from frames([1] * 4, 12)

    streams = FakeStreams({"gate": events()})
    summary = watched(
        tmp_path, settings(tmp_path), streams, Asker(ask=slow), pace="real", stopping=stop
    )
    assert summary.is_stopped
    trace = [line for line in read_trace(tmp_path / "watch") if line.get("rule") == "object"]
    assert trace[0]["why"] == "raised"
    assert {line["why"] for line in trace[1:]} == {"dropped"}
    assert {line["reason"] for line in trace[1:]} == {"the watch was stopped"}
    assert lines(tmp_path)[0]["kind"] == "alert"


def test_a_restart_goes_on_with_what_rules_remember(tmp_path: Path) -> None:
    made = settings(tmp_path)
    for first in (0, 100, 200):
        watched(tmp_path, made, FakeStreams({"gate": frames([1] * 8, first)}))
    watched(tmp_path, made, FakeStreams({"gate": frames([0] * 8 + [1] * 8, 300)}))
    numbers = [one["number"] for one in lines(tmp_path) if one["kind"] == "alert"]
    assert numbers == [1, 2]  # one that held over two restarts, and one after it was over


def test_an_update_that_was_lost_is_told_of(tmp_path: Path) -> None:
    made = settings(tmp_path)
    none = LoopSettings(stop_s=0)
    stop, begun, go = threading.Event(), threading.Event(), threading.Event()

    def hangs(window: WindowFrames) -> tuple[str, tuple[str, ...]]:
        begun.set()
        go.wait(20)
        return "late", ()

    def events() -> Iterator[StreamFrame]:
        yield from frames([1] * 8)
        assert begun.wait(20)
        stop.set()
        yield from frames([1], 8)

    streams = FakeStreams({"gate": events()})
    watched(tmp_path, made, streams, Asker(ask=bars, describe=hangs), loop=none, stopping=stop)
    go.set()
    watched(tmp_path, made, FakeStreams({"gate": frames([])}))
    (update,) = [one for one in lines(tmp_path) if one["kind"] == "update"]
    assert update["problem"] == "the watch was restarted before it was described."


def test_a_camera_that_refuses_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    notes: list[tuple[str, str]] = []
    refused = AccessRefusedError("rtsp://10.0.0.7/ refuses the password.")
    ended = Mark(kind="ended", wall_s=START_S, text="refused")
    streams = FakeStreams(
        {"gate": iter([ended]), "yard": frames([0] * 4 + [1] * 8)}, {"gate": refused}
    )
    made = settings(tmp_path, ("gate", "yard"))
    summary = watched(
        tmp_path, made, streams, on_note=lambda camera, text: notes.append((camera, text))
    )
    assert (summary.exit_status, summary.alerts) == (3, 1)
    assert summary.errors["gate"].startswith("rtsp://10.0.0.7/ refuses the password.")
    assert [camera for camera, text in notes if "password" in text] == ["gate"]
    marks = [line for line in read_trace(tmp_path / "watch") if "mark" in line]
    assert [(line["camera"], line["mark"]) for line in marks] == [("gate", "ended")]


def test_a_watch_without_answers_says_so_once_and_when_they_come_again(tmp_path: Path) -> None:
    is_down, told, notes = threading.Event(), threading.Event(), list[tuple[str, str]]()
    is_down.set()

    def note(camera: str, text: str) -> None:
        notes.append((camera, text))
        told.set()

    def asks(window: WindowFrames, rules: Sequence[Rule]) -> WindowAnswers:
        if is_down.is_set():
            raise CapacityError("no server at 10.0.0.7.")
        return bars(window, rules)

    def watch(events: Iterator[StreamFrame]) -> WatchSummary:
        streams = FakeStreams({"gate": events})
        return watched(tmp_path, settings(tmp_path), streams, Asker(ask=asks), on_note=note)

    summary = watch(frames([0] * 16))
    assert notes == [("gate", "no answer: no server at 10.0.0.7.")]
    assert (summary.windows, summary.exit_status) == ({"failed": 4}, 1)

    told.clear()

    def events() -> Iterator[StreamFrame]:
        yield from frames([0] * 8, 100)
        assert told.wait(20)
        is_down.clear()
        yield from frames([0] * 16, 108)

    summary = watch(events())
    assert notes[2:] == [("gate", "every question is answered again.")]
    assert (summary.windows["asked"] > 0, summary.exit_status) == (True, 0)


@pytest.mark.parametrize("guard", [True, False])
def test_descriptions_are_guarded_where_questions_are(tiny_model: LlavaVideo, guard: bool) -> None:
    oracle, prompts = oracle_of(tiny_model), list[str]()

    class Heard:
        def run(self, requests: Iterable[Request]) -> Iterator[Event]:
            for request in requests:
                prompts.append(tiny_model.spec.tokenizer.decode(request.text_ids))
                yield from oracle.engine.run([request])

    made = replace(settings_of(), guard=guard)
    asker = asker_of(LlavaVideo(tiny_model.spec, Heard()), made)
    window = WindowFrames(
        frames=np.stack([picture_of(1)] * 2).astype("uint8"), times_s=(0.0, 1.0), start_s=0.0,
        end_s=2.0,
    )  # fmt: skip
    asker.ask(window, made.rules[:1])
    assert asker.describe is not None
    asker.describe(window)
    assert [GUARD in prompt for prompt in prompts] == [guard, guard]


def test_what_breaks_the_models_thread_breaks_the_watch(tmp_path: Path) -> None:
    def breaks(window: WindowFrames, rules: Sequence[Rule]) -> WindowAnswers:
        raise SystemExit("broken")

    streams = FakeStreams({"gate": frames([0] * 400)})
    with pytest.raises(SystemExit, match="broken"):
        watched(tmp_path, settings(tmp_path), streams, Asker(ask=breaks))
    assert streams.is_closed


def test_what_found_no_room_to_the_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Spool, batch: object) -> int:
        raise LedgerError("no room.")

    monkeypatch.setattr(Spool, "put", full)
    notes = list[str]()
    summary = watched(
        tmp_path, settings(tmp_path), FakeStreams({"gate": frames([0] * 4 + [1] * 8)}),
        loop=LoopSettings(stop_s=0), on_note=lambda camera, text: notes.append(text),
    )  # fmt: skip
    assert (summary.alerts, summary.held, summary.exit_status) == (1, 2, 3)
    assert notes == ["no room. What is to be told waits in memory until there is room."]


def test_terminals_are_told_and_sinks_that_are_gone_are_named(tmp_path: Path) -> None:
    notes: list[str] = []
    (tmp_path / "nowhere").write_text("no folder")
    gone = {"name": "gone", "kind": "jsonl", "path": str(tmp_path / "nowhere" / "log")}
    screen = io.StringIO()
    more: dict[str, Any] = {"loop": LoopSettings(stop_s=0.1), "terminal": screen}
    made = settings_of(("gate",), [{"name": "screen", "kind": "terminal"}, gone], window_s=4)
    summary = watched(tmp_path, made, FakeStreams({"gate": frames([1] * 8)}), **more)
    assert "gate: object" in screen.getvalue()
    assert summary.waiting == {"gone": 2}
    made = settings_of(("gate",), window_s=4)
    more["on_note"] = lambda camera, text: notes.append(text)
    summary = watched(tmp_path, made, FakeStreams({"gate": frames([])}), **more)
    assert summary.waiting == {}  # nobody will take them
    (note,) = notes
    assert note.startswith("2 messages wait for 'gone', which is no sink now")
    assert "--forget-sink gone" in note
    notes.clear()
    watched(tmp_path, made, FakeStreams({"gate": frames([])}), forget_sinks=["gone"], **more)
    assert notes == ["2 messages for 'gone' are let go."]
    with Spool(tmp_path / "watch") as spool:
        assert spool.num_waiting() == {}


def test_a_sink_that_is_served_is_not_forgotten(tmp_path: Path) -> None:
    made = settings_of(("gate",), [{"name": "screen", "kind": "terminal"}], window_s=4)
    with pytest.raises(ConfigError, match="'screen' is a sink still"):
        watched(tmp_path, made, FakeStreams({"gate": frames([])}), forget_sinks=["screen"])


def test_missing_secrets_are_named_before_anything_is_opened(tmp_path: Path) -> None:
    made = settings_of(("gate",))
    address = "rtsp://me:${NO_SUCH_SECRET}@10.0.0.7/"
    made = type(made)(
        cameras=(type(made.cameras[0])(name="gate", address=address),), rules=made.rules
    )
    with pytest.raises(ConfigError, match="NO_SUCH_SECRET"):
        watched(tmp_path, made, FakeStreams({}))
    assert not (tmp_path / "watch").exists()


def test_an_alert_is_on_the_page_within_two_seconds(tmp_path: Path) -> None:
    raised_s: list[float] = []
    address: list[str] = []
    seen, over = threading.Event(), threading.Event()

    def events() -> Iterator[StreamFrame]:
        yield from frames([0] * 8)
        assert seen.wait(20)  # the viewer is there
        raised_s.append(time.monotonic())
        yield from frames([1] * 5, 8)
        assert over.wait(20)

    def note(camera: str, text: str) -> None:
        if text.startswith("page: "):
            address.append(text.removeprefix("page: http://127.0.0.1:").rstrip("/"))

    streams = FakeStreams({"gate": events()})
    arguments = (tmp_path, settings(tmp_path), streams)
    more = {"page": ("127.0.0.1", 0), "on_note": note}
    thread = threading.Thread(target=watched, args=arguments, kwargs=more)
    thread.start()
    while not address:
        time.sleep(0.01)
    connection = http.client.HTTPConnection("127.0.0.1", int(address[0]), timeout=20)
    connection.request("GET", "/events")
    response = connection.getresponse()
    while True:
        line = response.fp.readline()
        seen.set()
        if line.startswith(b"data: ") and (alerts := json.loads(line[6:])["alerts"]):
            break
    took_s = time.monotonic() - raised_s[0]
    connection = http.client.HTTPConnection("127.0.0.1", int(address[0]), timeout=20)
    connection.request("GET", f"/evidence/{alerts[0]['files'][0]['name']}")
    picture = connection.getresponse()
    assert (picture.status, picture.read(2)) == (200, b"\xff\xd8")
    over.set()
    thread.join(20)
    assert took_s < 2.0
    assert (alerts[0]["camera"], alerts[0]["rule"]) == ("gate", "object")
