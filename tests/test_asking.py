"""Questions about the same visuals share them; long answers take the room that is left."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from llava_video.api import LlavaVideo
from llava_video.asking import ask_each, ask_shared
from llava_video.engine.request import Answer, Event, Finished, Request
from llava_video.errors import ConfigError
from llava_video.model.spec import ModelSpec
from llava_video.options import Options
from llava_video.planning.memory import fixed_bytes, token_bytes
from llava_video.values import Description


class QuietEngine:
    """Answers nothing, and keeps the requests."""

    def __init__(self) -> None:
        self.requests = list[Request]()

    def run(self, requests: Iterable[Request]) -> Iterator[Event]:
        for request in requests:
            self.requests.append(request)
            answer = Answer(
                text="",
                token_ids=(),
                finish_reason="stop",
                text_tokens=request.text_tokens,
                visual_tokens=request.visual_tokens,
                new_tokens=0,
            )
            yield Finished(request.request_id, answer)


def _lengths(
    spec: ModelSpec, clip: Path, questions: list[str], up_to_tokens: int | None, **options: int
) -> tuple[list[int], list[int]]:
    """Return the longest answers asked for, and the tokens of the prompts."""
    engine = QuietEngine()
    told = ask_shared(
        spec,
        engine,
        clip,
        questions,
        options={"num_frames": 4, **options},
        up_to_tokens=up_to_tokens,
    )
    assert len(told) == len(questions)
    lengths = [request.generation.max_new_tokens for request in engine.requests]
    assert lengths == [one.plan.max_new_tokens for one in told]
    return lengths, [one.plan.tokens for one in told]


def test_answers_are_as_long_as_wished_where_they_fit(
    tiny_model: LlavaVideo, tiny_clip: Path
) -> None:
    spec = tiny_model.spec
    assert _lengths(spec, tiny_clip, ["Why?", "How?"], 4096)[0] == [4096, 4096]
    assert _lengths(spec, tiny_clip, ["Why?"], None)[0] == [512]
    assert _lengths(spec, tiny_clip, ["Why?"], 4096, max_new_tokens=7)[0] == [7]


def test_answers_take_what_the_context_leaves(tiny_model: LlavaVideo, tiny_clip: Path) -> None:
    geometry = replace(tiny_model.spec.geometry, context_tokens=1500)
    spec = replace(tiny_model.spec, geometry=geometry)
    lengths, tokens = _lengths(spec, tiny_clip, ["Why?", "How long did that take?"], 4096)
    # The longest question fills the context to the last token; each answer has that length.
    assert lengths == [1500 - tokens[1]] * 2
    assert 512 < lengths[0] < 1500


def test_answers_take_what_the_memory_leaves(tiny_model: LlavaVideo, tiny_clip: Path) -> None:
    plain = tiny_model.spec
    visuals = tiny_model.plan(tiny_clip, "Why?", num_frames=4).visuals
    held_bytes = 2500 * token_bytes(plain.geometry, "plain")
    limit_bytes = fixed_bytes(plain.geometry, plain.setup, visuals) + held_bytes
    spec = replace(plain, setup=replace(plain.setup, limit_bytes=limit_bytes))
    alone, tokens = _lengths(spec, tiny_clip, ["Why?"], 4096)
    assert alone == [2500 - tokens[0]]
    # Beside the first question and its answer, the other one's words and answer have to fit.
    both, _ = _lengths(spec, tiny_clip, ["Why?", "How"], 4096)
    num_words = plain.tokenizer.num_text_tokens("Why?")
    assert both == [(2500 - tokens[0] - num_words) // 2] * 2


def test_no_question_is_refused(tiny_model: LlavaVideo) -> None:
    for questions in ([], ["Why?", " "], ["Why?", 3]):
        with pytest.raises(ConfigError, match="none of them empty"):
            ask_shared(tiny_model.spec, QuietEngine(), None, questions, options={})  # type: ignore[arg-type]
        asked = [(question, Options()) for question in questions]
        with pytest.raises(ConfigError, match="none of them empty"):
            next(ask_each(tiny_model.spec, QuietEngine(), None, asked, options={}))  # type: ignore[arg-type]


def test_fused_answers_take_what_the_memory_leaves_beside_their_rows(
    mini_model: LlavaVideo, tiny_clip: Path
) -> None:
    """Nothing is shared: two questions leave each other no room, and each may use all of it."""
    plain = mini_model.spec
    plan = mini_model.plan(tiny_clip, "Why?", num_frames=4)
    fixed = fixed_bytes(plain.geometry, plain.setup, plan.visuals, plan.text_tokens)
    a_token = token_bytes(plain.geometry, "plain") + (
        plain.geometry.hidden_size * plain.geometry.value_bytes
    )
    limit_bytes = fixed + 2500 * a_token
    spec = replace(plain, setup=replace(plain.setup, limit_bytes=limit_bytes))
    for questions in (["Why?"], ["Why?", "How?"]):
        lengths, tokens = _lengths(spec, tiny_clip, questions, 4096)
        assert lengths == [2500 - tokens[0]] * len(questions)


def test_each_question_has_its_own_kind_of_answer(tiny_model: LlavaVideo, tiny_clip: Path) -> None:
    engine = QuietEngine()
    asked = [("Why?", Options(response_format=["a", "b"])), ("How?", Options(max_new_tokens=900))]
    told = list(ask_each(tiny_model.spec, engine, tiny_clip, asked, options={"num_frames": 4}))
    assert [isinstance(one, Description) for one in told] == [True, True]
    generations = [request.generation for request in engine.requests]
    assert [one.choices for one in generations] == [("a", "b"), ()]
    assert [one.max_new_tokens for one in generations] == [512, 900]


def test_frames_are_planned_for_the_longest_question_and_answer(
    tiny_model: LlavaVideo, tiny_clip: Path
) -> None:
    """Also for one that is not asked now; a plan for the first one alone shows more."""
    geometry = replace(tiny_model.spec.geometry, context_tokens=600)
    spec = replace(tiny_model.spec, geometry=geometry)

    def tokens(asked: list[tuple[str, Options]], longest: str = "") -> set[int]:
        told = ask_each(
            spec, QuietEngine(), tiny_clip, asked, options={"max_new_tokens": 16}, longest=longest
        )
        return {one.plan.visual_tokens for one in told if isinstance(one, Description)}

    short, words = ("Why?", Options()), "Why? " * 40
    (most,) = tokens([short])
    (fewer,) = tokens([short, (words, Options())])
    (later,) = tokens([short], longest=words)
    (long_answer,) = tokens([short, ("Why?", Options(max_new_tokens=200))])
    assert most > fewer == later
    assert long_answer < most
