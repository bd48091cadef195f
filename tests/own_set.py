"""A tiny model and its own outputs → a folder in the golden format.

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


def write_fused_set(folder: Path) -> None:
    """Write a LLaVA-Mini, a video it is asked about, and a conversation about a picture."""
    write_learned_set(folder, member="LLaVA-Mini", fused_side=2, fused_split=2)
    template = candidate("own", {"own": folder / "own"}).config.template
    prompt = render([Turn("user", "<image>\nWhat happens?")], template)
    facts: dict[str, Any] = {"prompt": prompt, "total_frames": 60, "fps": 25.0}
    arrays = {"frames": _noise(2)}
    run = _run(folder, arrays, facts)
    arrays |= _seen(run)
    facts |= {key: FACTS[key]([run], run.config) for key in SEEN_FACTS}
    _add(folder, "seen", arrays, facts)


def write_learned_set(folder: Path, **options: Any) -> None:
    """Write `own/`, a tiny checkpoint of these options, and a conversation about a picture."""
    write_tiny_checkpoint(folder / "own", **options)
    (folder / "cases").mkdir()
    (folder / "cases.json").write_text("{}", encoding="utf-8")
    question = {"from": "human", "value": "<image>\nWho is it?"}
    facts = {"conversations": [question, {"from": "gpt", "value": "Somebody."}]}
    arrays = {"image_0": _noise(1)[0]}
    run = _run(folder, arrays, facts)
    # Of a model that fuses, labels hide the answer from the fusion.
    assert run.is_fused != torch.equal(run.logits, run.free_logits)
    arrays |= {
        "input_ids": np.array(run.ids),
        "labels": np.array(run.labels),
        "logits_last4": run.logits[-4:].numpy(),
        "logits_last4_without_labels": run.free_logits[-4:].numpy(),
        "loss": np.float32(loss_of([run])),
    }
    _add(folder, "learned", arrays, facts)


def _noise(num_frames: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (num_frames, 60, 80, 3), dtype=np.uint8)


def _add(folder: Path, name: str, arrays: dict[str, np.ndarray], facts: dict) -> None:
    np.savez(folder / "cases" / f"{name}.npz", **arrays)
    path = folder / "cases.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    told[name] = {"checkpoint": "own", **facts}
    path.write_text(json.dumps(told), encoding="utf-8")


def _run(folder: Path, arrays: dict[str, np.ndarray], facts: dict) -> SampleRun:
    own = candidate("own", {"own": folder / "own"})
    model = own.model_with(own.config, None, "cpu")
    (sample,) = case_of("own", arrays, facts).samples
    return SampleRun(sample, model, own, own.config)


def _seen(run: SampleRun) -> dict[str, np.ndarray]:
    engine = engine_of(run.model, run.tokenizer)
    tokens = np.array(answers(engine, [run.request(NUM_TOKENS)])[0])
    run.sample.expected["greedy_ids"] = tokens
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


def _stored(run: SampleRun, key: str) -> np.ndarray:
    word = read_key(key)
    found = part_of(QUANTITIES[word.quantity].frames([run]), word.parts, None)
    return np.moveaxis(found, -3, -1) if word.quantity == "whole frames" else found
