"""Each kind of sink takes its own fields, and no secret stands in the file."""

from typing import Any

import pytest

from llava_video.errors import ConfigError
from llava_video.monitor.sink_settings import SinkSettings

HOOK = {"name": "hook", "kind": "webhook", "address": "https://h/${PATH}", "secret": "${S}"}
BROKER = {"name": "b", "kind": "mqtt", "address": "mqtts://h", "topic": "t"}


@pytest.mark.parametrize(
    "values",
    [
        HOOK,
        {**HOOK, "address": "${WHOLE}", "pictures": True},
        {**HOOK, "address": "https://h/@me?to=a@b#c@d"},
        BROKER,
        {**BROKER, "user": "me", "secret": "${S}"},
        {"name": "f", "kind": "jsonl", "path": "a.jsonl"},
        {"name": "c", "kind": "command", "command": ["true", "-x"]},
        {"name": "t", "kind": "terminal", "least_severity": "critical", "timeout_s": 1.0},
    ],
)
def test_a_sink_of_each_kind(values: dict[str, Any]) -> None:
    assert SinkSettings(**values).name == values["name"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({**HOOK, "name": " "}, "has no name"),
        ({**HOOK, "secret": "hunter2"}, "the secret of sink 'hook' stands in the file"),
        ({**HOOK, "secret": "x${S}"}, "stands in the file"),
        ({**HOOK, "secret": ""}, "lacks secret"),
        ({**HOOK, "address": "ftp://h"}, "does not begin with http://"),
        ({**HOOK, "address": "https://me:${S}@h/"}, "the address of sink 'hook' has a user"),
        ({**HOOK, "address": "https://hunter2@h"}, "signed with secret"),
        ({**HOOK, "topic": "t"}, "takes no topic"),
        ({**BROKER, "secret": "${S}"}, "a password and no user"),
        ({**BROKER, "topic": ""}, "lacks topic"),
        ({**BROKER, "topic": "site/+/gate"}, "the topic of sink 'b' is 'site/"),
        ({**BROKER, "topic": "site/#"}, "a message goes to one"),
        ({**BROKER, "topic": "a\0b"}, "the topic of sink 'b'"),
        ({**BROKER, "address": "https://h"}, "does not begin with mqtt://"),
        ({**BROKER, "address": "mqtt://me@h"}, "has a user"),
        ({"name": "f", "kind": "jsonl"}, "lacks path"),
        ({"name": "f", "kind": "jsonl", "path": "a", "pictures": True}, "takes no pictures"),
        ({"name": "c", "kind": "command", "command": ["a", ""]}, "an empty word"),
        ({"name": "c", "kind": "command", "command": "rm -rf"}, "command = 'rm -rf'"),
        ({"name": "t", "kind": "email"}, "kind = 'email'"),
        ({"name": "t", "first_wait_s": 9.0, "most_wait_s": 8.0}, "not below the first"),
        ({"name": "t", "timeout_s": 0.0}, "timeout_s"),
        ({"name": "t", "timeout_s": float("inf")}, "timeout_s = inf.*finite"),
        ({"name": "t", "most_wait_s": float("inf")}, "most_wait_s = inf"),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        SinkSettings(**values)
    assert "hunter2" not in str(caught.value)


def test_what_it_needs_of_the_environment_and_what_it_takes() -> None:
    hook = SinkSettings(**HOOK, least_severity="warning")
    assert hook.environment_names == ["PATH", "S"]
    assert [hook.takes(one) for one in ("info", "warning", "critical")] == [False, True, True]


def test_half_an_address_is_refused_as_a_setting() -> None:
    with pytest.raises(ConfigError, match="is none"):
        SinkSettings(name="a", kind="webhook", address="http://[::1", secret="${A}")
