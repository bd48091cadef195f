"""A request and its pictures → the JSON of a chat completion, as OpenAI's interface has it.

The conversation's text goes as it stands, time sentences included; a visual's mark becomes its
pictures. What is no part of that interface is sent where it is asked for, or where the server is
known to take it. Knows no HTTP.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from llava_video.engine.request import Request
from llava_video.errors import ConfigError
from llava_video.model.prompt import MARK_ENDS, Turn
from llava_video.model.tokenizer import IMAGE_MARK
from llava_video.remote.facts import ServerFacts
from llava_video.remote.settings import RemoteSettings

# The property that holds a choice where choices are asked for by a JSON schema.
CHOICE_FIELD: Final = "answer"
# vLLM's guided_choice became structured_outputs with this version.
_VLLM_STRUCTURED: Final = (0, 11)
_TOP_LOGPROBS: Final = 20


def chat_body(
    request: Request,
    pictures: Sequence[Sequence[str]],
    facts: ServerFacts,
    settings: RemoteSettings,
) -> dict[str, Any]:
    """Return the body of a chat completion.

    Args:
        request: what is asked, with its conversation.
        pictures: data URIs of each visual's frames, in the order of the marks.
        facts: the server's.
        settings: how frames are sent.

    Raises:
        ConfigError: the request asks for what a server decides itself.
    """
    _check(request)
    asked = request.generation
    body: dict[str, Any] = {
        "model": facts.model,
        "messages": messages_of(request.turns, pictures, as_video=settings.sends == "video"),
        settings.length_field: asked.max_new_tokens,
        "temperature": asked.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if settings.sends == "video":  # newer ones of vLLM cut a video to 32 frames unasked
        body["media_io_kwargs"] = {"video": {"num_frames": -1}}
    if asked.temperature > 0:
        body |= {"top_p": asked.top_p, "seed": asked.seed}
        if facts.kind != "other":  # theirs is the checkpoint's where none is named; -1 is all
            body["top_k"] = asked.top_k or -1
    if asked.top_k:
        body["top_k"] = asked.top_k
    if asked.repetition_penalty is not None:
        body["repetition_penalty"] = asked.repetition_penalty
    if asked.stop:
        body["stop"] = list(asked.stop)
    if asked.choices:
        body |= {"logprobs": True, "top_logprobs": _TOP_LOGPROBS}
    return body | format_of(request, facts)


def messages_of(
    turns: Iterable[Turn], pictures: Sequence[Sequence[str]], *, as_video: bool = False
) -> list[dict[str, Any]]:
    """Return a conversation as messages.

    Args:
        turns: with one mark per visual in users' texts.
        pictures: data URIs of each visual, in the order of the marks.
        as_video: whether the frames of a visual of several go as one `video_url`.
    """
    left = iter(pictures)
    messages: list[dict[str, Any]] = []
    for turn in turns:
        text = turn.text.replace(IMAGE_MARK.join(MARK_ENDS), IMAGE_MARK)
        if turn.role != "user" or IMAGE_MARK not in text:
            if turn.text or turn.role != "system":  # an empty system says to have none
                messages.append({"role": turn.role, "content": turn.text})
            continue
        before, *rest = text.split(IMAGE_MARK)
        parts = _text_parts(before)
        for after in rest:
            parts += _visual_parts(next(left), as_video=as_video)
            # The mark's own line ends with it.
            parts += _text_parts(after.removeprefix("\n"))
        messages.append({"role": "user", "content": parts})
    return messages


def format_of(request: Request, facts: ServerFacts) -> dict[str, Any]:
    """Return what asks for a typed answer, in the words of the server."""
    schema, choices = request.generation.schema, list(request.generation.choices)
    if schema is not None:
        return {"response_format": _json_format(schema)}
    if not choices:
        return {}
    if facts.kind == "vllm":
        if _release(facts.version) < _VLLM_STRUCTURED:
            return {"guided_choice": choices}
        return {"structured_outputs": {"choice": choices}}
    if facts.kind == "sglang":
        return {"regex": f"({'|'.join(map(re.escape, choices))})"}
    return {"response_format": _json_format(choice_schema(choices))}


def wraps_choices(facts: ServerFacts) -> bool:
    """Say whether a choice comes as a JSON object, which OpenAI wants at a schema's root."""
    return facts.kind == "other"


def choice_schema(choices: Sequence[str]) -> dict[str, Any]:
    """Return the schema of an object that holds one of the choices."""
    return {
        "type": "object",
        "properties": {CHOICE_FIELD: {"type": "string", "enum": list(choices)}},
        "required": [CHOICE_FIELD],
        "additionalProperties": False,
    }


def _check(request: Request) -> None:
    hint = "leave it out: a server is started with its own."
    if request.is_fused:
        raise ConfigError(
            "this model fuses what it sees with the prompt, which no server is told of.",
            "plan as another model of the family (plan_as=).",
        )
    if request.position_scale != 1.0:
        raise ConfigError(f"position_scale = {request.position_scale:g} beside a server.", hint)
    if request.kv_format != "plain":
        raise ConfigError(f"kv_cache = {request.kv_format!r} beside a server.", hint)
    if not request.turns:
        raise ConfigError("the request has no conversation.", "ask through LlavaVideo's verbs.")


def _json_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    named = {"name": "answer", "schema": dict(schema), "strict": True}
    return {"type": "json_schema", "json_schema": named}


def _text_parts(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}] if text.strip() else []


def _visual_parts(pictures: Sequence[str], *, as_video: bool) -> list[dict[str, Any]]:
    if as_video and len(pictures) > 1:
        frames = ",".join(picture.partition(",")[2] for picture in pictures)
        return [{"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{frames}"}}]
    return [{"type": "image_url", "image_url": {"url": picture}} for picture in pictures]


def _release(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a version; of an unknown one, those of the newest."""
    found = re.match(r"v?(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else _VLLM_STRUCTURED
