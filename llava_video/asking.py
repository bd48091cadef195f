"""Several questions about the same visuals → descriptions: decoded, encoded and prefilled once.

Under one set of options (`ask_shared`) or with each its own kind of answer (`ask_each`). All share
the plan made for the longest question; the first one's cache is what the others begin
with, where the engine keeps one and the model does not fuse what it sees with the question. Knows
no decoder and no weights.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from llava_video.engine.request import Engine
from llava_video.errors import ConfigError
from llava_video.exchange import open_exchange
from llava_video.fitting import with_spare
from llava_video.model.spec import ModelSpec
from llava_video.options import Options, Settings, settings_of
from llava_video.planning.memory import cache_bytes, request_token_bytes
from llava_video.preview import turns_of
from llava_video.running import OnEvent, answer_each, answer_many
from llava_video.seen import SeenVisuals
from llava_video.values import Description, Plan


def ask_shared(
    spec: ModelSpec,
    engine: Engine,
    video: Any,
    questions: Sequence[str],
    *,
    options: Options,
    up_to_tokens: int | None = None,
    seen: SeenVisuals | None = None,
    on_event: OnEvent | None = None,
) -> list[Description]:
    """Ask every question of the same visuals.

    Args:
        spec: the checkpoint's facts.
        engine: answers.
        video: as `LlavaVideo.describe`.
        questions: none of them empty; one alone may be given as it is.
        options: of every answer.
        up_to_tokens: how long answers may be where no option says so, as far as the frames leave
            room, which are planned for the usual length; None for the usual length.
        seen: what was seen of visuals that the cache may hold already.
        on_event: called with every event.

    Returns:
        One description per question, in their order.

    Raises:
        ConfigError: no question, or an empty one. Otherwise as `LlavaVideo.describe`; the first
            error ends the call.
    """
    questions = [questions] if isinstance(questions, str) else list(questions)
    _refuse_empty(questions)
    settings = settings_of(options)
    longest = max(questions, key=spec.tokenizer.num_text_tokens)
    is_fused = spec.geometry.compressed_side > 0 and video is not None
    has_others = len(questions) > 1 and not is_fused  # fused ones come one after another
    # Beside the first question's cache, which is kept, that of any other has to fit.
    words = spec.tokenizer.num_text_tokens(longest) if has_others else 0
    spare = words + settings.planning.max_new_tokens if has_others else 0
    with open_exchange(with_spare(spec, spare), video, longest, settings, seen=seen) as shared:
        if up_to_tokens is not None and "max_new_tokens" not in options:
            settings = _longest_answers(spec, shared.plan, settings, up_to_tokens, words)
        turns = [turns_of(question, shared.opened) for question in questions]
        return answer_many(engine, shared, turns, settings, on_event)


def ask_each(
    spec: ModelSpec,
    engine: Engine,
    video: Any,
    asked: Sequence[tuple[str, Options]],
    *,
    options: Options,
    longest: str = "",
    seen: SeenVisuals | None = None,
    on_event: OnEvent | None = None,
) -> Iterator[Description | Exception]:
    """Ask several questions of the same visuals, each with its own kind of answer.

    Args:
        spec: the checkpoint's facts.
        engine: answers.
        video: as `LlavaVideo.describe`.
        asked: questions, each with options of its own answer, such as `response_format`.
        options: of all of them; which frames are shown is decided here alone.
        longest: a question to plan for where it is longer than those asked.
        seen: what was seen of visuals that the cache may hold already.
        on_event: called with every event.

    Yields:
        One description per question, in their order; the error of one that failed in its place.

    Raises:
        SourceError, DecodeError, BudgetError, ConfigError: no question, an empty one, or visuals
            that cannot be opened or planned.
        TypeError: an option is unknown.
    """
    _refuse_empty([question for question, _ in asked])
    each = [settings_of({**options, **own}) for _, own in asked]
    answer_tokens = max(one.planning.max_new_tokens for one in each)
    shared_settings = settings_of({**options, "max_new_tokens": answer_tokens})
    words = max((longest, *(question for question, _ in asked)), key=spec.tokenizer.num_text_tokens)
    spare = spec.tokenizer.num_text_tokens(words) + answer_tokens
    has_others = len(asked) > 1 and not (spec.geometry.compressed_side and video is not None)
    planned_for = with_spare(spec, spare if has_others else 0)
    with open_exchange(planned_for, video, words, shared_settings, seen=seen) as shared:
        turns = [turns_of(question, shared.opened) for question, _ in asked]
        yield from answer_each(engine, shared, zip(turns, each, strict=True), on_event)


def _refuse_empty(questions: Sequence[str]) -> None:
    if not questions or not all(isinstance(q, str) and q.strip() for q in questions):
        raise ConfigError(f"questions = {questions!r}.", "a list of texts, none of them empty.")


def _longest_answers(
    spec: ModelSpec, plan: Plan, settings: Settings, up_to_tokens: int, spare_words: int
) -> Settings:
    """Return the settings with the longest answers that a plan for them leaves room for."""
    room_tokens = int(plan.context_tokens * plan.position_scale) - plan.tokens
    room_bytes = cache_bytes(spec.geometry, spec.setup, plan.visuals, plan.text_tokens)
    if room_bytes is not None:
        a_token = request_token_bytes(spec.geometry, plan.kv_format, plan.visuals)
        held_tokens = room_bytes // a_token - plan.tokens
        if spare_words:  # beside the first question and its answer, another's have to fit
            held_tokens = (held_tokens - spare_words) // 2
        room_tokens = min(room_tokens, held_tokens)
    longest_tokens = max(settings.generation.max_new_tokens, min(up_to_tokens, room_tokens))
    return replace(
        settings,
        planning=replace(settings.planning, max_new_tokens=longest_tokens),
        generation=replace(settings.generation, max_new_tokens=longest_tokens),
    )
