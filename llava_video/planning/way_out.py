"""A request that does not fit → settings with which it does, each of them tried.

Knows the knobs and a function that plans; knows nothing of how a plan comes about.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from llava_video.errors import BudgetError, ConfigError
from llava_video.planning.sacrifice import COARSEST_STRIDE
from llava_video.planning.search import least
from llava_video.planning.settings import PlanningSettings
from llava_video.planning.stretch import MOST_KNOWN_SCALE
from llava_video.values import Grid, Plan

# Plans the same request with other settings, and with a prompt shorter by so many tokens.
PlanWith = Callable[[PlanningSettings, int], Plan]
Changes = dict[str, Any]

# Answers below this say nothing, and of scales above MOST_KNOWN_SCALE nothing is known: neither is
# worth suggesting.
_SHORTEST_ANSWER_TOKENS = 16
_MOST_WAYS = 3


def way_out(
    planning: PlanningSettings,
    plan_with: PlanWith,
    *,
    prompt_tokens: int,
    others: Iterable[tuple[Changes, Plan]] = (),
) -> str:
    """Return the hint of a BudgetError: up to three changes of settings that fit.

    Args:
        planning: the settings that did not fit.
        plan_with: plans the request changed; raises BudgetError when that does not fit either.
        prompt_tokens: tokens of the prompt without time sentences, which can be shortened.
        others: changes that are no planning settings, with the plan by each.
    """

    def planned(changes: Changes) -> Plan:
        return plan_with(replace(planning, **changes), 0)

    ways = [(way, planned(way)) for way in _single_ways(planning, plan_with)]
    ways += others
    if not ways:
        ways = [(way, planned(way)) for way in _joint_ways(planning, plan_with)]
    if ways:
        return ", or ".join(_words(way, plan) for way, plan in ways[:_MOST_WAYS]) + "."
    cut = least(0, prompt_tokens, lambda tokens: _fits(planning, plan_with, tokens))
    if cut is not None:
        return f"shorten the prompt by {cut:,} tokens."
    return "no setting makes room for one frame: take a model with a longer context."


def _single_ways(planning: PlanningSettings, plan_with: PlanWith) -> Iterator[Changes]:
    """Yield changes of one knob, or of the pinned ones together, that fit."""

    def fits(**changes: Any) -> bool:
        return _fits(replace(planning, **changes), plan_with)

    yield from islice((way for way in _coarser(planning) if fits(**way)), 1)
    if planning.kv_cache != "auto" and fits(kv_cache="auto"):
        yield {"kv_cache": "auto"}
    if planning.image_aspect != "pad" and fits(image_aspect="pad"):
        yield {"image_aspect": "pad"}
    if planning.max_video_tokens is not None:
        low = planning.max_video_tokens
        cap = least(low, low + 2**20, lambda tokens: fits(max_video_tokens=tokens))
        if cap is not None:
            yield {"max_video_tokens": cap}
    asked = planning.max_new_tokens
    cut = least(
        0, asked - _SHORTEST_ANSWER_TOKENS, lambda tokens: fits(max_new_tokens=asked - tokens)
    )
    if cut is not None:
        yield {"max_new_tokens": asked - cut}
    if planning.position_scale != "auto":
        given = planning.position_scale
        low = math.ceil(given * 100) if isinstance(given, float | int) else 100
        high = int(MOST_KNOWN_SCALE * 100)
        hundredths = least(low, high, lambda scale: fits(position_scale=scale / 100))
        if hundredths is not None:
            yield {"position_scale": hundredths / 100}


def _joint_ways(planning: PlanningSettings, plan_with: PlanWith) -> Iterator[Changes]:
    """Yield everything at its coarsest, with one more knob where that is not enough."""
    coarsest = _coarsest(planning)
    if not coarsest:
        return
    low = replace(planning, **coarsest)
    if _fits(low, plan_with):
        yield coarsest
        return
    yield from ({**coarsest, **way} for way in _single_ways(low, plan_with))


def _coarser(planning: PlanningSettings) -> Iterator[Changes]:
    """Yield what the pinned knobs could be instead, the least change first."""
    strides: list[Changes] = []
    if planning.pool_stride is not None:
        finer = range(planning.pool_stride + 1, COARSEST_STRIDE + 1)
        strides = [{"pool_stride": stride} for stride in finer]
    yield from strides
    if isinstance(planning.grid, Grid):
        yield {"grid": "off"}
        yield from ({"grid": "off", **stride} for stride in strides)


def _coarsest(planning: PlanningSettings) -> Changes:
    changes: Changes = {}
    for way in _coarser(planning):
        changes |= way
    if planning.image_aspect != "pad":
        changes["image_aspect"] = "pad"
    if planning.max_video_tokens is not None:
        changes["max_video_tokens"] = None
    if planning.kv_cache != "auto":
        changes["kv_cache"] = "auto"
    return changes


def _fits(planning: PlanningSettings, plan_with: PlanWith, shorter_by: int = 0) -> bool:
    try:
        plan_with(planning, shorter_by)
    except (BudgetError, ConfigError):  # a coarser stride may leave nothing of a small map
        return False
    return True


def _words(way: Changes, plan: Plan) -> str:
    settings = " and ".join(f"{name}={value!r}" for name, value in way.items())
    num_frames = sum(visual.num_frames for visual in plan.visuals if visual.kind == "video")
    frames = f"{num_frames} frame{'s'[: num_frames != 1]}, " if num_frames else ""
    return f"{settings} ({frames}{plan.visual_tokens:,} visual tokens)"
