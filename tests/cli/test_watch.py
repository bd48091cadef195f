"""`llava-video watch`: a watch, a rehearsal and a check; how they end and what they refuse."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from watch_footage import oracle_of

from llava_video.api import LlavaVideo
from llava_video.cli import watch as command
from llava_video.errors import ServerError
from llava_video.monitor.questions import WindowAnswers, WindowFrames
from llava_video.monitor.rules import Observation, Rule
from llava_video.monitor.summary import WatchSummary
from llava_video.monitor.watch import Asker
from llava_video.world.bars import paint_index
from llava_video.world.clip import write_clip

# An object is there from 12 s to 20 s.
STATES = [0] * 12 + [1] * 8 + [0] * 12


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("watch") / "day.mp4"
    frames = [paint_index(state, 32, 64) for state in STATES]
    write_clip(path, frames, frame_rate_hz=1, codec_options={"preset": "ultrafast"})
    return path


@pytest.fixture
def rules(tmp_path: Path, day: Path) -> Path:
    path = tmp_path / "rules.yaml"
    values = {
        "cameras": [{"name": "gate", "address": str(day), "window_s": 4, "step_s": 4}],
        "rules": [{"name": "object", "question": "Is bit 0 set?", "cooldown_s": 0}],
        "sinks": [{"name": "log", "kind": "jsonl", "path": str(tmp_path / "alerts.jsonl")}],
    }
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture
def oracle(tiny_model: LlavaVideo, monkeypatch: pytest.MonkeyPatch) -> LlavaVideo:
    model = oracle_of(tiny_model)

    def load(console: Any, named: Any, **more: Any) -> LlavaVideo:
        assert more["engine"].kept_rows_bytes > 0  # a still camera is encoded once
        return model

    monkeypatch.setattr(command, "load_model", load)
    return model


def test_a_watch(run, rules: Path, oracle: LlavaVideo, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = run("watch", "--rules", rules, "--out", out, "--pace", "fast")
    assert (outcome.status, outcome.out) == (0, "")
    warned, summary = outcome.err.rsplit("\n1 alerts; windows: ", 1)
    assert warned == "warning: gate: Every frame is black."  # once, of six windows
    assert summary.startswith("3 asked, 5 reused; ")
    told = [json.loads(line) for line in (tmp_path / "alerts.jsonl").read_text().splitlines()]
    assert [one["kind"] for one in told] == ["alert", "update"]
    assert "indices" in told[1]["description"]
    assert (out / "why.jsonl").stat().st_size > 100
    evidence = {path.name.split("-")[1] for path in (out / "evidence").iterdir()}
    assert evidence == {"snapshot.jpg", "sheet.jpg"}


def test_a_rehearsal(run, rules: Path, oracle: LlavaVideo, day: Path, tmp_path: Path) -> None:
    labels = tmp_path / "day.csv"
    labels.write_text("start,end,rule\n12,20,object\n")
    replay = ("watch", "--rules", rules, "--replay", day, "--out", tmp_path / "out")
    outcome = run(*replay, "--labels", labels, "--curve")
    assert outcome.status == 0
    row = next(line for line in outcome.out.splitlines() if line.startswith("object"))
    assert row.split()[1:5] == ["100.0%", "100.0%", "1", "0"]
    assert "best" in outcome.out
    assert not (tmp_path / "alerts.jsonl").exists()  # nobody was told
    why = tmp_path / "out" / "rehearsal" / "why.jsonl"
    num_lines = len(why.read_text().splitlines())

    labels.write_text("start,end,rule\n12,20,object\n25,27,object\n")
    outcome = run(*replay, "--labels", labels, "--slack", "0")
    assert outcome.status == 3
    assert "missed  object 25-27 s: answered no, as before (100%)" in outcome.out
    assert run(*replay, "--labels", labels, "--least", "0.5").status == 0
    assert len(why.read_text().splitlines()) == num_lines  # each rehearsal begins its own

    outcome = run(*replay, "--starts-at", "2026-01-31T20:00:00")
    assert outcome.status == 0
    assert outcome.out.startswith("20:00:16 gate, object: raised")


def asks(monkeypatch: pytest.MonkeyPatch, ask: Callable[..., WindowAnswers]) -> None:
    """Let something else answer than the model."""
    monkeypatch.setattr("llava_video.monitor.watch.asker_of", lambda *_, **__: Asker(ask=ask))


@pytest.mark.parametrize("has_labels", [False, True])
def test_a_rehearsal_without_answers_fails_and_says_why_once(
    run, rules: Path, oracle: LlavaVideo, day: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, has_labels: bool,
) -> None:  # fmt: skip
    def fails(window: WindowFrames, due: Sequence[Rule]) -> WindowAnswers:
        raise ServerError("the server at 10.0.0.7 is not reached.", "start it.")

    asks(monkeypatch, fails)
    labels = tmp_path / "none.csv"
    labels.write_text("start,end,rule\n")  # precision and recall of nothing are whole
    more = ("--labels", labels) if has_labels else ()
    outcome = run("watch", "--rules", rules, "--replay", day, "--out", tmp_path / "out", *more)
    assert outcome.status == 1
    assert outcome.err.count("the server at 10.0.0.7 is not reached.") == 1
    assert "warning: gate: no answer: the server" in outcome.err


@pytest.mark.parametrize("has_labels", [False, True])
def test_a_rehearsal_tells_what_its_answers_warn_of_once(
    run, rules: Path, oracle: LlavaVideo, day: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, has_labels: bool,
) -> None:  # fmt: skip
    def warns(window: WindowFrames, due: Sequence[Rule]) -> WindowAnswers:
        words = f"The model knows the small world alone, of {len(window.frames)} frames."
        given = {"start_s": window.start_s, "at_s": window.end_s, "warnings": (words,)}
        seen = {rule.name: Observation(**given, value="no", confidence=0.9) for rule in due}
        return WindowAnswers(observations=seen, num_asked=1, reused_tokens=0, seconds={})

    asks(monkeypatch, warns)
    labels = tmp_path / "none.csv"
    labels.write_text("start,end,rule\n")
    more = ("--labels", labels) if has_labels else ()
    outcome = run("watch", "--rules", rules, "--replay", day, "--out", tmp_path / "out", *more)
    assert outcome.status == 0
    assert outcome.err.count("knows the small world alone") == 1
    words = "warning: gate: The model knows the small world alone, of 4 frames. (8 windows)\n"
    assert words in outcome.err


def test_a_check(run, rules: Path, oracle: LlavaVideo, tiny_folder: Path) -> None:
    model = ("-m", tiny_folder, "--device", "cpu")
    outcome = run("watch", "--check", rules, *model)
    assert outcome.status == 0
    lines = dict(line[8:].split(": ", 1) for line in outcome.out.splitlines())
    assert set(lines) == {"camera gate", "sink log", "model, camera gate"}
    assert "4 of 4 frames" in lines["model, camera gate"]
    outcome = run("watch", "--check", rules, "--probe", *model)
    assert outcome.status == 0
    assert "it keeps up." in outcome.out
    outcome = run("watch", "--check", rules, "--set", "cameras.0.address=nowhere.mp4", *model)
    assert (outcome.status, "error   camera gate: " in outcome.out) == (1, True)


def test_what_is_refused(refused: Callable[..., str], rules: Path, day: Path) -> None:
    assert "--rules is missing" in refused("watch", day)
    assert "both given" in refused("watch", day, "--rules", rules, "--replay", day)
    assert "--labels" in refused("watch", "--rules", rules, "--replay", day, "--curve")
    assert "yard" in refused("watch", f"yard={day}", "--rules", rules)
    assert "queue_window" in refused("watch", "--rules", rules, "--loop", "queue_window=3")
    assert "--loop" in refused("watch", "--rules", rules, "--loop", "queue_windows")
    assert "--page" in refused("watch", "--rules", rules, "--page", "here")
    wrong = ("--replay", day, "--starts-at", "yesterday")
    assert "yesterday" in refused("watch", "--rules", rules, *wrong)
    secret = "rtsp://me:hush@10.0.0.7/"
    assert "hush" not in refused("watch", secret, "--rules", rules)
    unset = "rtsp://me:${NO_SUCH_SECRET}@10.0.0.7/"
    assert "NO_SUCH_SECRET" in refused("watch", unset, "--rules", rules)


def test_a_page_for_others_says_so(run, rules: Path, oracle: LlavaVideo, tmp_path: Path) -> None:
    arguments = ("watch", "--rules", rules, "--out", tmp_path / "out", "--pace", "fast")
    outcome = run(*arguments, "--page", "0.0.0.0:0")
    assert "has no password" in outcome.err
    assert "page: http://0.0.0.0:" in outcome.err
    assert "has no password" not in run(*arguments, "--page", ":0").err


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c(run, rules: Path, oracle: LlavaVideo, tmp_path: Path, times: int) -> None:
    def press() -> None:
        why = tmp_path / "out" / "why.jsonl"
        until_s = time.monotonic() + 30
        while not why.exists() and time.monotonic() < until_s:
            time.sleep(0.05)
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    thread = threading.Thread(target=press)
    thread.start()
    started_s = time.monotonic()
    outcome = run("watch", "--rules", rules, "--out", tmp_path / "out")  # 32 s at its own speed
    thread.join()
    assert outcome.status == 130
    assert time.monotonic() - started_s < 25
    assert "finishing what is under way" in outcome.err


@pytest.mark.parametrize(
    "words", [["--labels", "day.csv"], ["--curve"], ["--least", "0.5"], ["--slack", "2"]]
)
def test_options_of_a_rehearsal_start_no_watch(run, rules: Path, words: list[str]) -> None:
    outcome = run("watch", "--rules", rules, *words)
    assert outcome.status == 1
    assert f"{words[0]} is of a rehearsal.\nhint:  --replay FILE runs one." in outcome.err


def test_a_stream_is_not_rehearsed(run, rules: Path, oracle: LlavaVideo, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = run("watch", "--rules", rules, "--out", out, "--replay", "rtsp://host/ch1?user=me")
    assert outcome.status == 1
    assert "rtsp://host/ch1 is no recording" in outcome.err


def test_a_sink_of_an_earlier_watch_is_forgotten(
    run, rules: Path, oracle: LlavaVideo, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ("watch", "--rules", rules, "--out", out, "--pace", "fast", "--forget-sink")
    assert "0 messages for 'siren' are let go." in run(*words, "siren").err
    assert run(*words, "log").status == 1


@pytest.mark.parametrize(
    ("held", "is_stopped", "status"), [(0, True, 130), (2, True, 3), (2, False, 3), (0, False, 0)]
)
def test_messages_that_no_disk_had_room_for_are_told_however_it_ends(
    run, rules: Path, oracle: LlavaVideo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    held: int, is_stopped: bool, status: int,
) -> None:  # fmt: skip
    summary = WatchSummary(
        windows={}, alerts=2, waiting={}, held=held, errors={}, num_cameras=1, is_stopped=is_stopped
    )
    monkeypatch.setattr("llava_video.monitor.watch.run_watch", lambda *_, **__: summary)
    outcome = run("watch", "--rules", rules, "--out", tmp_path / "out")
    assert outcome.status == status
    assert ("found no room on the disk and are lost" in outcome.err) == bool(held)
