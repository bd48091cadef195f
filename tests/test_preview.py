"""A plan without weights: exact token counts, the default words, and the limits of a follow-up."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llava_video.engine.settings import EngineSettings
from llava_video.errors import BudgetError, CheckpointError, ConfigError
from llava_video.fitting import set_up
from llava_video.inputs import OpenedPicture, Picture
from llava_video.model.card import ModelCard
from llava_video.model.prompt import Turn
from llava_video.model.spec import ModelSpec, read_spec
from llava_video.options import settings_of
from llava_video.planning.amount import parse_bytes
from llava_video.planning.memory import cache_bytes, token_bytes
from llava_video.planning.settings import MemorySettings
from llava_video.preview import follow_up, plan_video, turns_of


def test_the_prompt_says_the_true_times_and_is_counted(tiny_folder: Path, tiny_clip: Path) -> None:
    plan = plan_video(tiny_clip, "Why?", model=tiny_folder, num_frames=3)
    assert "3 frames are uniformly sampled from it" in plan.prompt
    assert "0.00s,0.63s,1.30s" in plan.prompt
    assert plan.prompt.count("<image>") == len(plan.visuals) == 1
    tokenizer = read_spec(tiny_folder).tokenizer
    assert plan.text_tokens == tokenizer.num_text_tokens(plan.prompt)
    ids = tokenizer.encode_prompt(plan.prompt)
    assert plan.text_tokens == sum(len(piece) for piece in ids if isinstance(piece, list))


def test_the_template_is_the_checkpoints_or_another_by_name(
    tiny_folder: Path, tiny_clip: Path
) -> None:
    own = plan_video(tiny_clip, "Why?", model=tiny_folder).prompt
    assert own.startswith("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n")
    named = plan_video(tiny_clip, "Why?", model=tiny_folder, template="vicuna_v1")
    assert named.prompt.endswith("Why? ASSISTANT:")
    assert "<|im_start|>" not in named.prompt
    spec = read_spec(tiny_folder).with_template("vicuna_v1")
    follow = follow_up(spec, named, [Turn("user", "When?")], settings_of({}))
    assert follow.prompt == named.prompt.replace("Why?", "When?")
    with pytest.raises(ConfigError, match="template = 'vicuna'") as caught:
        plan_video(tiny_clip, model=tiny_folder, template="vicuna")
    assert "'vicuna_v1'" in caught.value.hint


@pytest.mark.parametrize(
    ("template", "missing"),
    [
        (None, ""),
        ("qwen_2", ""),
        ("llava_v0", ""),  # ### is plain text to every model
        ("vicuna_v1", "</s>"),
        ("llava_llama_3", "<|begin_of_text|>, <|start_header_id|>, <|end_header_id|>, <|eot_id|>"),
    ],
)
def test_a_template_of_tokens_the_model_lacks_is_told(
    tiny_folder: Path, tiny_clip: Path, template: str | None, missing: str
) -> None:
    own = plan_video(tiny_clip, "Why?", model=tiny_folder).warnings
    warnings = plan_video(tiny_clip, "Why?", model=tiny_folder, template=template).warnings
    told = [warning for warning in warnings if warning not in own]
    if not missing:
        assert told == []
        return
    (warning,) = told
    assert warning.startswith(f"template = {template!r} is written with {missing}, which this")
    assert "Leave template= out" in warning


def test_marks_have_their_ends_where_the_checkpoint_has_them(
    tiny_folder: Path, tiny_clip: Path
) -> None:
    plan = plan_video(tiny_clip, "Why?", model=tiny_folder)
    spec = read_spec(tiny_folder)
    v1 = replace(spec, config=replace(spec.config, has_mark_ends=True))
    asked = follow_up(v1, plan, [Turn("user", "Why?")], settings_of({}))
    assert asked.prompt == plan.prompt.replace("<image>", "<im_start><image><im_end>")
    assert asked.text_tokens == plan.text_tokens + len("<im_start><im_end>")  # one id a byte


def test_without_words_and_visuals_there_is_nothing_to_do() -> None:
    with pytest.raises(ConfigError, match="neither a video nor a question"):
        turns_of(None, ())


def test_a_picture_is_planned_too(tiny_folder: Path, tmp_path: Path) -> None:
    import numpy as np

    plan = plan_video(Picture(np.zeros((40, 60, 3), np.uint8)), model=tiny_folder)
    assert plan.visuals[0].kind == "image"
    assert "describe this image" in plan.prompt
    assert "located at" not in plan.prompt


@pytest.mark.usefixtures("demo_checkpoint")
def test_the_demo_model_looks_as_it_was_trained_to() -> None:
    """Twice a second, 24 times at most; what is asked for comes first. 20 tokens: 4 x (4 + 1)."""
    second = np.zeros((10, 48, 64, 3), np.uint8)

    def plan_of(num_s: int, **options: int) -> tuple[int, tuple[float, ...], int]:
        video = (np.concatenate([second] * num_s), [0.1 * i for i in range(10 * num_s)])
        plan = plan_video(video, "Why?", model="demo", **options)
        (visual,) = plan.visuals
        return visual.num_frames, visual.times_s[:3], plan.visual_tokens

    assert plan_of(7) == (14, (0.0, 0.5, 1.0), 14 * 20)
    assert plan_of(12) == (24, (0.0, 0.5, 1.0), 24 * 20)
    frames, times_s, _ = plan_of(20)
    assert (frames, times_s[0]) == (24, 0.0)
    assert times_s[2] > 1.5  # spread over 20 s, no longer twice a second
    assert plan_of(7, fps=1) == (7, (0.0, 1.0, 2.0), 7 * 20)
    assert plan_of(7, num_frames=2)[0] == 2
    assert plan_of(7, max_frames=5)[0] == 5


def test_a_description_is_asked_for_in_words_that_the_model_was_taught() -> None:
    picture = OpenedPicture(frame=np.zeros((8, 8, 3), np.uint8), name="a", identity="a")
    card = ModelCard(name="toy", describe="What is there?")
    assert turns_of(None, (picture,), card) == (Turn("user", "What is there?"),)
    own = (Turn("user", "Please describe this image in detail."),)
    assert turns_of(None, (picture,), ModelCard(name="toy")) == own
    assert turns_of(None, (picture,)) == own
    assert turns_of("Why?", (picture,), card) == (Turn("user", "Why?"),)


def test_an_unknown_model_is_a_checkpoint_error(tiny_clip: Path) -> None:
    with pytest.raises(CheckpointError):
        plan_video(tiny_clip, model="no/such/folder/here")


def test_memory_is_counted_for_the_device(tiny_folder: Path, tiny_clip: Path) -> None:
    """Float32 and two tiles at a time on a CPU; a GPU halves the numbers, and keeps workspace."""
    gpu = plan_video(tiny_clip, model=tiny_folder).memory
    cpu = plan_video(tiny_clip, model=tiny_folder, device="cpu").memory
    assert cpu.weights_bytes == 2 * gpu.weights_bytes
    assert cpu.kv_bytes == 2 * gpu.kv_bytes
    assert (cpu.workspace_bytes, gpu.workspace_bytes) == (0, 375_809_638)
    named = plan_video(tiny_clip, model=tiny_folder, device="cpu", dtype="bfloat16").memory
    assert named.weights_bytes == gpu.weights_bytes
    with pytest.raises(ConfigError, match="device = 'toaster'"):
        plan_video(tiny_clip, model=tiny_folder, device="toaster")


def test_memory_chooses_weights_and_cache(tiny_folder: Path, tiny_clip: Path) -> None:
    def plan(memory: str | int, **asked: object):
        return plan_video(tiny_clip, model=tiny_folder, device="cpu", memory=memory, **asked)

    with pytest.raises(BudgetError) as refusal:
        plan("1MiB")
    assert refusal.value.need_bytes > refusal.value.have_bytes == 2**20
    (least,) = re.findall("memory='(.*?)'", refusal.value.hint)
    small = plan(least)
    assert (small.weight_format, small.reasons[-1][:19]) == ("int4", "Weights plain → int")
    assert small.memory.total_bytes <= parse_bytes(least)
    large = plan("2GiB")
    assert (large.weight_format, large.kv_format) == ("plain", "plain")
    assert plan("2GiB", quantize="int8", kv_cache="int4").kv_format == "int4"
    assert plan("2GiB", quantize="int8").weight_format == "int8"
    with pytest.raises(ConfigError, match="memory = 'lots'"):
        plan("lots")
    with pytest.raises(ConfigError, match="quantize = 'int2'"):
        plan("2GiB", quantize="int2")


def small_spec(folder: Path, num_tokens: int) -> ModelSpec:
    """Return a spec whose memory leaves so many tokens of int4 cache."""
    spec = read_spec(folder, dtype="float32")

    def set_up_for(memory: int) -> ModelSpec:
        asked = MemorySettings(memory=memory, quantize="plain")
        return replace(spec, setup=set_up(spec.geometry, asked, EngineSettings(), kind="cpu"))

    ample = 2**30
    left = cache_bytes(spec.geometry, set_up_for(ample).setup)
    return set_up_for(ample - left + num_tokens * token_bytes(spec.geometry, "int4"))


def test_a_follow_up_is_counted_and_stays_within_the_memory(
    tiny_folder: Path, tiny_clip: Path
) -> None:
    spec = small_spec(tiny_folder, 3000)
    plan = plan_video(tiny_clip, "Why?", model=tiny_folder, device="cpu", kv_cache="int4")
    longer = follow_up(spec, plan, [Turn("user", "Why, and when? " * 10)], settings_of({}))
    added = longer.text_tokens - plan.text_tokens
    assert longer.memory.kv_bytes - plan.memory.kv_bytes == added * token_bytes(
        spec.geometry, "int4"
    )
    with pytest.raises(BudgetError, match="the memory holds 3000") as refusal:
        follow_up(spec, plan, [Turn("user", "Why? " * 600)], settings_of({}))
    assert refusal.value.need_tokens > refusal.value.have_tokens == 3000
    with pytest.raises(BudgetError, match="the context holds 32768"):
        follow_up(read_spec(tiny_folder), plan, [Turn("user", "Why? " * 9000)], settings_of({}))


def test_planning_needs_no_torch(tiny_folder: Path, tiny_clip: Path) -> None:
    code = (
        "import sys; from llava_video.preview import plan_video; "
        f"plan_video({str(tiny_clip)!r}, model={str(tiny_folder)!r}); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
