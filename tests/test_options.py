"""Flat keywords reach the right stage, and a mistyped one is named."""

from datetime import timedelta

import pytest

from llava_video.errors import ConfigError
from llava_video.options import PLAN_OPTIONS, answer_settings, settings_of
from llava_video.values import Grid, Newline
from llava_video.video.settings import SandboxSettings

pytest_plugins = ["planning_fixtures"]


def test_every_keyword_reaches_its_stage() -> None:
    settings = settings_of(
        {
            "start": "1:02",
            "end": timedelta(seconds=90),
            "fps": 2,
            "grid": (2, 3),
            "newline": "frame",
        }
        | {"max_new_tokens": 7, "temperature": 0.5, "stop": "END", "reader": "pyav"}
        | {"allow_private": True, "sandbox": True}
    )
    assert (settings.sampling.start_s, settings.sampling.end_s) == (62.0, 90.0)
    assert settings.sampling.fps == 2
    assert settings.planning.grid == Grid(2, 3)
    assert settings.planning.newline is Newline.FRAME
    assert settings.planning.max_new_tokens == settings.generation.max_new_tokens == 7
    assert (settings.generation.temperature, settings.generation.stop) == (0.5, ("END",))
    assert settings.reader == "pyav"
    assert settings.sandbox
    assert not settings_of({}).sandbox
    limits = SandboxSettings(max_pixels=1)
    assert settings_of({"sandbox": limits}).sandbox is limits
    assert settings.fetch.allow_private
    assert not settings_of({}).fetch.allow_private


def test_how_memory_and_positions_are_used_is_planned() -> None:
    planning = settings_of({"position_scale": "auto", "kv_cache": "int8"}).planning
    assert (planning.position_scale, planning.kv_cache) == ("auto", "int8")
    assert settings_of({"position_scale": 2}).planning.position_scale == 2
    assert {"position_scale", "kv_cache"} <= PLAN_OPTIONS


def test_a_plan_is_run_with_options_of_the_answer_alone(make_info, plan_one) -> None:
    plan = plan_one(make_info(), max_new_tokens=77)
    settings = answer_settings(plan, {"temperature": 0.5, "reader": "pyav"})
    assert (settings.generation.max_new_tokens, settings.generation.temperature) == (77, 0.5)
    for option in ("kv_cache", "fps", "max_new_tokens"):
        with pytest.raises(ConfigError, match=f"was given {option}"):
            answer_settings(plan, {option: "int8"})


def test_every_option_is_a_field_of_some_stage() -> None:
    from llava_video.options import _RENAMED, Options
    from llava_video.options import Settings as All

    plain = settings_of({})
    names = {
        name
        for stage in ("sampling", "planning", "generation")
        for name in dir(getattr(plain, stage))
    }
    names |= set(All.__dataclass_fields__) | set(dir(plain.fetch))
    missing = [n for n in Options.__annotations__ if _RENAMED.get(n, n) not in names]
    assert not missing


def test_an_unknown_keyword_is_a_type_error_that_names_the_nearest() -> None:
    with pytest.raises(TypeError, match="did you mean 'num_frames'"):
        settings_of({"num_frame": 8})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("grid", (1, 2, 3)),
        ("grid", "many"),
        ("newline", "word"),
        ("reader", "opencv"),
        ("sandbox", 1),
        ("sandbox", {"max_pixels": 1}),
        ("num_frames", -1),
        ("num_frames", 0),
        ("fps", 0),
        ("fps", float("nan")),
        ("max_video_tokens", -5),
        ("max_new_tokens", 0),
        ("temperature", -0.1),
        ("start", "yesterday"),
        ("detail", "ultra"),
        ("compat", "mine"),
        ("pool_stride", 0),
        ("times", 5),
        ("stop", 5),
        ("position_scale", "most"),
        ("position_scale", 0.5),
        ("kv_cache", "int2"),
        ("allow_private", "yes"),
    ],
)
def test_a_bad_value_is_a_config_error_that_shows_it(option: str, value: object) -> None:
    with pytest.raises(ConfigError) as raised:
        settings_of({option: value})
    assert str(value)[:3] in str(raised.value)
