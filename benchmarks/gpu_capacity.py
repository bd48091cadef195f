"""How many frames fit, and what each of them takes: sections capacity and slope."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from gpu_bench import CARD_BYTES, GIB, Bench, Measured, Section, Target, attempt
from gpu_models import (
    QUESTION_IDS,
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

from llava_video.engine.settings import EngineSettings
from llava_video.errors import CapacityError
from llava_video.fitting import GPU_WORKSPACE_BYTES
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import geometry_of
from llava_video.planning.memory import Setup, plan_memory
from llava_video.values import KvFormat, MemoryEstimate, Plan, WeightFormat

# What is really prefilled behind the filled part, tokens.
_TAIL_TOKENS = 8192
_NUM_NEW = 128
# name: (model, weights, cache, tokens a frame, target, limit)
_CASES: dict[str, tuple[str, WeightFormat, KvFormat, int, int, int]] = {
    "7b_bf16": ("7b", "plain", "plain", 210, 500, 586),
    "7b_int4_int8kv": ("7b", "int4", "int8", 210, 2500, 2714),
    "7b_bf16_int8kv_16": ("7b", "plain", "int8", 16, 10_000, 15_000),
    "0.5b_bf16": ("0.5b", "plain", "plain", 210, 7500, 8250),
}
_TITLES = {
    "7b_bf16": "7B, bf16, bf16 KV, @210",
    "7b_int4_int8kv": "7B, int4, int8 KV, @210",
    "7b_bf16_int8kv_16": "7B, bf16, int8 KV, @16",
    "0.5b_bf16": "0.5B, bf16, bf16 KV, @210",
}


def measure_capacity(bench: Bench, found: Measured) -> None:
    """Find how many frames fit: the target first, then what is between it and the limit."""
    bench.limit_memory(CARD_BYTES)
    for name in _CASES:
        _measure_case(bench, name, found)
        bench.forget_peak()
    bench.limit_memory(None)


def _measure_case(bench: Bench, name: str, found: Measured) -> None:
    size, weights, kv_format, per_frame, target, limit = _CASES[name]
    model = random_model(bench, size, weights)
    tries = found.details.setdefault(name, {})
    fits = functools.partial(_try, bench, model, kv_format, per_frame, tries)
    if bench.is_check:
        found.values[name] = 40.0 if fits(40) else 0.0
    else:
        found.values[name] = float(_largest(fits, target, limit))


def _largest(fits: Callable[[int], bool], target: int, limit: int, num_tries: int = 4) -> int:
    """Return the largest number of frames of a few tries that fits."""
    low, high = 0, limit
    trial = target
    for _ in range(num_tries):
        if fits(trial):
            low = trial
        else:
            high = trial
        trial = (low + high) // 2
        if high - low <= max(1, target // 100):
            break
    return low


def _try(
    bench: Bench,
    model: LlavaModel,
    kv_format: KvFormat,
    per_frame: int,
    tries: dict[int, dict[str, Any]],
    num_frames: int,
) -> bool:
    """Answer over so many frames, the first of them noise in the cache; say whether it fits."""
    num_real = min(num_frames // 2, -(-bench.of(_TAIL_TOKENS, 30) // per_frame) or 1)
    real = plan_of(bench, num_real, per_frame)
    filled_tokens = plan_of(bench, num_frames - num_real, per_frame).num_tokens
    num_new = bench.of(_NUM_NEW, 3)
    num_tokens = filled_tokens + real.num_tokens + len(QUESTION_IDS)
    # One slab, as one reservation for the whole video would make it.
    engine = engine_of(model, slab_tokens=num_tokens + num_new)
    bench.forget_peak()
    row: dict[str, Any] = {"tokens": num_tokens}
    sequence = None
    try:
        sequence, filled = filled_sequence(engine, filled_tokens, kv_format)
        answer = answered(
            engine,
            request_of(
                filled,
                video_part(real),
                num_new=num_new,
                kv_format=kv_format,
                reuse=sequence,
            ),
        )
        row |= {"fits": True, "timings": answer.timings, "reused_tokens": answer.reused_tokens}
    except (CapacityError, torch.OutOfMemoryError) as cause:
        row |= {"fits": False, "why": str(cause)[:300]}
    finally:
        if sequence is not None:
            sequence.release()
        engine.close()
    row["reserved_gib"] = bench.peak_bytes(reserved=True) / GIB
    tries[num_frames] = row
    return bool(row["fits"])


def measure_slope(bench: Bench, found: Measured) -> None:
    """Take real videos of growing length; bytes of a further frame, and what is beside them."""
    model = random_model(bench, "7b")
    bench.forget_peak()
    weights_bytes = _allocated(bench)
    peaks: dict[int, int] = {}
    reserved: dict[int, int] = {}
    counts = (2, 4) if bench.is_check else (64, 256, 512)
    for num_frames in counts:
        engine = engine_of(model)
        bench.forget_peak()
        plan = plan_of(bench, num_frames, 196)
        answered(engine, request_of(video_part(plan), num_new=2))
        peaks[num_frames] = bench.peak_bytes()
        reserved[num_frames] = bench.peak_bytes(reserved=True)
        engine.close()
    first, last = counts[0], counts[-1]
    slope = (peaks[last] - peaks[first]) / (last - first)
    kv_bytes = engine.arena.token_bytes("plain") * plan_of(bench, first, 196).num_tokens
    found.values["ours"] = slope / 1e6
    found.values["overhead"] = (peaks[first] - weights_bytes - kv_bytes) / GIB
    predicted = {num_frames: _predicted_bytes(bench, num_frames) for num_frames in counts}
    off = max(abs(predicted[n] / max(1, reserved[n]) - 1) for n in counts)
    found.values["prediction"] = 100 * off
    found.details |= {"weights_bytes": weights_bytes, "peak_bytes": peaks}
    found.details |= {"reserved_bytes": reserved, "predicted_bytes": predicted}
    found.details["hf"] = attempt("transformers", lambda: _hf_slope(bench, model), found.details)


def _predicted_bytes(bench: Bench, num_frames: int) -> int:
    """Return what the planner says of such a request."""
    config = config_of(bench, "7b")
    geometry = geometry_of(config, "7b", str(bench.dtype).removeprefix("torch."))
    engine = EngineSettings()
    setup = Setup(
        prefill_chunk_tokens=engine.prefill_chunk_tokens,
        tile_chunk=engine.tiles_per_call(bench.device.type, geometry.patches_per_side),
        workspace_bytes=GPU_WORKSPACE_BYTES,
    )
    visual = plan_of(bench, num_frames, 196)
    plan = Plan(
        model="7b",
        prompt="",
        visuals=(visual,),
        text_tokens=len(QUESTION_IDS),
        max_new_tokens=2,
        context_tokens=geometry.context_tokens,
        budget_tokens=visual.num_tokens,
        memory=MemoryEstimate(0, 0, 0),
    )
    return plan_memory(geometry, setup, plan, "plain").total_bytes


def _hf_slope(bench: Bench, model: Any) -> dict[str, Any]:
    """Take the same videos through transformers."""
    theirs = twin_of(bench, "7b", model)
    peaks: dict[int, int] = {}
    counts = (2, 4) if bench.is_check else (16, 64, 128)
    for num_frames in counts:
        plan = plan_of(bench, num_frames, 196)
        bench.forget_peak()
        hf_generate(bench, theirs, 2, plan=plan)
        peaks[num_frames] = bench.peak_bytes()
    slope = (peaks[counts[-1]] - peaks[counts[0]]) / (counts[-1] - counts[0])
    return {"peak_bytes": peaks, "mb_per_frame": slope / 1e6}


def _allocated(bench: Bench) -> int:
    return torch.cuda.memory_allocated() if bench.device.type == "cuda" else 0


SECTIONS = {
    "capacity": Section(
        question="how many frames fit in 21.5 GiB, with 128 new tokens?",
        targets=tuple(
            Target(key=name, what=_TITLES[name], unit="frames", target=case[4], limit=case[5])
            for name, case in _CASES.items()
        ),
        run=measure_capacity,
    ),
    "slope": Section(
        question="how much memory does a further frame of 196 tokens take, 7B?",
        targets=(
            Target(
                key="ours",
                what="memory of a further frame",
                unit="MB",
                target=11.8,
                limit=11.24,
                is_most=True,
            ),
            Target(
                key="overhead",
                what="beside weights and cache",
                unit="GiB",
                target=0.8,
                limit=0.0,
                is_most=True,
            ),
            Target(
                key="prediction",
                what="planner's total, of what was reserved, off by",
                unit="%",
                target=5,
                is_most=True,
            ),
        ),
        run=measure_slope,
    ),
}
