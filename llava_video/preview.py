"""A video and a prompt → the plan, before any weight is loaded.

Everything `LlavaVideo.plan` does, without torch: a checkpoint's configuration and tokenizer are
enough to count every token, and frames are decoded only for sampling that looks at them. Knows no
engine.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Unpack

from llava_video.engine.settings import EngineSettings
from llava_video.errors import BudgetError, ConfigError
from llava_video.fitting import device_kind, set_up_spec
from llava_video.inputs import Opened, OpenedVideo, close_all, open_visuals
from llava_video.model.card import ModelCard
from llava_video.model.prompt import Turn, place_marks, read_turns, render
from llava_video.model.spec import ModelSpec, read_spec
from llava_video.options import Options, Settings, settings_of
from llava_video.planning.memory import cache_bytes, plan_memory, request_token_bytes
from llava_video.planning.planner import plan_request
from llava_video.planning.settings import MemorySettings
from llava_video.planning.time_note import TimeNote, time_note
from llava_video.scanning import item_of
from llava_video.values import MemoryEstimate, Plan

DEFAULT_MODEL = "lmms-lab/LLaVA-Video-7B-Qwen2"

Prompt = str | Sequence[Turn] | None
Quantize = Literal["auto", "plain", "int8", "int4"] | None


def plan_video(
    video: Any,
    prompt: Prompt = None,
    *,
    model: str | Path = DEFAULT_MODEL,
    revision: str | None = None,
    base: str | Path | None = None,
    vision_tower: str | Path | None = None,
    adapter: str | Path | None = None,
    merge_adapter: bool | None = None,
    template: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    memory: str | int | None = None,
    quantize: Quantize = "auto",
    **options: Unpack[Options],
) -> Plan:
    """Plan one request without loading weights.

    Args:
        video: path, URL, bytes, file object, (frames, times_s), `Video`, `Picture`, or a list of
            `Video` and `Picture` for one prompt with several; None for text alone.
        prompt: the question, or the conversation so far; None asks for a description.
        model: a folder, a hub id or "demo"; only its configuration and tokenizer are read.
        revision: hub revision.
        base: as `load`; an overlay without a tokenizer has its base's.
        vision_tower: as `load`; its sizes are read where the configuration only names it.
        adapter: as `load`.
        merge_adapter: as `load`.
        template: the conversation's template, by name; None is the checkpoint's own.
        device: what memory is counted for; "auto" is a GPU (looking for one would cost the start-up
            of torch).
        dtype: what weights and cache are counted in; "auto" is bfloat16 on a GPU, float32 on a CPU.
        memory: what the model may take in all, "24GiB", "16 GB" or bytes; None for no limit.
        quantize: as `load`.
        **options: see `Options`.

    Raises:
        SourceError, DecodeError: the video cannot be read.
        CheckpointError: the model cannot be found or is not supported.
        BudgetError: nothing fits; the message has the numbers and a way out.
        ConfigError: an option is out of range. TypeError: an option is unknown.
    """
    settings = settings_of(options)
    asked, kind = MemorySettings(memory=memory, quantize=quantize), device_kind(device)
    if dtype == "auto":
        dtype = "float32" if kind == "cpu" else "bfloat16"
    spec = read_spec(
        model,
        revision=revision,
        base=base,
        vision_tower=vision_tower,
        adapter=adapter,
        dtype=dtype,
    ).with_template(template)
    spec = set_up_spec(spec, asked, EngineSettings(), kind=kind, merge_adapter=merge_adapter)
    opened = open_visuals(video, settings.sampling, *settings.reading)
    try:
        return make_plan(spec, opened, turns_of(prompt, opened, spec.card), settings)
    finally:
        close_all(opened)


def make_plan(
    spec: ModelSpec, opened: Sequence[Opened], turns: Sequence[Turn], settings: Settings
) -> Plan:
    """Plan one request for visuals that are open; those whose sampling needs it are scanned.

    Raises:
        BudgetError: nothing fits. ConfigError: marks and visuals do not match.
        DecodeError: a scan finds nothing that can be decoded.
    """

    def text_of(notes: Sequence[TimeNote | None]) -> tuple[str, int]:
        text = _prompt_of(spec, turns, notes)
        return text, spec.tokenizer.num_text_tokens(text)

    plan = plan_request(
        [item_of(visual) for visual in opened],
        geometry=spec.geometry,
        planning=settings.planning,
        sampling=settings.sampling,
        text_of=text_of,
        setup=spec.setup,
    )
    if spec.server is not None:
        return _served(plan, spec.server.base_url)
    missing = spec.missing_tokens
    if not missing:
        return plan
    warning = (
        f"template = {spec.config.template!r} is written with {', '.join(missing)}, which this "
        "model reads as plain text: it may not see where turns end. Leave template= out, or name "
        "the one it was trained with."
    )
    return replace(plan, warnings=(*plan.warnings, warning))


def description_prompt(noun: Literal["video", "image"], card: ModelCard | None = None) -> str:
    """Return what a model is asked where nobody asks anything: in its card's words, if any."""
    own = "" if card is None else card.describe
    return own or f"Please describe this {noun} in detail."


def turns_of(
    prompt: Prompt, opened: Sequence[Opened], card: ModelCard | None = None
) -> tuple[Turn, ...]:
    """Return the conversation: the prompt as one user turn, or as given.

    Args:
        prompt: None asks for a description, in the words of the card where it has any.
        opened: the visuals.
        card: the model's.

    Raises:
        ConfigError: neither visuals nor words, or a list of something else than `Turn`s.
    """
    if prompt is None:
        if not opened:
            raise ConfigError("there is neither a video nor a question.", "give one of them.")
        has_video = any(isinstance(one, OpenedVideo) for one in opened)
        prompt = description_prompt("video" if has_video else "image", card)
    if isinstance(prompt, str):
        return (Turn("user", prompt),)
    if not isinstance(prompt, Iterable):
        raise ConfigError(f"the prompt is {prompt!r}.", "a text, or Turns.")
    turns = tuple(prompt)
    if not all(isinstance(turn, Turn) for turn in turns):
        kinds = sorted({type(turn).__name__ for turn in turns})
        raise ConfigError(f"the prompt is a list of {', '.join(kinds)}.", "a text, or Turns.")
    return turns


def follow_up(spec: ModelSpec, plan: Plan, turns: Sequence[Turn], settings: Settings) -> Plan:
    """Plan other words about the same visuals: frames and tokens of the visuals stay as they are.

    Raises:
        BudgetError: the words leave no room for the answer.
    """
    text = _prompt_of(spec, turns, [time_note(visual) for visual in plan.visuals])
    text_tokens = spec.tokenizer.num_text_tokens(text)
    max_new_tokens = settings.generation.max_new_tokens
    need_tokens = text_tokens + plan.visual_tokens + max_new_tokens
    holds = {"the context": int(plan.context_tokens * plan.position_scale)}
    room_bytes = cache_bytes(spec.geometry, spec.setup, plan.visuals, text_tokens)
    if room_bytes is not None:
        a_token = request_token_bytes(spec.geometry, plan.kv_format, plan.visuals)
        holds["the memory"] = room_bytes // a_token
    holder, have_tokens = min(holds.items(), key=lambda item: item[1])
    if need_tokens > have_tokens:
        raise BudgetError(
            f"{text_tokens} text + {plan.visual_tokens} visual + {max_new_tokens} answer tokens "
            f"need {need_tokens}, {holder} holds {have_tokens}.",
            "begin a new conversation, or give this one fewer frames with max_video_tokens=.",
            need_tokens,
            have_tokens,
        )
    asked = replace(plan, prompt=text, text_tokens=text_tokens, max_new_tokens=max_new_tokens)
    if spec.server is not None:
        return asked
    memory = plan_memory(spec.geometry, spec.setup, asked, plan.kv_format)
    return replace(asked, memory=memory)


def spoken_turns(spec: ModelSpec, plan: Plan, turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Return the conversation of a plan as it is said: every mark and time sentence in its place.

    Args:
        spec: the checkpoint's facts.
        plan: of the conversation.
        turns: what it was planned from; () where only the plan is known, whose prompt is read.

    Raises:
        ConfigError: the prompt is not one of the template's.
    """
    if not turns:
        return read_turns(plan.prompt, spec.config.template)
    notes = [time_note(visual) for visual in plan.visuals]
    return place_marks(turns, [note.sentence() if note else None for note in notes])


def check_planned_for(spec: ModelSpec, plan: Plan) -> None:
    """See that a plan was made for this model as it is loaded.

    Raises:
        ConfigError: it is another one's, or its weights are kept otherwise.
    """
    weights = spec.setup.weight_format
    if plan.model != spec.name:
        raise ConfigError(
            f"the plan was made for {plan.model}, this model is {spec.name}.",
            "make the plan with this model.",
        )
    if plan.weight_format != weights:
        raise ConfigError(
            f"the plan was made for {plan.weight_format} weights, this model's are {weights}.",
            f"load it with quantize={plan.weight_format!r}, or make the plan with this model.",
        )


def _served(plan: Plan, base_url: str) -> Plan:
    """Return the plan of a request that a server answers: nothing of it stands in memory here."""
    warning = (
        f"{base_url} cuts frames into tiles and tokens its own way: the plan's tokens are an "
        "estimate, and usage is what the server says."
    )
    nothing = MemoryEstimate(0, 0, 0)
    return replace(plan, memory=nothing, warnings=(*plan.warnings, warning))


def _prompt_of(spec: ModelSpec, turns: Sequence[Turn], notes: Sequence[TimeNote | None]) -> str:
    """Write the prompt, one mark and perhaps a time sentence per visual, in the template."""
    sentences = [note.sentence() if note else None for note in notes]
    marked = place_marks(turns, sentences, has_mark_ends=spec.config.has_mark_ends)
    return render(marked, spec.config.template)
