"""Every member of the family describes a video: its plan, its prompt and an answer.

What is expected is counted by hand from what is published of each line; a tile has p x p patches:

* LLaVA, LLaVA-1.5: p * p tokens a frame, frames cropped or padded to a square, no newline;
* LLaVA-NeXT: a frame is one squeezed tile, as a picture's overview, and a newline: p * p + 1;
* LLaVA-NeXT-Video: maps of features pooled to p // 2, no newline: 24 -> 12 * 12 = 144;
* LLaVA-Mini: C * C tokens a frame, one frame a second, resized by nearest neighbours;
* OneVision and Critic: (p + 1) // 2 each way and one newline at the end; LLaVA-Video: one per row.

Positions are scaled where a context is too short: by what the prompt needs over what there is.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from llava_video.api import describe_video, load
from llava_video.model.tiny import write_tiny_checkpoint
from llava_video.values import Description, Fit, Newline, Plan

QUESTION = "What happens?"
NUM_NEW = 6
_CHAT = (
    "A chat between a curious {0} and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the {0}'s questions. USER: {1}\n{2} ASSISTANT:"
)
_SEES = (
    "You are a helpful language and vision assistant. You are able to understand the visual "
    "content that the user provides, and assist the user with a variety of tasks using natural "
    "language."
)
_TURN = "<|start_header_id|>{0}<|end_header_id|>\n\n"
_QWEN = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n<image>\n{0}<|im_end|>\n<|im_start|>assistant\n"
)
PROMPTS = {
    "llava_v1": _CHAT.format("human", "<im_start><image><im_end>", QUESTION),
    "vicuna_v1": _CHAT.format("user", "<image>", QUESTION),
    "plain": f"<image>\n{QUESTION}\n",
    "llava_llama_3_1": "<|begin_of_text|>"
    + f"{_TURN.format('system')}{_SEES}<|eot_id|>"
    + f"{_TURN.format('user')}<image>\n{QUESTION}<|eot_id|>"
    + _TURN.format("assistant"),
    "qwen_1_5": _QWEN.format(QUESTION),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the facts say of one member's plan."""

    member: str
    template: str
    frames: int
    per_frame: int
    fit: Fit
    newline: Newline = Newline.NONE
    more: int = 0  # tokens of the whole clip
    context: int = 4096
    is_of_pictures: bool = False
    is_fused: bool = False
    is_timed: bool = False


def pictures(member: str, template: str, per_frame: int, fit: Fit, **facts: object) -> Expected:
    return Expected(
        member=member,
        template=template,
        frames=8,
        per_frame=per_frame,
        fit=fit,
        is_of_pictures=True,
        **facts,
    )


# 640 x 480 px, 315 frames at 29.97 a second: 10.51 s, of which 0 to 10 s are 11 whole seconds.
GOLDEN: Mapping[str, Expected] = {
    "family/llava-v1-tiny": pictures("LLaVA", "llava_v1", 16 * 16, "crop", context=2048),
    "family/llava-v1.5-tiny": pictures("LLaVA-1.5", "vicuna_v1", 24 * 24, "pad"),
    "family/llava-v1.5-tiny-lora": pictures("LLaVA-1.5", "vicuna_v1", 24 * 24, "pad"),
    "family/llava-pretrain-tiny": pictures("LLaVA-1.5", "plain", 24 * 24, "crop"),
    "family/llava-v1.6-tiny": pictures(
        "LLaVA-NeXT", "vicuna_v1", 24 * 24 + 1, "squeeze", newline=Newline.FRAME
    ),
    "family/LLaVA-NeXT-Video-tiny": Expected(
        member="LLaVA-NeXT-Video",
        template="vicuna_v1",
        frames=32,
        per_frame=12 * 12,
        fit="crop",
        context=4096 * 2,
    ),
    "family/llava-mini-tiny": Expected(
        member="LLaVA-Mini",
        template="llava_llama_3_1",
        frames=11,
        per_frame=1,
        fit="nearest",
        context=131_072,
        is_fused=True,
    ),
    "family/llava-mini-hd-tiny": Expected(
        member="LLaVA-Mini",
        template="llava_llama_3_1",
        frames=11,
        per_frame=2 * 2,
        fit="nearest",
        context=131_072,
        is_fused=True,
    ),
    "onevision_video/model_a": Expected(
        member="LLaVA-Video",
        template="qwen_1_5",
        frames=64,
        per_frame=14 * (14 + 1),
        fit="squeeze",
        newline=Newline.ROW,
        context=32_768,
        is_timed=True,
    ),
}
# 40 frames at 30 a second: 1.33 s. Tiles of 4 x 4 patches.
TINY: Mapping[str, Expected] = {
    "LLaVA": pictures("LLaVA", "llava_v1", 16, "crop", context=2048),
    "LLaVA-1.5": pictures("LLaVA-1.5", "vicuna_v1", 16, "pad"),
    "LLaVA-NeXT": pictures("LLaVA-NeXT", "vicuna_v1", 17, "squeeze", newline=Newline.FRAME),
    "LLaVA-NeXT-Video": Expected(
        member="LLaVA-NeXT-Video", template="vicuna_v1", frames=32, per_frame=4, fit="crop"
    ),
    "LLaVA-Mini": Expected(
        member="LLaVA-Mini",
        template="llava_llama_3_1",
        frames=2,
        per_frame=1,
        fit="nearest",
        context=131_072,
        is_fused=True,
    ),
    **{
        member: Expected(
            member=member,
            template="qwen_1_5",
            frames=32,
            per_frame=4,
            fit="squeeze",
            newline=Newline.CLIP,
            more=1,
            context=32_768,
        )
        for member in ("LLaVA-Critic", "LLaVA-OneVision")
    },
    "LLaVA-Video": Expected(
        member="LLaVA-Video",
        template="qwen_1_5",
        frames=40,
        per_frame=2 * (2 + 1),
        fit="squeeze",
        newline=Newline.ROW,
        context=32_768,
        is_timed=True,
    ),
}
BASES = {"llava-v1.5-tiny-lora": "llava-v1.5-tiny", "llava-pretrain-tiny": "llava-v1.5-tiny"}


def assert_as_expected(answer: Description, expected: Expected) -> None:
    plan = answer.plan
    (visual,) = plan.visuals
    assert (visual.num_frames, visual.fit) == (expected.frames, expected.fit)
    assert visual.newline == expected.newline
    assert visual.num_tokens == expected.frames * expected.per_frame + expected.more
    assert visual.is_fused == expected.is_fused
    assert plan.reusable_prefix == (not expected.is_fused)
    assert plan.context_tokens == expected.context
    assert plan.position_scale == pytest.approx(scale_for(plan, expected.context))
    told = any("not trained on video" in reason for reason in plan.reasons)
    assert told == expected.is_of_pictures
    if expected.is_timed:
        before, after = PROMPTS[expected.template].split(QUESTION)
        assert plan.prompt.startswith(f"{before}The video lasts for ")
        assert plan.prompt.endswith(f" related to this video.\n{QUESTION}{after}")
    else:
        assert plan.prompt == PROMPTS[expected.template]
    assert answer.usage.visual_tokens == visual.num_tokens
    assert 0 < answer.usage.new_tokens <= NUM_NEW
    assert isinstance(answer.text, str)


def scale_for(plan: Plan, context: int) -> float:
    """Return the least scale of two decimals at which text, visuals and answer fit."""
    needed = plan.text_tokens + plan.visual_tokens + NUM_NEW
    return max(1.0, math.ceil(100 * needed / context - 1e-9) / 100)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_member_of_the_golden_sets_describes_a_real_video(shared: Path, videos: Path, name: str):
    folder, expected = shared / "golden" / name, GOLDEN[name]
    base = BASES.get(folder.name)
    with load(folder, device="cpu", base=folder.parent / base if base else None) as model:
        assert model.spec.config.member == expected.member
        assert model.spec.config.template == expected.template
        options = {"max_new_tokens": NUM_NEW}
        answer = describe_video(videos / "safari.mp4", QUESTION, model=model, **options)
        assert_as_expected(answer, expected)


@pytest.mark.parametrize("member", TINY)
def test_a_tiny_member_describes_a_clip(tmp_path: Path, tiny_clip: Path, member: str):
    expected = TINY[member]
    folder = write_tiny_checkpoint(tmp_path / member.lower(), member=member)
    with load(folder, device="cpu") as model:
        assert model.spec.config.member == expected.member
        assert model.spec.config.template == expected.template
        answer = describe_video(tiny_clip, QUESTION, model=model, max_new_tokens=NUM_NEW)
        assert_as_expected(answer, expected)
        chosen = model.ask(tiny_clip, QUESTION, response_format=["yes", "no"])
        assert 0 < chosen.confidence < 1  # not so with a logit that is no number


@pytest.mark.parametrize("member", [name for name in TINY if name not in ("LLaVA", "LLaVA-Mini")])
def test_either_layout_gives_the_same_answer(tmp_path: Path, tiny_clip: Path, member: str):
    texts = []
    for layout in ("original", "hf"):
        folder = tmp_path / layout / member.lower()
        write_tiny_checkpoint(folder, member=member, layout=layout, seed=3)
        answer = describe_video(tiny_clip, QUESTION, model=folder, max_new_tokens=NUM_NEW)
        assert_as_expected(answer, TINY[member])
        texts.append(answer.text)
    assert texts[0] == texts[1]


def test_positions_are_scaled_where_the_context_is_short(tmp_path: Path, tiny_clip: Path):
    """8 frames of 16 tokens and a prompt of bytes are about 320 tokens: of 256, 1.25."""
    folder = write_tiny_checkpoint(tmp_path / "llava-1.5", member="LLaVA-1.5", context_tokens=256)
    answer = describe_video(tiny_clip, QUESTION, model=folder, max_new_tokens=NUM_NEW)
    assert answer.plan.position_scale == pytest.approx(scale_for(answer.plan, 256))
    assert 1.2 < answer.plan.position_scale < 1.3
    assert answer.plan.visual_tokens == 8 * 16
