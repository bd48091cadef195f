"""A plan that gave something up → what another setting would have held, each of them tried.

Knows the settings and functions that draft; nothing of how a draft comes about.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from llava_video.errors import BudgetError
from llava_video.planning.amount import amount_words, parse_bytes
from llava_video.planning.draft import Draft, wider_words
from llava_video.planning.memory import Setup
from llava_video.planning.search import least
from llava_video.planning.settings import PlanningSettings
from llava_video.values import Plan

DraftWith = Callable[[PlanningSettings, Setup], Draft]


def hints(
    draft: Draft,
    planning: PlanningSettings,
    setup: Setup,
    lighter: Sequence[Setup],
    draft_with: DraftWith,
) -> Iterator[str]:
    """Yield what a position scale, or coarser weights, would allow a draft that is not whole.

    Args:
        draft: what fits.
        planning: the settings it was made with.
        setup: the setup it was made for.
        lighter: the same with coarser weights, the finest first.
        draft_with: drafts the same request otherwise.
    """
    if draft.is_whole:
        return
    if planning.position_scale != "auto" and draft.limit.token_bytes is None:
        stretched = draft_with(replace(planning, position_scale="auto"), setup)
        if not stretched.shows_as(draft):
            scale = stretched.plan.position_scale
            yield f"position_scale={scale:g} would hold {wider_words(stretched, draft)}."
    if draft.limit.token_bytes is not None:
        wider = _widest(draft, planning, lighter, draft_with)
        if wider is not None:
            weight_format = wider.plan.weight_format
            yield f"quantize={weight_format!r} would hold {wider_words(wider, draft)}."


def other_setups(
    setup: Setup, lighter: Sequence[Setup], plan_for: Callable[[Setup], Plan]
) -> Iterator[tuple[dict[str, Any], Plan]]:
    """Yield setups that a refused request fits: the finest coarser weights, and more memory.

    Args:
        setup: the one that was refused.
        lighter: the same with coarser weights, the finest first.
        plan_for: plans the same request for another setup.

    Yields:
        The setting as users name it, and the plan with it.
    """

    def tried(own: Setup) -> Plan | None:
        try:
            return plan_for(own)
        except BudgetError:
            return None

    if setup.limit_bytes is None:
        return
    for own in lighter:
        if plan := tried(own):
            yield {"quantize": own.weight_format}, plan
            break
    amount = _least_memory(setup, setup.limit_bytes, lambda own: tried(own) is not None)
    if amount is not None:
        yield {"memory": amount}, plan_for(replace(setup, limit_bytes=parse_bytes(amount)))


def _widest(
    draft: Draft, planning: PlanningSettings, lighter: Sequence[Setup], draft_with: DraftWith
) -> Draft | None:
    """Return the first draft that is whole, else the last that shows more; None where none does."""
    found = None
    for own in lighter:
        try:
            other = draft_with(planning, own)
        except BudgetError:  # of a model of few layers, one made plain again outweighs the saving
            continue
        if not other.shows_as(draft):
            found = other
        if other.is_whole:
            break
    return found


def _least_memory(setup: Setup, have_bytes: int, does_fit: Callable[[Setup], bool]) -> str | None:
    """Return the least memory the request fits, to a tenth of its unit, as `parse_bytes` reads it.

    None where memory is not all that it lacks.
    """

    def fits(limit_bytes: int | None) -> bool:
        return does_fit(replace(setup, limit_bytes=limit_bytes))

    if not fits(None):
        return None
    enough_bytes = 2 * have_bytes
    while not fits(enough_bytes):
        enough_bytes *= 2
    step_bytes = max(1, enough_bytes // 1024)
    found = least(
        have_bytes // step_bytes,
        -(-enough_bytes // step_bytes),
        lambda step: fits(parse_bytes(amount_words(step * step_bytes))),
    )
    return None if found is None else amount_words(found * step_bytes)
