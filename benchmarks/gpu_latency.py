"""How long until the first token: sections ttft, long, second and quantprefill."""

from typing import Any
from unittest import mock

import torch
from gpu_bench import Bench, Measured, Section, Target, attempt, try_peer
from gpu_models import (
    answered,
    config_of,
    engine_of,
    filled_sequence,
    hf_generate,
    plan_of,
    random_model,
    request_of,
    twin_of,
    video_part,
)
from harness import interleaved

from llava_video.engine.request import TextPart
from llava_video.model import llava
from llava_video.ops.attention import BLOCK_TOKENS
from llava_video.ops.dequantise import dequantise_into
from llava_video.values import Clip, VisualPlan

# Times of 10,000 frames, listed sparsely: at most 5 % of the 160,001 visual tokens.
_NOTE_TOKENS = 8000


def measure_ttft(bench: Bench, found: Measured) -> None:
    """Answer one token over 64 frames, ours and transformers in turn."""
    model = random_model(bench, "7b")
    theirs = attempt("transformers", lambda: twin_of(bench, "7b", model), found.details)
    engine = engine_of(model)
    plan = plan_of(bench, bench.of(64, 3), 196)
    part = video_part(plan)
    hf_s = try_peer(
        "transformers sdpa",
        lambda: bench.wall_s(lambda: hf_generate(bench, theirs, 1, plan=plan)),
        found.details,
    )
    runs = {"ours": lambda: answered(engine, request_of(part, num_new=1))}
    if hf_s is not None:
        runs["hf"] = lambda: hf_generate(bench, theirs, 1, plan=plan)
    timings = interleaved(runs, warm_up=2, repeats=bench.of(7, 1), budget_s=120)
    if "hf" in timings:
        found.values["share_of_hf"] = timings["ours"].p50_s / timings["hf"].p50_s
    found.values["seconds"] = timings["ours"].p50_s
    found.details["timings"] = {name: timing.to_json() for name, timing in timings.items()}
    found.details["stages_s"] = answered(engine, request_of(part, num_new=1)).timings


def measure_long(bench: Bench, found: Measured) -> None:
    """Take 10,000 frames of 16 tokens, all of them real, from decoded pictures to a token."""
    model = random_model(bench, "7b")
    engine = engine_of(model)
    note = TextPart(tuple(10 + idx % 200 for idx in range(bench.of(_NOTE_TOKENS, 8))))
    part = video_part(plan_of(bench, bench.of(10_000, 6), 16))
    warm = video_part(plan_of(bench, bench.of(64, 2), 16))
    answered(engine, request_of(warm, num_new=1))
    answers: list[Any] = []
    ask = request_of(note, part, num_new=1)
    found.values["seconds"] = bench.wall_s(lambda: answers.append(answered(engine, ask)))
    found.details["stages_s"] = answers[0].timings
    found.details["tokens"] = answers[0].text_tokens + answers[0].visual_tokens
    # The same with tiles that are on the device already: what the host's share is.
    tiles = torch.zeros(1, 3, part.plan.height_px, part.plan.width_px, device=bench.device)

    def ready(clip: Clip, plan: VisualPlan, **_: object) -> torch.Tensor:
        return tiles.expand(len(clip.frames) * plan.tiles_per_frame, -1, -1, -1)

    with mock.patch.object(llava, "make_tiles", ready):
        found.details["seconds_with_tiles_ready"] = bench.wall_s(lambda: answered(engine, ask))


def measure_second(bench: Bench, found: Measured) -> None:
    """Ask twice about 256 frames: the second question finds the video in the cache."""
    engine = engine_of(random_model(bench, "7b"))
    warm = video_part(plan_of(bench, 2, 196), key="warm")
    warmed = answered(engine, request_of(warm, num_new=1, keep=True))
    answered(engine, request_of(warm, TextPart((5,)), num_new=1, reuse=warmed.sequence))
    part = video_part(plan_of(bench, bench.of(256, 4), 196))
    answers: list[Any] = []
    ask = request_of(part, num_new=1, keep=True)
    first_s = bench.wall_s(lambda: answers.append(answered(engine, ask)))
    kept = answers[0].sequence
    seconds: list[float] = []
    for idx in range(5):
        again = request_of(part, TextPart((20 + idx,)), num_new=1, reuse=kept)
        seconds.append(bench.wall_s(lambda again=again: answers.append(answered(engine, again))))
    second_s = sorted(seconds)[len(seconds) // 2]
    found.values["share"] = 100 * second_s / first_s
    found.details |= {"first_s": first_s, "second_s": seconds}
    found.details["reused_tokens"] = answers[-1].reused_tokens
    kept.release()


def measure_quantprefill(bench: Bench, found: Measured) -> None:
    """Prefill one chunk over a long int8 cache, and dequantise that cache alone."""
    model = random_model(bench, "7b")
    num_tokens = bench.of(525_000, 300)
    num_chunk = bench.of(2048, 16)
    engine = engine_of(model, slab_tokens=num_tokens + 2 * num_chunk)
    sequence, filled = filled_sequence(engine, num_tokens, "int8")
    chunk = TextPart(tuple(10 + idx % 200 for idx in range(num_chunk - 32)))
    options: dict[str, Any] = {"num_new": 1, "kv_format": "int8", "reuse": sequence}
    ask = request_of(filled, chunk, **options)
    answered(engine, ask)
    step_s = min(bench.wall_s(lambda: answered(engine, ask)) for _ in range(3))
    text = config_of(bench, "7b").dimensions.text
    stored = engine.arena.stored(0, sequence.past[0])
    block = min(BLOCK_TOKENS, stored.num_tokens)
    shape = (2, block, text.num_kv_heads, text.head_dim)
    k, v = torch.empty(shape, dtype=bench.dtype, device=bench.device)

    def dequantise_all() -> None:
        for start in range(0, stored.num_tokens, block):
            part = stored.part(start, min(start + block, stored.num_tokens))
            dequantise_into(part, k[: part.num_tokens], v[: part.num_tokens])

    layer_s = bench.seconds(dequantise_all, repeats=5)
    found.values["seconds"] = step_s
    found.values["share"] = 100 * text.num_layers * layer_s / step_s
    attention_flop = 4.0 * text.num_layers * text.num_heads * text.head_dim * num_chunk * num_tokens
    found.details |= {"attention_flop_per_s": attention_flop / step_s, "chunk_tokens": num_chunk}
    found.details["flop_per_s_ceiling"] = bench.flop_per_s()
    sequence.release()


SECTIONS = {
    "long": Section(
        question="10,000 frames of 16 tokens and 8,000 tokens of times: when is the first token?",
        targets=(
            Target(
                key="seconds",
                what="decoded frames to first token",
                unit="s",
                target=35.0,
                limit=17.4,
                is_most=True,
            ),
        ),
        run=measure_long,
    ),
    "second": Section(
        question="a second question about 256 frames: what share of the first one's wait?",
        targets=(
            Target(
                key="share",
                what="time to first token, of the first's",
                unit="%",
                target=1.5,
                limit=0.1,
                is_most=True,
            ),
        ),
        run=measure_second,
    ),
    "ttft": Section(
        question="64 frames of 196 tokens, 7B: when is the first token, beside transformers?",
        targets=(
            Target(
                key="share_of_hf",
                what="share of transformers' time",
                unit="x",
                target=0.6,
                is_most=True,
            ),
            Target(key="seconds", what="seconds", unit="s", target=None, limit=0.32, is_most=True),
        ),
        run=measure_ttft,
    ),
    "quantprefill": Section(
        question="a chunk of 2,048 tokens over 525,000 in int8: what does dequantising cost?",
        targets=(
            Target(key="seconds", what="the chunk", unit="s", target=None, is_most=True),
            Target(
                key="share",
                what="share of it that dequantises",
                unit="%",
                target=None,
                limit=0.0,
                is_most=True,
            ),
        ),
        run=measure_quantprefill,
    ),
}
