"""The planner's fixtures, which the tests of the plan's table use too."""

from planning_fixtures import (
    geometry,
    make_info,
    mini,
    mini_hd,
    next_pictures,
    next_video,
    one_vision,
    plan_one,
    text_of,
)

__all__ = [
    "geometry",
    "make_info",
    "mini",
    "mini_hd",
    "next_pictures",
    "next_video",
    "one_vision",
    "plan_one",
    "text_of",
]
