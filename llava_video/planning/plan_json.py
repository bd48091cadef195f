"""JSON text of `Plan.to_json` → the plan again, equal and checked.

Numbers keep every digit. Knows nothing of how plans are made, but recounts their tokens.
"""

import json
from collections.abc import Mapping

from llava_video.config import from_mapping
from llava_video.errors import ConfigError
from llava_video.planning.layout import count_tokens
from llava_video.values import Plan, VisualPlan


def plan_from_json(text: str) -> Plan:
    """Read a plan.

    Raises:
        ConfigError: the text is no JSON, no plan, or a plan whose numbers contradict one another.
    """
    hint = "write it with Plan.to_json()."
    try:
        values = json.loads(text)
    except ValueError as cause:
        raise ConfigError(f"this is no JSON: {cause}.", hint) from cause
    if not isinstance(values, Mapping):
        raise ConfigError(f"a plan is a JSON object, not {type(values).__name__}.", hint)
    plan = from_mapping(Plan, values)
    for visual in plan.visuals:
        _check_consistent(visual)
    return plan


def _check_consistent(visual: VisualPlan) -> None:
    if not visual.times_s or len(visual.times_s) != len(visual.frame_idxs):
        raise ConfigError(
            f"{visual.source}: {len(visual.times_s)} times for {len(visual.frame_idxs)} frames.",
            "one time per frame, at least one.",
        )
    counted = count_tokens(visual)
    if counted != visual.num_tokens:
        raise ConfigError(
            f"{visual.source}: the plan says {visual.num_tokens:,} visual tokens, its parts give "
            f"{counted:,}.",
            "plan it again instead of editing a plan.",
        )
