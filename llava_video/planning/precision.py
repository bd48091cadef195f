"""Memory → how finely weights and cache are kept, and what was given up for it.

Weights are chosen once, when a model is loaded: the finest that leave memory for the model's whole
context as int8 cache. The cache is chosen for each request: the finest that holds what the
positions allow; where not even the coarsest does, grid, pool stride and frames go. Knows no device.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from llava_video.errors import BudgetError
from llava_video.plan_table import bytes_words
from llava_video.planning.amount import amount_words
from llava_video.planning.budget import Limit, limit_tokens
from llava_video.planning.draft import Draft
from llava_video.planning.geometry import Geometry
from llava_video.planning.memory import (
    WEIGHT_FORMATS,
    Setup,
    cache_bytes,
    fixed_bytes,
    kv_formats,
    plan_memory,
    request_token_bytes,
    token_bytes,
    weight_formats,
    weights_bytes,
)
from llava_video.planning.settings import PlanningSettings
from llava_video.values import KvFormat, WeightFormat

# Less cache than this answers no question about a video: some frames, words, and an answer of 512.
_LEAST_TOKENS = 2048

DraftWithin = Callable[[Limit], Draft]


def choose_weights(geometry: Geometry, setup: Setup, pinned: WeightFormat | None) -> Setup:
    """Return the setup with its weights' format, and the reason for it.

    Args:
        geometry: the model.
        setup: chunks, workspace and the limit.
        pinned: the format asked for; None chooses the finest that leaves memory for the whole
            context as int8 cache, and int4 where none does.

    Raises:
        BudgetError: there is no room for the weights and a little cache.
    """
    formats = (pinned,) if pinned else weight_formats(geometry)
    useful_bytes = geometry.context_tokens * token_bytes(geometry, "int8")
    for weight_format in formats:
        chosen = replace(setup, weight_format=weight_format)
        room_bytes = cache_bytes(geometry, chosen)
        if pinned or room_bytes is None or room_bytes >= useful_bytes:
            break
    least_bytes = _least_cache_bytes(geometry)
    if room_bytes is not None and room_bytes < least_bytes:
        raise _refusal(geometry, chosen, least_bytes)
    if pinned or chosen.weight_format != "plain":
        reason = _weights_reason(geometry, setup, chosen, useful_bytes, is_pinned=bool(pinned))
        chosen = replace(chosen, reasons=reason)
    return chosen


def lighter_setups(geometry: Geometry, setup: Setup) -> tuple[Setup, ...]:
    """Return the same setup with coarser weights, the finest first."""
    known = weight_formats(geometry)
    later = known[known.index(setup.weight_format) + 1 :] if setup.weight_format in known else ()
    return tuple(replace(setup, weight_format=weight_format) for weight_format in later)


def draft_in_memory(
    planning: PlanningSettings,
    position_scale: float,
    geometry: Geometry,
    setup: Setup,
    draft_within: DraftWithin,
) -> Draft:
    """Draft a request within its positions and the memory.

    Args:
        planning: `kv_cache` is kept when it is pinned.
        position_scale: positions are index / position_scale.
        geometry: the model.
        setup: weights, chunks and limit.
        draft_within: drafts the request within a limit.

    Raises:
        BudgetError: it fits neither way.
    """
    known = kv_formats(geometry)
    formats = known if planning.kv_cache == "auto" else (planning.kv_cache,)
    positions = Limit(tokens=limit_tokens(geometry, position_scale), kv_format=formats[0])
    draft = draft_within(positions)
    visuals = draft.plan.visuals
    has_rows = any(visual.is_fused for visual in visuals)
    room_bytes = cache_bytes(geometry, setup, visuals, draft.plan.text_tokens)
    if room_bytes is None:
        return draft
    need_tokens = draft.plan.tokens + draft.plan.max_new_tokens + setup.spare_tokens
    one_bytes = {fmt: request_token_bytes(geometry, fmt, visuals) for fmt in formats}
    fitting = [fmt for fmt in formats if need_tokens * one_bytes[fmt] <= room_bytes]
    kv_format = fitting[0] if fitting else formats[-1]
    if not fitting:
        draft = draft_within(
            Limit(
                tokens=max(0, room_bytes // one_bytes[kv_format] - setup.spare_tokens),
                kv_format=kv_format,
                token_bytes=one_bytes[kv_format],
                has_rows=has_rows,
            )
        )
    if kv_format == formats[0]:
        return draft
    memory = plan_memory(geometry, setup, draft.plan, kv_format)
    plan = replace(draft.plan, kv_format=kv_format, memory=memory)
    finer = formats[: formats.index(kv_format)]
    finer_bytes = {fmt: need_tokens * one_bytes[fmt] for fmt in finer}
    reason = _cache_reason(
        setup, kv_format, need_tokens, finer_bytes, room_bytes, has_rows=has_rows
    )
    return replace(draft, plan=plan).saying(reason)


def _least_cache_bytes(geometry: Geometry) -> int:
    tokens = min(geometry.context_tokens, _LEAST_TOKENS)
    return tokens * token_bytes(geometry, kv_formats(geometry)[-1])


def _cache_reason(
    setup: Setup,
    kv_format: KvFormat,
    need_tokens: int,
    finer_bytes: Mapping[KvFormat, int],
    room_bytes: int,
    *,
    has_rows: bool,
) -> str:
    before = [f"{bytes_words(taken)} {finer}" for finer, taken in finer_bytes.items()]
    return (
        f"Cache plain → {kv_format}: {need_tokens:,} tokens would take {' or '.join(before)}"
        f"{' with their waiting rows' * has_rows}, {bytes_words(room_bytes)} of "
        f"{bytes_words(setup.limit_bytes or 0)} are left for it."
    )


def _weights_reason(
    geometry: Geometry, setup: Setup, chosen: Setup, useful_bytes: int, *, is_pinned: bool
) -> tuple[str, ...]:
    plain_bytes = weights_bytes(geometry, "plain")
    sizes = f"{bytes_words(weights_bytes(geometry, chosen.weight_format))} instead of "
    sizes += bytes_words(plain_bytes)
    if is_pinned:
        if chosen.weight_format == "plain":
            return ()
        return (f"Weights {chosen.weight_format}, as asked: {sizes}.",)
    finer = WEIGHT_FORMATS[: WEIGHT_FORMATS.index(chosen.weight_format)]
    rooms = [cache_bytes(geometry, replace(setup, weight_format=fmt)) for fmt in finer]
    left = " and ".join(
        f"with {fmt} ones {bytes_words(room) if room else 'nothing'}"
        for fmt, room in zip(finer, rooms, strict=True)
    )
    return (
        f"Weights plain → {chosen.weight_format}, {sizes}: {left} would be left of "
        f"{bytes_words(setup.limit_bytes or 0)} for the cache, which takes "
        f"{bytes_words(useful_bytes)} for {geometry.context_tokens:,} tokens as int8.",
    )


def _refusal(geometry: Geometry, chosen: Setup, least_bytes: int) -> BudgetError:
    """Say what the weights and the least cache need, and with which settings they fit."""
    have_bytes = chosen.limit_bytes or 0

    def need_bytes(setup: Setup) -> int:
        return fixed_bytes(geometry, setup) + least_bytes

    lighter = [own for own in lighter_setups(geometry, chosen) if need_bytes(own) <= have_bytes]
    ways = [f"quantize={own.weight_format!r}" for own in lighter[:1]]
    need = need_bytes(chosen)
    ways.append(f"memory={amount_words(need)!r}")
    rest_bytes = need - weights_bytes(geometry, chosen.weight_format)
    return BudgetError(
        f"{geometry.model} needs {bytes_words(need)}: weights "
        f"{bytes_words(weights_bytes(geometry, chosen.weight_format))} ({chosen.weight_format}), "
        f"and {bytes_words(rest_bytes)} of activations, workspace and a little cache; memory = "
        f"{bytes_words(have_bytes)}.",
        f"{', or '.join(ways)}, or a smaller model.",
        need_bytes=need,
        have_bytes=have_bytes,
    )
