"""The engine against tokens of the reference implementation; skips where they are not at hand."""

import numpy as np
import pytest
import torch
from golden_mini import CHECKPOINTS, golden_case, golden_model, golden_visual

from llava_video.engine.request import FusedPart, Request, TextPart, VisualPart, answer_of
from llava_video.engine.scheduler import Scheduler
from llava_video.engine.settings import EngineSettings, GenerationSettings
from llava_video.model.checkpoint import load_model
from llava_video.model.model_config import read_model_config
from llava_video.model.tokenizer import Tokenizer


@pytest.mark.parametrize("prefill_chunk_tokens", [5, 2048])
def test_greedy_tokens_with_and_without_the_penalty(shared, prefill_chunk_tokens):
    folder = shared / "golden" / "onevision_video"
    case = np.load(folder / "cases" / "text_only.npz")
    config = read_model_config(folder / "model_a")
    model = load_model(folder / "model_a", config=config, device="cpu", dtype=torch.float32)
    engine = Scheduler(
        model,
        Tokenizer(folder / "model_a"),
        eos_ids=(),  # the stored tokens ignore end ids
        settings=EngineSettings(prefill_chunk_tokens=prefill_chunk_tokens),
    )
    prompt = TextPart(tuple(case["input_ids"].ravel().tolist()))

    def tokens(penalty):
        generation = GenerationSettings(
            max_new_tokens=16, loop_guard=False, repetition_penalty=penalty
        )
        return list(answer_of(engine, Request(parts=(prompt,), generation=generation)).token_ids)

    assert tokens(1.0) == case["greedy_tokens"].tolist()
    assert tokens(float(case["repetition_penalty"])) == case["greedy_tokens_rep_penalty"].tolist()


@pytest.mark.parametrize(
    ("name", "split", "num_rows"),
    [("mini_image", 1, 1), ("mini_video", 1, 1), ("mini_hd_image", 2, 4), ("mini_hd_video", 2, 4)],
)
@pytest.mark.parametrize("tile_chunk", [1, 16])
def test_greedy_tokens_of_prompts_fused_with_their_frames(
    shared, name, split, num_rows, tile_chunk
):
    case = golden_case(shared, name)
    engine = Scheduler(
        golden_model(shared, name),
        Tokenizer(shared / "golden" / "family" / CHECKPOINTS[name]),
        eos_ids=(),
        settings=EngineSettings(prefill_chunk_tokens=50, tile_chunk=tile_chunk),
    )
    plan, clip = golden_visual(case, split, num_rows)
    ids = case["input_ids"].tolist()
    place = ids.index(-200)
    part = FusedPart(
        before=tuple(ids[:place]),
        visual=VisualPart(plan=plan, clips=lambda: iter([clip]), key=name),
        after=tuple(ids[place + 1 :]),
        held_bytes=0,
    )
    generation = GenerationSettings(max_new_tokens=16, loop_guard=False, repetition_penalty=1.0)
    answer = answer_of(engine, Request(parts=(part,), generation=generation))
    assert list(answer.token_ids) == case["greedy_ids"].tolist()
    assert answer.text_tokens + answer.visual_tokens == len(case["inputs_embeds"])
