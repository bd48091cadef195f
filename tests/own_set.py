"""A tiny LLaVA-Mini and its own outputs → a golden folder with every key of a fusion.

For tests of what reads such folders: what this one holds is right by definition.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from parity_answers import answers, engine_of, loss_of
from parity_case import case_of
from parity_keys import part_of, read_key
from parity_model import candidate
from parity_plan import FACTS
from parity_run import SampleRun
from parity_stages import QUANTITIES

from llava_video.model.prompt import Turn, render
from llava_video.model.tiny import write_tiny_checkpoint

# Two frames in four parts beside the whole, two by two tokens of each; the tile is 56 px.
SEEN = (
    "clip_features_first10",
    "compressor_output",
    "frames56_every8",
    "fused_text_frame0",
    "inputs_embeds",
    "pixel_values_u8_every8",
    "vision_tokens",
)
SEEN_FACTS = ("conv", "frames", "parts", "text", "tokens_per_frame")
NUM_TOKENS = 6


def write_own_set(folder: Path) -> None:
    """Write `mini/`, a video that is asked about, and a conversation about a picture."""
    write_tiny_checkpoint(folder / "mini", member="LLaVA-Mini", fused_side=2, fused_split=2)
    (folder / "cases").mkdir()
    noise = np.random.default_rng(5)
    frames = noise.integers(0, 256, (2, 60, 80, 3), dtype=np.uint8)
    template = candidate("mini", {"mini": folder / "mini"}).config.template
    prompt = render([Turn("user", "<image>\nWhat happens?")], template)
    facts: dict[str, Any] = {
        "seen": {"prompt": prompt, "total_frames": 60, "fps": 25.0},
        "learned": {
            "conversations": [
                {"from": "human", "value": "<image>\nWho is it?"},
                {"from": "gpt", "value": "Somebody."},
            ]
        },
    }
    seen = {"frames": frames}
    seen |= _seen(_run(folder, "seen", seen, facts["seen"]), facts["seen"])
    np.savez(folder / "cases" / "seen.npz", **seen)
    learned = {"image_0": frames[0]}
    learned |= _learned(_run(folder, "learned", learned, facts["learned"]))
    np.savez(folder / "cases" / "learned.npz", **learned)
    facts = {name: {"checkpoint": "mini", **own} for name, own in facts.items()}
    (folder / "cases.json").write_text(json.dumps(facts), encoding="utf-8")


def _run(folder: Path, name: str, arrays: dict[str, np.ndarray], facts: dict) -> SampleRun:
    mini = candidate("mini", {"mini": folder / "mini"})
    model = mini.model_with(mini.config, None, "cpu")
    (sample,) = case_of(name, arrays, facts).samples
    return SampleRun(sample, model, mini.tokenizer, mini.config)


def _seen(run: SampleRun, facts: dict) -> dict[str, np.ndarray]:
    engine = engine_of(run.model, run.tokenizer)
    tokens = np.array(answers(engine, [run.request(NUM_TOKENS)])[0])
    run.sample.expected["greedy_ids"] = tokens
    facts |= {key: FACTS[key]([run], run.config) for key in SEEN_FACTS}
    return {
        **{key: np.nan_to_num(_stored(run, key)) for key in SEEN},
        "frame_indices": np.array([15, 44]),  # between 0, 30 (29.5, to the even) and 59
        "greedy_ids": tokens,
        "greedy_margin": np.array(run.forced_margins(tokens.tolist())),
        "image_token_count": np.int64(8),
        "image_token_start": np.int64(run.ids.index(-200)),
        "input_ids": np.array(run.ids),
        "logits_last4": run.logits[-4:].numpy(),
        "seq_len": np.int64(len(run.ids) + 7),
        "tile_means": run.levels[0].mean(axis=(1, 2, 3), dtype=np.float64),
    }


def _learned(run: SampleRun) -> dict[str, np.ndarray]:
    assert not torch.equal(run.logits, run.free_logits)  # labels hide the answer from the fusion
    return {
        "input_ids": np.array(run.ids),
        "labels": np.array(run.labels),
        "logits_last4": run.logits[-4:].numpy(),
        "logits_last4_without_labels": run.free_logits[-4:].numpy(),
        "loss": np.float32(loss_of([run])),
    }


def _stored(run: SampleRun, key: str) -> np.ndarray:
    word = read_key(key)
    found = part_of(QUANTITIES[word.quantity].frames([run]), word.parts, None)
    return np.moveaxis(found, -3, -1) if word.quantity == "whole frames" else found
