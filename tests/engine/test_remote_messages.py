"""What is sent says what was asked, in the words that each server knows."""

import dataclasses

import pytest

from llava_video.engine.remote_messages import (
    chat_body,
    choice_schema,
    messages_of,
    wraps_choices,
)
from llava_video.engine.request import Request
from llava_video.errors import ConfigError
from llava_video.model.prompt import Turn
from llava_video.remote.facts import ServerFacts
from llava_video.remote.settings import RemoteSettings

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}


def facts(kind: str = "vllm", version: str = "0.11.0") -> ServerFacts:
    return ServerFacts(base_url="http://host/v1", model="m", kind=kind, version=version)


@pytest.fixture
def asked(ask):
    """Return a maker of requests of one word."""

    def make(**options) -> Request:
        return dataclasses.replace(ask("Hi", **options), turns=(Turn("user", "Hi"),))

    return make


def image(url: str) -> dict:
    return {"type": "image_url", "image_url": {"url": url}}


def text(words: str) -> dict:
    return {"type": "text", "text": words}


def test_frames_stand_where_their_mark_is() -> None:
    turns = (
        Turn("system", "Be brief."),
        Turn("user", "Before <image>\nT1.\nand <image> after"),
        Turn("assistant", "A <image>"),
        Turn("user", "More?"),
    )
    assert messages_of(turns, [("a", "b"), ("c",)]) == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                text("Before "),
                image("a"),
                image("b"),
                text("T1.\nand "),
                image("c"),
                text(" after"),
            ],
        },
        {"role": "assistant", "content": "A <image>"},
        {"role": "user", "content": "More?"},
    ]


def test_marks_with_ends_are_marks() -> None:
    turns = (Turn("system", ""), Turn("user", "<im_start><image><im_end>\nWhat?"))
    (message,) = messages_of(turns, [("a",)])
    assert message["content"] == [image("a"), text("What?")]


def test_a_video_can_go_as_one(asked) -> None:
    turns = (Turn("user", "<image>\n<image>\nWhat?"),)
    uris = ("data:image/jpeg;base64,AA", "data:image/jpeg;base64,BB")
    (message,) = messages_of(turns, [uris, uris[:1]], as_video=True)
    url = "data:video/jpeg;base64,AA,BB"
    video = {"type": "video_url", "video_url": {"url": url}}
    assert message["content"] == [video, image(uris[0]), text("What?")]
    body = chat_body(asked(), [], facts(), RemoteSettings(sends="video"))
    assert body["media_io_kwargs"] == {"video": {"num_frames": -1}}


def test_a_greedy_answer_says_little(asked) -> None:
    assert chat_body(asked(max_new_tokens=9), [], facts(), RemoteSettings()) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 9,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_sampling_says_all(asked) -> None:
    request = asked(temperature=0.7, top_p=0.9, seed=5, repetition_penalty=1.1, stop=("END",))
    body = chat_body(request, [], facts(), RemoteSettings(length_field="max_completion_tokens"))
    told = {"temperature": 0.7, "top_p": 0.9, "top_k": -1, "seed": 5, "repetition_penalty": 1.1}
    assert {**body, **told, "stop": ["END"], "max_completion_tokens": 12} == body
    assert "max_tokens" not in body
    assert "top_k" not in chat_body(request, [], facts("other"), RemoteSettings())
    some = asked(temperature=0.7, top_k=7)
    assert chat_body(some, [], facts("other"), RemoteSettings())["top_k"] == 7


def test_a_schema_is_sent_as_openai_has_it(asked) -> None:
    body = chat_body(asked(response_format=SCHEMA), [], facts("other"), RemoteSettings())
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA
    assert body["response_format"]["type"] == "json_schema"
    assert "logprobs" not in body


@pytest.mark.parametrize(
    ("kind", "version", "told"),
    [
        ("vllm", "0.10.1", {"guided_choice": ["a.", "b"]}),
        ("vllm", "0.11.0", {"structured_outputs": {"choice": ["a.", "b"]}}),
        ("vllm", "1.2", {"structured_outputs": {"choice": ["a.", "b"]}}),
        ("vllm", "", {"structured_outputs": {"choice": ["a.", "b"]}}),
        ("sglang", "0.5", {"regex": r"(a\.|b)"}),
    ],
)
def test_choices_in_each_servers_words(asked, kind: str, version: str, told: dict) -> None:
    body = chat_body(asked(response_format=("a.", "b")), [], facts(kind, version), RemoteSettings())
    assert {**body, **told} == body
    assert (body["logprobs"], "response_format" in body) == (True, False)
    assert not wraps_choices(facts(kind))


def test_choices_of_a_stranger_are_a_schema(asked) -> None:
    body = chat_body(asked(response_format=("a.", "b")), [], facts("other"), RemoteSettings())
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema == choice_schema(["a.", "b"])
    assert schema["properties"]["answer"]["enum"] == ["a.", "b"]
    assert wraps_choices(facts("other"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"position_scale": 2.0}, "position_scale = 2"),
        ({"kv_format": "int8"}, "kv_cache = 'int8'"),
        ({"turns": ()}, "no conversation"),
    ],
)
def test_what_a_server_decides_itself_is_refused(asked, change: dict, words: str) -> None:
    request = dataclasses.replace(asked(), **change)
    with pytest.raises(ConfigError, match=words):
        chat_body(request, [], facts(), RemoteSettings())


def test_fused_prompts_are_refused(ask, fused) -> None:
    with pytest.raises(ConfigError, match="fuses"):
        chat_body(ask(fused("a", [1], "b")), [], facts(), RemoteSettings())
