"""A rules file is read whole, and everything that is wrong with it is told before it runs."""

import contextlib
import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from monitor_cases import PERSON, person, watch

from llava_video.config import to_mapping, to_yaml
from llava_video.errors import ConfigError
from llava_video.monitor.answer_type import AnswerType
from llava_video.monitor.condition import Condition
from llava_video.monitor.settings import (
    DEFAULT_CONFIDENCE,
    CameraSettings,
    Rule,
    WatchSettings,
    read_rules,
    rules_of,
)
from llava_video.video.settings import StreamSettings

GATE = {"name": "gate", "address": "rtsp://me:${P}@h/1"}
NUMBER = {"type": "number", "at_least": 0, "at_most": 9}


NUMBERS = {
    "cars": {"type": ["number", "boolean", "string"]}, "people": {"type": "number"},
    "buses": {"type": "integer"}, "door": {"enum": ["open", "closed"]},
}  # fmt: skip
CARS = {"type": "json", "schema": {"type": "object", "properties": NUMBERS}}


def steps(when: dict[str, Any], until: dict[str, Any]) -> dict[str, Any]:
    """Return what a rule says of one field of a json answer."""
    named = {} if "any_of" in when else {"field": "cars"}
    return {"answer": CARS, "when": {**named, **when}, "until": {"field": "cars", **until}}


def test_the_example_is_read_and_comes_back_the_same(project: Path, tmp_path: Path) -> None:
    path = project / "configs" / "watch.yaml"
    assert path.read_text().splitlines()[2].startswith("# Change first: ")
    settings = read_rules(path)
    assert rules_of(to_mapping(settings)) == settings
    (tmp_path / "again.yaml").write_text(to_yaml(settings))
    assert read_rules(tmp_path / "again.yaml") == settings
    assert settings.missing_names({"HOOK_SECRET": "a", "CAM_PASSWORD": ""}) == [
        "CAM_PASSWORD", "MQTT_PASSWORD",
    ]  # fmt: skip
    assert [rule.name for rule in settings.rules_of("gate")] == [
        "person at night", "lorry has come or gone", "door was opened", "text that instructs",
    ]  # fmt: skip
    assert (
        settings.cameras[0]
        .filled_address({"CAM_PASSWORD": "a@b"})
        .startswith("rtsp://watcher:a%40b@")
    )
    assert "CAM_PASSWORD" in str(to_mapping(settings))


def test_a_file_is_read_with_changes(project: Path) -> None:
    path = project / "configs" / "watch.yaml"
    changed = read_rules(path, ["rules.0.hits=1", "retention.days=2"])
    assert (changed.rules[0].hits, changed.retention.days) == (1, 2)


def test_what_a_rule_leaves_out() -> None:
    rule = Rule(**PERSON)
    assert rule.condition == Condition(equals="yes")
    assert (rule.hits_of, rule.least_confidence) == (1, DEFAULT_CONFIDENCE)
    assert person(hits=3).hits_of == 3
    assert person(confidence=0.0).least_confidence == 0.0
    text = person(answer=AnswerType(type="text"), when=Condition(contains="a"))
    assert text.least_confidence == 0.0
    assert person(cameras=("a",)).watches("a")
    assert not person(cameras=("a",)).watches("b")
    assert person().watches("b")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "has no name"),
        ({"question": " "}, "rule 'person' has no question"),
        ({"hits": 3, "of": 2}, "rule 'person': hits = 3 of 2 can never be"),
        ({"hits": 0}, "hits = 0"),
        ({"of": 65}, "of = 65"),
        ({"answer": NUMBER}, "rule 'person': .*needs when"),
        ({"when": {"at_least": 1}}, "rule 'person': at_least does not go with"),
        ({"when": {"equals": "maybe"}}, "never answered"),
        ({"until": {"equals": "yes"}}, "'yes' meets both when and until"),
        ({"until": {"changed": True}}, "until does not go with changes"),
        ({"when": {"changed": True}, "until": {"equals": "no"}}, "until does not go with changes"),
        ({"answer": NUMBER, "when": {"at_least": 5}, "until": {"at_most": 5}},
         "the answer 5 meets both"),
        ({"answer": {**NUMBER, "at_most": 99}, "when": {"at_least": 50}, "until": {"at_least": 40}},
         "the answer 50 meets both"),
        ({"answer": {"type": "number", "whole": False}, "when": {"above": 2, "below": 5},
          "until": {"above": 4, "below": 6}}, "the answer 4.5 meets both"),
        ({"answer": {"type": "text"}, "when": {"contains": "door"}, "until": {"equals": "No door"}},
         "the answer 'No door' meets both"),
        ({"answer": {"type": "text"}, "when": {"contains": "a"}, "until": {"not_equals": "a"}},
         r"the answer 'a \?' meets both"),
        ({"answer": {"type": "text"}, "when": {"contains": "a"}, "confidence": 0.9},
         "confidence = 0.9 of an answer of type 'text'"),
        ({"confidence": 1.1}, "confidence = 1.1"),
        ({"schedule": [{"days": []}]}, "never is"),
        ({"schedule": [{"start": "09:00", "end": "09:00"}]}, "never is"),
        ({"time_zone": "Nowhere/Land"}, "rule 'person': time_zone"),
        ({"severity": "fatal"}, "severity = 'fatal'.*'critical'"),
        ({"cooldown_s": -1}, "cooldown_s"),
        ({"cooldown": 5}, "'cooldown'.*did you mean cooldown_s"),
        ({"answer": {"type": "choice", "choises": ["a", "b"]}}, "did you mean choices"),
        ({"when": {"equal": "yes"}}, "did you mean equals"),
        ({"cameras": ["yard"]}, "watches 'yard', which is no camera.*gate"),
        ({"hits": 2, "forget_s": 3}, "hits = 2 can never be: forget_s = 3.*step_s = 4"),
        ({"until_hits": 3, "forget_s": 3}, "until_hits = 3 can never be: forget_s = 3"),
        ({"forget_s": 3}, "an alert that holds can never be: forget_s = 3"),
        (steps({"at_least": 1}, {"at_most": 5}), "the answer 1 of 'cars' meets both"),
        (steps({"above": 1}, {"below": 1.5}), "of 'cars' meets both"),
        (steps({"equals": "a"}, {"not_equals": "b"}), "the answer 'a' of 'cars' meets both"),
        (steps({"one_of": [True, 2]}, {"equals": True}), "the answer True of 'cars' meets both"),
        (steps({"any_of": [{"field": "cars", "equals": 3}]}, {"field": "cars.", "above": 2}),
         "the answer 3 of 'cars' meets both"),
    ],
)  # fmt: skip
def test_rules_that_contradict_themselves_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        rules_of({"cameras": [GATE], "rules": [{**PERSON, **changes}]})


@pytest.mark.parametrize(
    ("answer", "when", "until"),
    [
        ({**NUMBER, "at_most": 99}, {"at_least": 50}, {"at_most": 49}),
        ({"type": "number", "whole": False}, {"above": 2}, {"at_most": 2}),
        ({"type": "text"}, {"contains": "open"}, {"contains": "closed"}),
        ({"type": "text"}, {"instructs": True}, {"contains": "exit"}),
        ({"type": "text"}, {"not_equals": "nothing"}, {"equals": "nothing"}),
        (CARS, {"field": "cars", "at_least": 1}, {"field": "cars", "at_most": 0}),
        (CARS, {"field": "cars", "equals": True}, {"field": "cars", "equals": 1}),
        (CARS, {"field": "cars", "at_least": 1}, {"field": "people", "at_most": 5}),
        (CARS, {"field": "buses", "above": 0}, {"field": "buses", "below": 1}),
        (CARS, {"field": "door", "not_equals": "open"}, {"field": "door", "not_equals": "closed"}),
        (
            CARS,
            {"field": "cars", "at_least": 1, "any_of": [{"field": "people", "equals": 1}]},
            {"field": "cars", "at_least": 1, "any_of": [{"field": "people", "equals": 2}]},
        ),
    ],
)
def test_what_ends_an_alert_may_be_all_else(answer: Any, when: Any, until: Any) -> None:
    rule = {**PERSON, "answer": answer, "when": when, "until": until}
    assert rules_of({"cameras": [GATE], "rules": [rule]}).rules[0].until is not None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cameras": []}, "there are no cameras"),
        ({"rules": []}, "there are no rules"),
        ({"cameras": [GATE, GATE]}, "two cameras are called 'gate'"),
        ({"rules": [PERSON, PERSON]}, "two rules are called 'person'"),
        ({"sinks": [{"name": "a"}, {"name": "a"}]}, "two sinks are called 'a'"),
        ({"cameras": [GATE, {**GATE, "name": "yard"}], "rules": [{**PERSON, "cameras": ["gate"]}]},
         "no rule watches 'yard'"),
        ({"camera": []}, "did you mean cameras"),
        ({"cameras": [{**GATE, "step_s": 9}]}, "step_s = 9"),
        ({"cameras": [{**GATE, "fps": 0.1}]}, "is no frame"),
        ({"cameras": [{**GATE, "window_s": float("inf")}]}, "window_s = inf.*finite"),
        ({"cameras": [{**GATE, "fps": float("inf")}]}, "fps = inf"),
        ({"cameras": [{"name": "gate"}]}, "has no address"),
        ({"cameras": [{**GATE, "adress": "x"}]}, "did you mean address"),
        ({"retention": {"day": 3}}, "did you mean days"),
        ({"retention": {"days": 0}}, "days"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_watched_by_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rules_of({"cameras": [GATE], "rules": [PERSON], **values})


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ("cameras: []\nrules: []\nsinks: []\nrules: []\n", "rules", 4),
        ("rules:\n  - {name: a, hits: 3,\n     hits: 1}\n", "hits", 3),
    ],
)
def test_a_key_that_is_written_twice_is_told_by_its_place(
    tmp_path: Path, text: str, key: str, line: int
) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"yaml, line {line}, column \d+: '{key}' is .* twice"):
        read_rules(path)


def test_a_change_that_is_forgotten_before_the_next_answer_is_told_all_the_same() -> None:
    rule = {**PERSON, "when": {"changed": True}, "forget_s": 3}
    assert rules_of({"cameras": [GATE], "rules": [rule]}).rules[0].forget_s == 3


def test_a_password_is_told_by_its_place(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("cameras:\n  - {name: a, address: 'rtsp://u:hunter2@h/'}\n")
    with pytest.raises(ConfigError, match=r"cameras\[0\]\.address") as caught:
        read_rules(path)
    assert "hunter2" not in str(caught.value)


def test_a_broken_line_is_told_by_its_number_and_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("cameras:\n  - {name: a, address: 'rtsp://u:hunter2@h/', x: [}\n")
    with pytest.raises(ConfigError, match=r"rules\.yaml, line 2, column") as caught:
        read_rules(path)
    error: BaseException | None = caught.value
    while error is not None:
        assert "hunter2" not in str(error)
        error = None if error.__suppress_context__ else error.__cause__ or error.__context__


def test_every_field_is_documented() -> None:
    for cls in (CameraSettings, Rule, WatchSettings, AnswerType, Condition):
        for field in cls.__dataclass_fields__.values():
            assert field.metadata.get("doc", "").endswith((".", "…")), (cls, field.name)


def test_sinks_may_be_missing() -> None:
    assert watch().sinks == ()


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 99) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=4,
)


def places(values: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the place of everything in nested values."""
    if isinstance(values, dict | list):
        items = values.items() if isinstance(values, dict) else enumerate(values)
        inner = [one for key, value in items for one in places(value, (*place, key))]
        return [place, *inner] if place else inner
    return [place]


@pytest.fixture(scope="module")
def example(project: Path) -> dict[str, Any]:
    return to_mapping(read_rules(project / "configs" / "watch.yaml"))


@given(st.data())
def test_whatever_stands_there_is_read_or_refused(
    example: dict[str, Any], data: st.DataObject
) -> None:
    values = copy.deepcopy(example)
    *outer, last = data.draw(st.sampled_from(places(values)))
    holder = values
    for key in outer:
        holder = holder[key]
    holder[last] = data.draw(ANYTHING)
    with contextlib.suppress(ConfigError):
        rules_of(values)


def test_a_camera_says_how_its_stream_is_read() -> None:
    camera = CameraSettings(
        name="gate", address="rtsp://10.0.0.7/ch1", fps=2.0, transport="udp", stall_timeout_s=40.0,
        frozen_s=None,
    )  # fmt: skip
    assert camera.stream_settings("fast", starts_at_s=7.0) == StreamSettings(
        fps=2.0, transport="udp", stall_timeout_s=40.0, frozen_s=None, pace="fast", starts_at_s=7.0
    )
    plain = CameraSettings(name="gate", address="rtsp://10.0.0.7/ch1")
    assert plain.stream_settings() == StreamSettings()
