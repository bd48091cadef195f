"""The position scale: what was asked, the smallest that holds a request, what is known of it.

Positions are index / scale, so a context of n positions holds n x scale tokens. A checkpoint's own
scale is part of its context; what is chosen here comes on top. Knows the scale and a function that
drafts; nothing of how a draft comes about.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

from llava_video.errors import BudgetError
from llava_video.planning.draft import Draft
from llava_video.planning.geometry import Geometry
from llava_video.planning.search import least
from llava_video.planning.settings import MOST_POSITION_SCALE, PositionScale
from llava_video.values import Plan

# Scales are chosen in hundredths: finer ones would be hard to read and hold hardly more.
_STEPS = 100

# Beyond this factor no score has been published.
MOST_KNOWN_SCALE = 4.0

# What the demo keeps free for words.
_REFERENCE_TEXT_TOKENS = 1000

DraftAt = Callable[[float], Draft]


def scale_range(
    asked: PositionScale | None, geometry: Geometry, *, num_frames: int, pool_stride: int
) -> tuple[float, float]:
    """Return the least and the largest scale that what was asked allows.

    Args:
        asked: a factor, "auto", "reference", or None for as the model: 1, and where its positions
            are stretched unasked as far as scores are published, the checkpoint's own factor
            counted in.
        geometry: the model.
        num_frames: frames of all videos that are wanted.
        pool_stride: of their maps.
    """
    if asked == "auto":
        return 1.0, MOST_POSITION_SCALE
    if asked == "reference":
        return (reference_scale(geometry, num_frames, pool_stride),) * 2
    if asked is not None:
        return asked, asked
    return 1.0, max(1.0, MOST_KNOWN_SCALE / geometry.rope_scale) if geometry.stretches else 1.0


def reference_scale(geometry: Geometry, num_frames: int, pool_stride: int) -> float:
    """Return the scale by the rule of LLaVA-NeXT-Video's demo: whole contexts for the frames.

    Frames count as side // stride squared, words as 1,000 tokens; the checkpoint's own factor is
    part of the result, so only the rest of it comes on top. 32 frames of 12 x 12 and 1,000 are
    5,608 tokens: two contexts of 4,096.

    Source: LLaVA-NeXT, playground/demo/video_demo.py, `scaling_factor`.
    """
    side = geometry.compressed_side or geometry.patches_per_side // pool_stride
    need_tokens = num_frames * side**2 + _REFERENCE_TEXT_TOKENS
    own_tokens = round(geometry.context_tokens / geometry.rope_scale)
    factor = math.ceil(need_tokens / own_tokens) / geometry.rope_scale
    return min(max(1.0, factor), MOST_POSITION_SCALE)


def smallest_scale(
    context_tokens: int, draft_at: DraftAt, most_scale: float = MOST_POSITION_SCALE
) -> Draft:
    """Return the draft of the smallest scale that shows all that the largest one and memory hold.

    Args:
        context_tokens: positions of the model.
        draft_at: drafts the request at a scale; a larger scale never shows less.
        most_scale: the largest scale.

    Raises:
        BudgetError: it does not fit at the largest scale either.
    """
    most_step = int(most_scale * _STEPS)
    most = draft_at(most_step / _STEPS)
    plan = most.plan
    all_tokens = plan.tokens + plan.max_new_tokens
    enough = max(_STEPS, math.ceil(all_tokens * _STEPS / context_tokens))
    if most.limit.token_bytes is not None:  # memory holds no more, whatever the scale
        return replace(most, plan=replace(plan, position_scale=enough / _STEPS))
    drafts = {most_step: most}

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
        step = least(enough, most_step, shows_all)
    return most if step is None else drafts[step]


def scale_reasons(geometry: Geometry, plan: Plan, asked: PositionScale | None) -> Iterator[str]:
    """Yield why the positions are as they are; nothing where they are the model's plain ones."""
    context = f"{geometry.context_tokens:,} tokens"
    if geometry.rope_scale != 1:
        yield (
            f"The context of {context} includes the checkpoint's own linear position scale of "
            f"{geometry.rope_scale:g}."
        )
    if plan.position_scale == 1:
        return
    if asked in ("auto", None):
        need_tokens = plan.tokens + plan.max_new_tokens
        unasked = " Taken unasked: position_scale=1 keeps positions as trained."
        yield (
            f"position_scale={plan.position_scale:g} is the smallest that holds "
            f"{need_tokens:,} tokens; the context holds {context}.{unasked * (asked is None)}"
        )
    elif asked == "reference":
        yield (
            f"position_scale={plan.position_scale:g} by the rule of LLaVA-NeXT-Video's demo; the "
            f"context holds {context}."
        )
    else:
        yield (
            f"Positions are divided by {plan.position_scale:g} to stretch the context of {context}."
        )


def scale_warnings(geometry: Geometry, position_scale: float) -> Iterator[str]:
    """Yield what is known of the quality at a scale."""
    if position_scale == 1:
        return
    # The one stretched model that was trained on video is the published case, or its kin.
    whose = "" if geometry.stretches and geometry.is_video_trained else " of another model"
    known = (
        f"At position_scale={position_scale:g} positions lie closer than in training, and what "
        f"that costs this model has not been measured. Published is one case{whose}: "
        "LLaVA-NeXT-Video 7B (Vicuna, 4,096 positions) scored 3.12 in video detail at factor 2 "
        "with 32 frames and at factor 4 with 64 (LLaVA-NeXT-Video blog)."
    )
    if geometry.is_qwen:
        known += " The original code never scales Qwen2."
    if position_scale * geometry.rope_scale > MOST_KNOWN_SCALE:
        known += f" Beyond factor {MOST_KNOWN_SCALE:g} nothing is known."
    yield known
