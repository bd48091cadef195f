"""Before a watch starts, whatever would go wrong is named, and no secret is told."""

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monitor_cases import receiving
from watch_footage import oracle_of, settings_of

from llava_video.api import LlavaVideo
from llava_video.errors import BudgetError
from llava_video.monitor.check import Finding, check_watch, probe_watch
from llava_video.monitor.settings import WatchSettings, rules_of
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
