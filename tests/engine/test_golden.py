"""The engine against tokens of the reference implementation; skips where they are not at hand."""

import numpy as np
import pytest
import torch

from llava_video.engine.request import Request, TextPart, answer_of
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
