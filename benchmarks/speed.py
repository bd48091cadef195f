"""How much faster is an answer than transformers' LlavaOnevision, with the same weights and pixels?

One process, one copy of the weights, runs taken in turn; float32 on the CPU (or `--device cuda`).
Vision and prefill are compute bound, decoding is bandwidth bound. Frames of the tower's own size,
so that both get the very same pixel values (theirs ready-made, ours from uint8 within the time).
Good: end to end at least 1.0 x transformers, greedy tokens equal. The exit status goes by the
median of the ratios of neighbouring runs. What else runs on a machine only ever adds time, so the
ratio of the fastest runs stands beside it: where the two differ, repeat on a quiet machine.

    python benchmarks/speed.py [--size tiny|0.5b] [--frames 8] [--tokens 16] [--append] [--check]
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from harness import Timing, interleaved, measure, parser_of, ratio, report, synchronize
from twin import HALF_B, TINY, onevision_config, twins

from llava_video.engine.request import Request, TextPart, VisualPart, answer_of
from llava_video.engine.scheduler import Scheduler
from llava_video.engine.settings import EngineSettings, GenerationSettings
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import ModelConfig, geometry_of
from llava_video.model.preprocess import make_tiles
from llava_video.model.tokenizer import Tokenizer
from llava_video.planning.layout import video_layout, visual_plan
from llava_video.values import Clip, VisualPlan

_TEXT_BEFORE = tuple(range(10, 26))
_TEXT_AFTER = tuple(range(30, 54))
STAGES = ("vision", "prefill", "decode")


@dataclass(slots=True)
class Side:
    """One implementation: how it answers, the tokens, and the seconds of its stages per run."""

    answer: Callable[["Side"], Sequence[int]]
    tokens: tuple[int, ...] = ()
    stages: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in STAGES})

    def run(self) -> None:
        """Answer once."""
        self.tokens = tuple(self.answer(self))

    def note(self, **seconds: float) -> None:
        """Note the stages of a run."""
        for name, taken in seconds.items():
            self.stages[name].append(taken)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 where ours is slower or answers otherwise."""
    parser = parser_of(__doc__)
    parser.add_argument("--size", choices=("tiny", "0.5b"), default="tiny")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=0, help="0: 20 for tiny, 3 for 0.5b")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args(arguments)
    if asked.check:
        asked.size, asked.frames, asked.tokens = "tiny", 2, 4
    repeats = asked.repeats or (2 if asked.check else 3 if asked.size == "0.5b" else 20)
    config = onevision_config(HALF_B if asked.size == "0.5b" else TINY)
    ours, theirs = twins(config)
    row = compare(
        config,
        ours.to(asked.device),
        theirs.to(asked.device),
        num_frames=asked.frames,
        num_tokens=asked.tokens,
        repeats=repeats,
    )
    row = {"size": asked.size, "dtype": "float32", **row, "check": asked.check}
    report(f"speed_{asked.size}", row, append=asked.append)
    return 0 if row["same_tokens"] and (row["ratio"] >= 1.0 or asked.check) else 1


@torch.inference_mode()
def compare(
    config: ModelConfig,
    ours: LlavaModel,
    theirs: Any,
    *,
    num_frames: int,
    num_tokens: int,
    repeats: int,
) -> dict[str, Any]:
    """Time both on one video and question; return the row."""
    plan, clip = _video(config, num_frames)
    ceiling = _ceiling(ours.device)
    sides = {
        "transformers": _their_side(config, theirs, plan, clip, num_tokens),
        "llava_video": _our_side(ours, plan, clip, num_tokens),
    }
    timings = interleaved(
        {name: side.run for name, side in sides.items()}, repeats=repeats, budget_s=3600
    )
    baseline, own = timings["transformers"], timings["llava_video"]
    best_ratio = baseline.best_s / own.best_s
    stages = {
        name: {side_name: Timing(tuple(side.stages[name][1:])) for side_name, side in sides.items()}
        for name in STAGES
    }
    ratios = {name: ratio(s["transformers"], s["llava_video"]) for name, s in stages.items()}
    same = sides["transformers"].tokens == sides["llava_video"].tokens
    prompt_tokens = plan.num_tokens + len(_TEXT_BEFORE) + len(_TEXT_AFTER)
    print(f"{num_frames} frames, {prompt_tokens} prompt tokens, {num_tokens} new tokens")
    print(f"end to end: fastest runs {best_ratio:.2f} x; median of pairs, ours and transformers:")
    both_ways = {"end to end": timings, **stages}
    for name, both in both_ways.items():
        pair = both["transformers"], both["llava_video"]
        print(f"{name:<11} {ratio(*pair):5.2f} x   {pair[1]}, {pair[0]}")
    print("same tokens" if same else f"DIFFERENT tokens: {[s.tokens for s in sides.values()]}")
    work = _work(config, plan, prompt_tokens)
    return {
        "shapes": {"frames": num_frames, "prompt_tokens": prompt_tokens, "new_tokens": num_tokens},
        "ratio": ratio(baseline, own),
        "ratio_of_best": best_ratio,
        "stage_ratios": ratios,
        "same_tokens": same,
        "timings": {name: timing.to_json() for name, timing in timings.items()},
        "stages": {
            name: {side: timing.to_json() for side, timing in both.items()}
            for name, both in stages.items()
        },
        "ceiling": ceiling,
        "share_of_ceiling": {
            name: work[name] / stages[name]["llava_video"].p50_s / ceiling["flop_per_s"]
            for name in ("vision", "prefill")
        }
        | {
            "decode": work["decode_bytes"]
            * (num_tokens - 1)
            / max(stages["decode"]["llava_video"].p50_s, 1e-9)
            / ceiling["bytes_per_s"]
        },
    }


def _video(config: ModelConfig, num_frames: int) -> tuple[VisualPlan, Clip]:
    side_px = config.vision.image_px
    noise = np.random.default_rng(0).integers(0, 256, (num_frames, side_px, side_px, 3), np.uint8)
    times_s = tuple(float(idx) for idx in range(num_frames))
    plan = visual_plan(
        video_layout(side_px, side_px, geometry_of(config, "speed", "float32")),
        kind="video",
        source="noise",
        size_px=(side_px, side_px),
        frame_idxs=tuple(range(num_frames)),
        times_s=times_s,
    )
    return plan, Clip(noise, np.array(times_s), np.arange(num_frames))


def _our_side(model: LlavaModel, plan: VisualPlan, clip: Clip, num_tokens: int) -> Side:
    # Without the last video's cache: every answer is to be made from the pixels.
    engine = Scheduler(model, _NoText(), eos_ids=(), settings=EngineSettings(kept_prefixes=0))
    generation = GenerationSettings(
        max_new_tokens=num_tokens, repetition_penalty=1.0, loop_guard=False
    )

    def frames() -> Iterator[Clip]:
        yield clip

    def answer(side: Side) -> Sequence[int]:
        parts = (
            TextPart(_TEXT_BEFORE),
            VisualPart(plan=plan, clips=frames, key="noise"),
            TextPart(_TEXT_AFTER),
        )
        told = answer_of(engine, Request(parts=parts, generation=generation))
        times_s = told.timings
        side.note(vision=times_s["vision"], prefill=times_s["prefill"], decode=times_s["generate"])
        return told.token_ids

    return Side(answer)


def _their_side(
    config: ModelConfig, model: Any, plan: VisualPlan, clip: Clip, num_tokens: int
) -> Side:
    vision = config.vision
    pixels = make_tiles(
        clip, plan, tile_px=vision.image_px, mean=vision.pixel_mean, std=vision.pixel_std
    ).to(model.device)
    marks = [model.config.video_token_id] * plan.num_tokens
    ids = torch.tensor([[*_TEXT_BEFORE, *marks, *_TEXT_AFTER]], device=model.device)
    visions: list[tuple[float, float]] = []
    forwards: list[tuple[float, float]] = []
    model.model.get_video_features = _timed(model.model.get_video_features, visions)
    model.forward = _timed(model.forward, forwards)

    def answer(side: Side) -> Sequence[int]:
        visions.clear()
        forwards.clear()
        before_s = time.perf_counter()
        found = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values_videos=pixels[None],
            max_new_tokens=num_tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        synchronize()
        after_s, first_s = time.perf_counter(), forwards[0][1]
        # As the engine counts: prefill is whatever else happens up to the first token's logits.
        vision_s = sum(stop_s - start_s for start_s, stop_s in visions)
        side.note(vision=vision_s, prefill=first_s - before_s - vision_s, decode=after_s - first_s)
        return [int(token_id) for token_id in found[0, ids.shape[1] :]]

    return Side(answer)


def _timed(function: Callable[..., Any], spans: list[tuple[float, float]]) -> Callable[..., Any]:
    """Return the function with the times of its calls noted, begin and end."""

    def timed(*args: Any, **kwargs: Any) -> Any:
        synchronize()
        before_s = time.perf_counter()
        result = function(*args, **kwargs)
        synchronize()
        spans.append((before_s, time.perf_counter()))
        return result

    # generate() asks for the signature of forward() to check its arguments.
    timed.__wrapped__ = function  # type: ignore[attr-defined]
    return timed


class _NoText(Tokenizer):
    """Tokens without a vocabulary: only ids are compared."""

    def __init__(self) -> None:
        pass

    def decode(self, ids: Sequence[int]) -> str:
        """Return nothing."""
        del ids
        return ""

    def to_json(self) -> str:
        """Return nothing: no schema is asked for."""
        return "{}"


def _work(config: ModelConfig, plan: VisualPlan, prompt_tokens: int) -> dict[str, float]:
    """Count the multiplications and additions of the matrices, and the bytes of one new token.

    Attention: two products of (L, d) and (L, d) per head; causal, so half of them in the decoder.
    """
    vision, text = config.vision, config.text
    places = vision.patches_per_side**2
    wide, inner = vision.hidden_size, vision.intermediate_size
    layer = 4 * wide * wide + 2 * wide * inner + 2 * places * wide
    patches = 3 * vision.patch_px**2 * wide
    projector = (wide + text.hidden_size) * text.hidden_size
    per_patch = vision.num_layers * layer + patches + projector
    width, kv_width = text.hidden_size, text.num_kv_heads * text.head_dim
    weights = 2 * width * (width + kv_width) + 3 * width * text.intermediate_size
    of_prompt = text.num_layers * (weights + prompt_tokens * width)
    head = text.vocab_size * width
    return {
        "vision": 2.0 * plan.num_frames * plan.tiles_per_frame * places * per_patch,
        "prefill": 2.0 * (prompt_tokens * of_prompt + head),
        "decode_bytes": 4.0 * (text.num_layers * weights + head),
    }


def _ceiling(device: torch.device) -> dict[str, float]:
    """Measure what this machine can do: one large matrix product, one large copy."""
    square = torch.randn(2048, 2048, device=device)
    product = measure(lambda: square @ square, repeats=5)
    block = torch.zeros(64 * 2**20, device=device)
    target = torch.empty_like(block)
    copy = measure(lambda: target.copy_(block), repeats=5)
    return {
        "flop_per_s": 2.0 * 2048**3 / min(product.seconds),
        "bytes_per_s": 2.0 * block.nbytes / min(copy.seconds),
    }


if __name__ == "__main__":
    sys.exit(main())
