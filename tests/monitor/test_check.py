"""Before a watch starts, whatever would go wrong is named, and no secret is told."""

import re
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from monitor_cases import receiving
from watch_footage import oracle_of, settings_of

from llava_video.api import LlavaVideo
from llava_video.engine.request import Event, Finished, Request
from llava_video.errors import BackendMissingError, BudgetError, ConfigError
from llava_video.monitor.check import Finding, check_watch, probe_watch
from llava_video.monitor.settings import WatchSettings, read_rules, rules_of
from llava_video.monitor.watch import asker_of
from llava_video.values import Plan
from llava_video.world.bars import paint_index
from llava_video.world.clip import write_clip

SECRETS = {"PASSWORD": "hush&/:", "HOOK": "hush"}


def rules(sinks: Sequence[dict[str, Any]] = (), **camera: Any) -> WatchSettings:
    address = "rtsp://me:${PASSWORD}@127.0.0.1:9/ch1"
    return rules_of(
        {
            "cameras": [{"name": "gate", "address": address, **camera}],
            "rules": [{"name": "object", "question": "Is bit 0 set?"}],
            "sinks": list(sinks),
        }
    )


def hook(address: str) -> dict[str, Any]:
    return {"name": "hook", "kind": "webhook", "address": address, "secret": "${HOOK}"}


def by_about(findings: Sequence[Finding]) -> dict[str, tuple[str, str]]:
    assert not any("hush" in one.words for one in findings)
    return {one.about: (one.level, one.words) for one in findings}


def test_a_good_file(tmp_path: Path) -> None:
    sinks = [
        hook("https://control.example.org/x"), {"name": "screen"},
        {"name": "log", "kind": "jsonl", "path": str(tmp_path / "log")},
        {"name": "run", "kind": "command", "command": ["sh", "-c", "true"]},
    ]  # fmt: skip
    found = by_about(list(check_watch(rules(sinks), SECRETS)))
    assert {level for level, _ in found.values()} == {"ok"}
    assert "rtsp://127.0.0.1:9/ch1" in found["camera gate"][1]
    assert "8 frames a window" in found["camera gate"][1]
    assert found["sink hook"][1] == "control.example.org:443"


def test_what_would_not_work_is_an_error(tmp_path: Path) -> None:
    sinks = [
        hook("https://control.example.org/x"),
        {"name": "log", "kind": "jsonl", "path": str(tmp_path / "nowhere" / "log")},
        {"name": "run", "kind": "command", "command": ["/no/such/program"]},
    ]
    made = rules(sinks, address="gopher://10.0.0.7/")
    found = by_about(list(check_watch(made, {})))
    assert found["environment"] == ("error", "HOOK is not set.")
    errors = {about for about, (level, _) in found.items() if level == "error"}
    assert errors == {"environment", "camera gate", "sink log", "sink run"}
    assert "sink hook" not in found  # its secret is not there


def test_a_watch_that_tells_nobody_is_a_warning() -> None:
    assert by_about(list(check_watch(rules(), SECRETS)))["sinks"][0] == "warning"


def test_the_models_plan(tiny_model: LlavaVideo) -> None:
    plans: list[Plan] = []

    def plan(video: Any, question: str) -> Plan:
        assert "Is bit 0 set?" in question
        plans.append(tiny_model.plan(video, question))
        return plans[-1]

    level, words = by_about(list(check_watch(rules(), SECRETS, plan)))["model, camera gate"]
    assert level == "ok"
    assert f"8 of 8 frames, {plans[0].visual_tokens} visual tokens" in words

    def refuse(video: Any, question: str) -> Plan:
        raise BudgetError("too many tokens.", "fewer frames")

    level, words = by_about(list(check_watch(rules(), SECRETS, refuse)))["model, camera gate"]
    assert (level, "too many tokens" in words) == ("error", True)


def test_probing_reaches_everybody_and_times_a_window(
    tiny_model: LlavaVideo, tmp_path: Path
) -> None:
    clip = tmp_path / "a.mp4"
    write_clip(clip, [paint_index(1, 32, 64)] * 12, frame_rate_hz=1)
    with receiving() as receiver, socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
        taken.close()
        sinks = [hook(receiver.address), {**hook(f"http://127.0.0.1:{free}/"), "name": "gone"}]
        made = rules(sinks, address=str(clip))
        ask = asker_of(oracle_of(tiny_model), made).ask
        found = by_about(list(probe_watch(made, SECRETS, ask)))
        assert receiver.num_asked == 0  # nobody is told anything
    assert found["camera gate"] == ("ok", "h264 64 x 32, pictures come.")
    assert "s a window; object: 'yes'" in found["model, camera gate"][1]
    assert "it keeps up." in found["model"][1]
    assert (found["sink hook"][0], found["sink gone"][0]) == ("ok", "error")


class Unsure:
    """An engine that gives no probability, as a server without log-probabilities."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def run(self, requests: Iterable[Request]) -> Iterator[Event]:
        for event in self._engine.run(requests):
            if isinstance(event, Finished):
                event = replace(event, answer=replace(event.answer, confidence=None))
            yield event


def test_probing_a_server_without_probabilities_is_an_error_where_a_rule_names_one(
    tiny_model: LlavaVideo, tmp_path: Path
) -> None:
    clip = tmp_path / "a.mp4"
    write_clip(clip, [paint_index(1, 32, 64)] * 12, frame_rate_hz=1)
    model = LlavaVideo(tiny_model.spec, Unsure(oracle_of(tiny_model).engine))
    for confidence, expected in ((None, "ok"), (0.5, "error")):
        plain = rules(address=str(clip))
        made = replace(plain, rules=(replace(plain.rules[0], confidence=confidence),))
        found = by_about(list(probe_watch(made, SECRETS, asker_of(model, made).ask)))
        level, words = found["model, camera gate"]
        assert level == expected
        assert ("hint: leave `confidence` out of rule 'object'" in words) == (expected == "error")


CAMERA = {"name": "gate", "address": "rtsp://127.0.0.1/1"}
RULE = {"name": "object", "question": "Is bit 0 set?"}
BROKER = {"name": "b", "kind": "mqtt", "address": "mqtt://127.0.0.1", "topic": "a/b"}


def about(field: str, **schema: Any) -> dict[str, Any]:
    """Return a file with a rule about a field of a json answer."""
    when = {"field": field, "equals": 1}
    return {"rules": [{**RULE, "answer": {"type": "json", "schema": schema}, "when": when}]}


@pytest.mark.parametrize(
    ("changes", "sources", "told"),
    [
        ({"cameras": 5}, ["x.mp4"], "cameras = 5"),
        ({"cameras": 0}, ["x.mp4"], "cameras = 0"),
        ({"cameras": {"name": "gate"}}, ["x.mp4"], "cameras = "),
        ({"rules": 5}, ["x.mp4"], "rules = 5"),
        ({"rules": "object"}, ["x.mp4"], "rules = 'object'"),
        ({"rules": 5}, [], "rules = 5"),
        (about("a.b", type="object", properties={"a": False}), [], "never a 'a'"),
        (about("0.b", type="array", items=False), [], "never a '0'"),
        ({"cameras": [{**CAMERA, "window_s": float("inf")}]}, [], "window_s = inf"),
        ({"cameras": [{**CAMERA, "stall_timeout_s": float("inf")}]}, [], "stall_timeout_s = inf"),
        ({"sinks": [{**BROKER, "timeout_s": float("inf")}]}, [], "timeout_s = inf"),
        ({"sinks": [BROKER]}, [], "paho-mqtt .* is not installed"),
        ({"sinks": [{**BROKER, "topic": "a/#"}]}, [], "the topic of sink 'b' is 'a/#'"),
        ({"sinks": [{**BROKER, "topic": "a/+/b"}]}, [], "the topic of sink 'b'"),
    ],
)
def test_bad_input_is_told_with_a_hint_and_never_ends_in_a_traceback(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    sources: list[str],
    told: str,
) -> None:
    def missing(name: str) -> None:
        raise BackendMissingError(f"paho-mqtt (for {name}) is not installed.", "pip install it")

    monkeypatch.setattr("llava_video.monitor.check.require", missing)
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"cameras": [CAMERA], "rules": [RULE], **changes}))
    try:
        made = read_rules(path, sources=sources)
    except ConfigError as error:
        words = [str(error)]
    else:
        words = [one.words for one in check_watch(made, {}) if one.level == "error"]
    (found,) = words
    assert re.search(told, found)
    assert "hint: " in found


@pytest.mark.parametrize(
    "changes",
    [
        about("a.b", type="object", properties={"a": True}),
        about("0.b", type="array", items=True),
    ],
)
def test_a_schema_that_allows_anything_allows_any_field(changes: dict[str, Any]) -> None:
    made = rules_of({"cameras": [CAMERA], "rules": [RULE], **changes})
    assert not [one for one in check_watch(made, {}) if one.level == "error"]


def test_a_camera_that_shows_nothing_is_an_error() -> None:
    (camera, *_) = probe_watch(rules(), SECRETS, timeout_s=1.5)
    assert (camera.about, camera.level) == ("camera gate", "error")
    assert "hush" not in camera.words


def test_a_model_that_is_too_slow_is_a_warning(tmp_path: Path) -> None:
    from llava_video.monitor.check import _keeps_up

    found = _keeps_up(settings_of(("gate", "yard")), {"gate": 3.0, "yard": 3.0})
    assert (found.level, found.words[:4]) == ("warning", "150%")


def test_an_address_that_cannot_be_used_is_an_error_and_not_reached(tmp_path: Path) -> None:
    clip = tmp_path / "a.mp4"
    write_clip(clip, [paint_index(1, 32, 64)] * 12, frame_rate_hz=1)
    made = rules([hook("${URL}")], address=str(clip))
    with receiving() as receiver:
        host = receiver.address.removeprefix("http://")
        for address in (f"http://me:hush@{host}", "http://[::1"):
            environ = {**SECRETS, "URL": address}
            for findings in (check_watch(made, environ), probe_watch(made, environ)):
                assert by_about(list(findings))["sink hook"][0] == "error"


def test_an_address_without_a_host_is_an_error() -> None:
    found = by_about(list(check_watch(rules([hook("http:///x")]), SECRETS)))
    assert found["sink hook"][0] == "error"
