"""A loaded model keeps to the memory it was given, and every answer's plan says how."""

from pathlib import Path

import pytest

from llava_video.api import LlavaVideo, describe_video, load
from llava_video.engine.settings import EngineSettings
from llava_video.errors import BudgetError, ConfigError
from llava_video.planning.memory import cache_bytes, fixed_bytes, token_bytes
from llava_video.preview import plan_video

SHORT = {"max_new_tokens": 6, "num_frames": 4, "loop_guard": False}


def test_a_model_says_how_its_weights_are_kept(tiny_folder: Path) -> None:
    with load(tiny_folder, device="cpu", memory="1GiB", quantize="int8") as model:
        shown = repr(model)
        assert shown.startswith(f"LlavaVideo({str(tiny_folder)!r}, context=32768 tokens, int8")
        assert shown.endswith("KiB of 1.0 GiB)")
        reasons = model.plan(None, "Why?").reasons
    assert reasons[-1].startswith("Weights int8, as asked: ")


def test_weights_that_do_not_fit_are_refused(tiny_folder: Path) -> None:
    with pytest.raises(BudgetError, match="memory = ") as refusal:
        load(tiny_folder, device="cpu", memory="50KiB")
    assert refusal.value.need_bytes > refusal.value.have_bytes == 50 * 1024
    with pytest.raises(ConfigError, match="memory = 'a lot'"):
        load(tiny_folder, memory="a lot")


def small(folder: Path, tokens: int) -> LlavaVideo:
    """Load with memory for so many tokens of int4 cache."""
    with load(folder, device="cpu", memory="1GiB", quantize="plain") as probe:
        geometry, setup = probe.spec.geometry, probe.spec.setup
    limit_bytes = fixed_bytes(geometry, setup) + tokens * token_bytes(geometry, "int4")
    return load(folder, device="cpu", memory=limit_bytes, quantize="plain")


def test_the_cache_is_chosen_and_never_larger_than_its_share(
    tiny_folder: Path, tiny_clip: Path
) -> None:
    """What is planned runs. Of two layers of two heads of 16 channels a token takes 512 bytes in
    float32, 144 as int8, 96 as int4: 2,100 of these are 1,400 as int8 and 393 plain."""
    question = "What happens? " * 30  # some 600 tokens with all else
    with small(tiny_folder, 2100) as model:
        plan = model.plan(tiny_clip, question, **SHORT)
        assert plan.kv_format == "int8"
        assert any(reason.startswith("Cache plain → int8") for reason in plan.reasons)
        seen = model.describe(tiny_clip, question, **SHORT)
        assert seen.plan == plan
        arena = model.engine.arena  # type: ignore[attr-defined]  # the scheduler's
        room = cache_bytes(model.spec.geometry, model.spec.setup)
        assert 0 < arena.held_bytes <= room == arena.limit_bytes
        model.describe(tiny_clip, "And then?", kv_cache="int4", **SHORT)
        assert arena.held_bytes <= room
        with pytest.raises(BudgetError, match="the memory holds"):
            model.describe(tiny_clip, question, kv_cache="plain", **SHORT)


def test_questions_in_a_full_memory_find_room_beside_one_another(
    tiny_folder: Path, tiny_clip: Path
) -> None:
    """2,100 tokens: the first question's 900 or so are kept while the others are answered."""
    questions = ["Why? " * 140, "When and where? " * 40, "Who?"]
    with small(tiny_folder, 2100) as model:
        answers = model.ask_many(tiny_clip, questions, kv_cache="int4", **SHORT)
        assert [answer.usage.new_tokens for answer in answers] == [6, 6, 6]
        assert answers[1].usage.reused_tokens >= answers[1].usage.visual_tokens > 0
        with pytest.raises(BudgetError, match="the memory holds"):
            model.ask_many(tiny_clip, ["Why? " * 260, "Who?"], kv_cache="int4", **SHORT)
        assert model.ask(tiny_clip, "Why? " * 260, kv_cache="int4", **SHORT).text is not None


def test_a_stretched_plan_runs(tiny_folder: Path, tiny_clip: Path) -> None:
    with load(tiny_folder, device="cpu") as model:
        seen = model.describe(tiny_clip, "Why?", position_scale="auto", **SHORT)
        assert seen.plan.position_scale == 1
        seen = model.describe(tiny_clip, "Why?", position_scale=2, **SHORT)
        assert any("has not been measured" in warning for warning in seen.warnings)


def test_a_plan_for_other_weights_is_refused(tiny_model, tiny_folder: Path, tiny_clip: Path):
    plan = plan_video(tiny_clip, model=tiny_folder, device="cpu", quantize="int4", **SHORT)
    with pytest.raises(ConfigError, match="made for int4 weights, this model's are plain"):
        tiny_model.run(plan)


def test_what_is_settled_at_loading_is_not_asked_of_a_loaded_model(tiny_model, tiny_clip) -> None:
    for late in ({"memory": "1GiB"}, {"quantize": "int8"}, {"quantize": None}):
        with pytest.raises(ConfigError, match="settled when a model is loaded"):
            describe_video(tiny_clip, model=tiny_model, **late)


def test_one_call_takes_them_too(tiny_folder: Path, tiny_clip: Path) -> None:
    given = {"model": tiny_folder, "device": "cpu", "memory": "1GiB", "quantize": "int8"}
    seen = describe_video(tiny_clip, "Why?", **given, **SHORT)
    assert seen.plan.weight_format == "int8"


@pytest.mark.parametrize(
    ("rope", "engine", "expected"),
    [
        (None, None, "exact"),
        ("compat", None, "compat"),
        (None, EngineSettings(rope="compat"), "compat"),
        ("exact", EngineSettings(rope="compat"), "exact"),
    ],
)
def test_angles_are_the_loads_or_the_engines(tiny_folder: Path, rope, engine, expected) -> None:
    with load(tiny_folder, device="cpu", rope=rope, engine=engine) as model:
        language_model = model.engine._tools.model.language_model  # type: ignore[attr-defined]  # the scheduler's
        assert language_model.rope == expected
