"""Planned = built = consumed, and the question is whole: random videos through the real engine."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llava_video.api import LlavaVideo
from llava_video.engine.elements import VisualRun
from llava_video.engine.request import VisualPart
from llava_video.errors import BudgetError, ConfigError
from llava_video.exchange import open_exchange
from llava_video.model.checkpoint import load_model
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import read_model_config
from llava_video.options import settings_of
from llava_video.running import answer_one
from llava_video.values import Plan
from llava_video.world.bars import paint_index

QUESTION = "Which frame shows the last bar?"
NUM_NEW = 3


@pytest.fixture(scope="module")
def weights(tiny_folder: Path) -> LlavaModel:
    return load_model(tiny_folder, config=read_model_config(tiny_folder), device="cpu")


@st.composite
def requests(draw: st.DrawFn) -> tuple[tuple[int, int], list[float], dict]:
    """Draw the size of frames, the gaps between them, and the options of a request."""
    num_frames = draw(st.integers(1, 40))
    height_px, width_px = draw(st.integers(8, 160)), draw(st.integers(8, 160))
    gaps_s = draw(st.lists(st.floats(0.01, 90), min_size=num_frames, max_size=num_frames))
    options = {
        "max_video_tokens": draw(st.none() | st.integers(1, 1200)),
        "num_frames": draw(st.none() | st.integers(1, 50)),
        "fps": draw(st.none() | st.sampled_from([0.1, 1.0, 8.0])),
        "newline": draw(st.sampled_from([None, "row", "frame", "clip", "none"])),
        "pool_mode": draw(st.sampled_from([None, "bilinear", "average", "max"])),
    }
    if draw(st.booleans()):
        options["detail"] = draw(st.sampled_from(["low", "medium", "high"]))
    else:
        options["grid"] = draw(st.sampled_from([None, "auto", "off"]))
        options["pool_stride"] = draw(st.sampled_from([None, 1, 2, 3, 4]))
    return (height_px, width_px), gaps_s, {k: v for k, v in options.items() if v is not None}


@pytest.mark.slow
@given(asked_for=requests())
@settings(max_examples=300)
def test_planned_is_built_is_consumed(
    tiny_model: LlavaVideo, weights: LlavaModel, asked_for: tuple
) -> None:
    size_px, gaps_s, options = asked_for
    frames = np.stack([paint_index(idx, *size_px) for idx in range(len(gaps_s))])
    video = (frames, np.cumsum(gaps_s) - gaps_s[0])
    asked = settings_of({**options, "max_new_tokens": NUM_NEW, "loop_guard": False})
    try:
        exchange = open_exchange(tiny_model.spec, video, QUESTION, asked)
    except BudgetError:
        assume(False)
    except ConfigError as error:  # windows of 3 or 4 patches on a strip one patch high
        assume("leaves nothing" not in error.message)
        raise
    plan = exchange.plan
    assert plan.visual_tokens <= options.get("max_video_tokens", plan.visual_tokens)
    assert plan.tokens + plan.max_new_tokens <= plan.context_tokens
    _check_built(weights, exchange.request().parts, plan)
    # The checkpoint's end tokens may end the answer before; the prompt is what counts here.
    answer = answer_one(tiny_model.engine, exchange, keep=True)
    assert (answer.text_tokens, answer.visual_tokens) == (plan.text_tokens, plan.visual_tokens)
    assert answer.sequence is not None
    _check_consumed(tiny_model, answer.sequence, plan)
    answer.sequence.release()
    exchange.close()


def _check_built(model: LlavaModel, parts: tuple, plan: Plan) -> None:
    """Build every visual's rows alone: exactly as many as planned, and none of them empty."""
    built = 0
    for part in parts:
        if isinstance(part, VisualPart):
            rows = torch.cat(list(model.visual_rows(part.plan, part.clips(), 2)))
            assert torch.isfinite(rows).all()
            built += len(rows)
    assert built == plan.visual_tokens


def _check_consumed(model: LlavaVideo, sequence, plan: Plan) -> None:
    """Check that the cache holds the whole prompt in order, the question and its end last."""
    elements = sequence.elements
    prompt_ids = model.spec.tokenizer.encode_ids(plan.prompt)
    held = [-200 if isinstance(e, VisualRun) else e for e in elements]
    assert held[: len(prompt_ids)] == prompt_ids
    visual = sum(e.num_tokens for e in elements if isinstance(e, VisualRun))
    assert visual == plan.visual_tokens
    num_answered = len(elements) - len(prompt_ids)
    assert 0 <= num_answered < NUM_NEW
    assert sequence.num_tokens == plan.tokens + num_answered
    tail = model.spec.tokenizer.encode(f"{QUESTION}<|im_end|>\n<|im_start|>assistant\n")
    assert prompt_ids[-len(tail) :] == tail
