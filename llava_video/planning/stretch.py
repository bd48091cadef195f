"""The position scale: the smallest that holds a request, and what is known of such scales.

Positions are index / scale, so a context of n positions holds n x scale tokens. Knows the scale and
a function that drafts; nothing of how a draft comes about.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

from llava_video.errors import BudgetError
from llava_video.planning.draft import Draft
from llava_video.planning.geometry import Geometry
from llava_video.planning.search import least
from llava_video.planning.settings import MOST_POSITION_SCALE
from llava_video.values import Plan

# Scales are chosen in hundredths: finer ones would be hard to read and hold hardly more.
_STEPS = 100

# Beyond this factor no score has been published.
MOST_KNOWN_SCALE = 4.0

DraftAt = Callable[[float], Draft]


def smallest_scale(context_tokens: int, draft_at: DraftAt) -> Draft:
    """Return the draft of the smallest scale that shows all that memory has room for.

    Args:
        context_tokens: positions of the model.
        draft_at: drafts the request at a scale; a larger scale never shows less.

    Raises:
        BudgetError: it does not fit at the largest scale either.
    """
    most = draft_at(MOST_POSITION_SCALE)
    plan = most.plan
    all_tokens = plan.tokens + plan.max_new_tokens
    enough = max(_STEPS, math.ceil(all_tokens * _STEPS / context_tokens))
    if most.limit.token_bytes is not None:  # memory holds no more, whatever the scale
        return replace(most, plan=replace(plan, position_scale=enough / _STEPS))
    drafts = {MOST_POSITION_SCALE * _STEPS: most}

    def shows_all(step: int) -> bool:
        try:
            drafts[step] = draft_at(step / _STEPS)
        except BudgetError:
            return False
        return drafts[step].shows_as(most)

    # Whatever the sentence of times, no scale holds it that is too small for the rest.
    rest_tokens = plan.visual_tokens + plan.max_new_tokens
    too_small = max(_STEPS, math.ceil(rest_tokens * _STEPS / context_tokens)) - 1
    step = least(too_small, enough, shows_all)
    if step is None:  # in a smaller room the sentence may be given more tokens than it takes here
        step = least(enough, MOST_POSITION_SCALE * _STEPS, shows_all)
    return most if step is None else drafts[step]


def scale_reasons(geometry: Geometry, plan: Plan, *, is_auto: bool) -> Iterator[str]:
    """Yield why the positions are as they are; nothing where they are the model's plain ones."""
    context = f"{geometry.context_tokens:,} tokens"
    if geometry.rope_scale != 1:
        yield (
            f"The context of {context} includes the checkpoint's own linear position scale of "
            f"{geometry.rope_scale:g}."
        )
    if plan.position_scale == 1:
        return
    if is_auto:
        need_tokens = plan.tokens + plan.max_new_tokens
        yield (
            f"position_scale={plan.position_scale:g} is the smallest that holds "
            f"{need_tokens:,} tokens; the context holds {context}."
        )
    else:
        yield (
            f"Positions are divided by {plan.position_scale:g} to stretch the context of {context}."
        )


def scale_warnings(position_scale: float) -> Iterator[str]:
    """Yield what is known of the quality at a scale."""
    if position_scale == 1:
        return
    known = (
        f"At position_scale={position_scale:g} positions lie closer than in training, and what "
        "that costs this model has not been measured. Published is one case of another model: "
        "LLaVA-NeXT-Video 7B (Vicuna, 4,096 positions) scored 3.12 in video detail at factor 2 "
        "with 32 frames and at factor 4 with 64 (LLaVA-NeXT-Video blog). The original code never "
        "scales Qwen2."
    )
    if position_scale > MOST_KNOWN_SCALE:
        known += f" Beyond factor {MOST_KNOWN_SCALE:g} nothing is known."
    yield known
