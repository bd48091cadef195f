"""Random models at the true sizes on the device, and prompts whose cache is filled with noise.

Nothing is loaded: weights are drawn where they stand. A capacity of 500,000 tokens is tried by
filling the cache with random keys and values and prefilling only the last frames, for a full
prefill would only take longer and not more memory.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from gpu_bench import Bench
from torch import nn
from twin import HALF_B, SEVEN_B, TINY, onevision_config, transformers_twin

from llava_video.engine.elements import VisualRun
from llava_video.engine.request import Answer, Request, TextPart, VisualPart, answer_of
from llava_video.engine.scheduler import Scheduler
from llava_video.engine.sequence import Sequence as KvSequence
from llava_video.engine.settings import EngineSettings, GenerationSettings
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import ModelConfig
from llava_video.model.quantize import QuantLinear, quantise_decoder
from llava_video.model.tokenizer import Tokenizer
from llava_video.ops.weight_format import StoredWeight
from llava_video.values import Clip, Grid, KvFormat, Newline, VisualPlan, WeightFormat

_SIZES = {"7b": SEVEN_B, "0.5b": HALF_B}
QUESTION_IDS = tuple(range(10, 42))
# Written into a filled cache, keys as large as those of random weights: scores stay finite.
_SCALE = 0.01
_CLIP_FRAMES = 8


class NoText(Tokenizer):
    """Tokens without a vocabulary: only ids are counted."""

    def __init__(self) -> None:
        pass

    def decode(self, ids: Sequence[int]) -> str:
        """Return nothing."""
        del ids
        return ""

    def to_json(self) -> str:
        """Return nothing: no schema is asked for."""
        return "{}"


def config_of(bench: Bench, size: str) -> ModelConfig:
    """Return the configuration of "7b" or "0.5b"; in a check, a tiny one."""
    config = onevision_config(TINY if bench.is_check else _SIZES[size])
    dtype = str(bench.dtype).removeprefix("torch.")
    return dataclasses.replace(config, dtype=dtype) if hasattr(config, "dtype") else config


def random_model(bench: Bench, size: str, weights: WeightFormat = "plain") -> LlavaModel:
    """Draw a model on the device, in the stored format at once: no plain copy of it ever exists."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(bench.dtype)
    try:
        with torch.device("meta"):
            model = LlavaModel(config_of(bench, size).dimensions)
            if weights != "plain":
                quantise_decoder(model, weights)
    finally:
        torch.set_default_dtype(before)
    model = model.to_empty(device=bench.device)
    fill(model)
    return model.requires_grad_(False).eval()


@torch.no_grad()
def fill(model: nn.Module, seed: int = 0) -> None:
    """Draw every parameter, and the codes of quantised weights: products keep their variance."""
    device = next(model.parameters()).device
    generator = torch.Generator(device=device).manual_seed(seed)
    for name, parameter in model.named_parameters():
        leaf = name.rpartition(".")[2]
        if "norm" in name.rpartition(".")[0].rpartition(".")[2]:
            parameter.fill_(1.0 if leaf == "weight" else 0.0)
        elif parameter.ndim < 2:
            parameter.normal_(0.0, 0.1, generator=generator)
        else:
            fan_in = math.prod(parameter.shape[1:])
            parameter.normal_(0.0, fan_in**-0.5, generator=generator)
    for module in model.modules():
        if isinstance(module, QuantLinear):
            _fill_codes(module.stored, generator)


def _fill_codes(stored: StoredWeight, generator: torch.Generator) -> None:
    """Draw codes; their spread is 73 steps of int8 and 4.6 of int4, code 8 standing for 0."""
    is_int8 = stored.weight_format == "int8"
    low, high = (-127, 128) if is_int8 else (0, 256)
    stored.codes.random_(low, high, generator=generator)
    stored.scales.zero_()
    steps = stored.scales if is_int8 else stored.scales[..., 0]
    steps.fill_(stored.num_inputs**-0.5 / (73.3 if is_int8 else 4.6))


def twin_of(bench: Bench, size: str, model: LlavaModel) -> Any:
    """Return transformers' model over the same tensors, on the same device."""
    theirs = transformers_twin(config_of(bench, size), dict(model.named_parameters()))
    for parameter in theirs.parameters():
        parameter.data = parameter.data.to(bench.dtype)
    return theirs.to(bench.device)


@torch.inference_mode()
def hf_generate(
    bench: Bench, theirs: Any, num_new: int, *, plan: VisualPlan | None = None, num_text: int = 0
) -> torch.Tensor:
    """Let transformers answer over a video, or over so many text tokens; return the new ids.

    Pixels are ready on the device, which ours are not.
    """
    marks = [] if plan is None else [theirs.config.video_token_id] * plan.num_tokens
    text = [10 + idx % 200 for idx in range(num_text)]
    ids = torch.tensor([[*text, *marks, *QUESTION_IDS]], device=bench.device)
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if plan is not None:
        shape = (1, plan.num_frames, 3, plan.height_px, plan.width_px)
        inputs["pixel_values_videos"] = torch.zeros(shape, dtype=bench.dtype, device=bench.device)
    found: torch.Tensor = theirs.generate(
        **inputs, max_new_tokens=num_new, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    return found[0, ids.shape[1] :]


def engine_of(model: LlavaModel, **settings: Any) -> Scheduler:
    """Return an engine that never ends an answer early and computes every prompt anew."""
    chosen = EngineSettings(**{"kept_prefixes": 0, **settings})
    return Scheduler(model, NoText(), eos_ids=(), settings=chosen)


def answered(engine: Scheduler, request: Request) -> Answer:
    """Answer a request; see to it that what was to be computed was, and nothing else.

    Raises:
        RuntimeError: a prompt was taken from the cache that should not have been, or was not.
    """
    answer = answer_of(engine, request)
    if bool(answer.reused_tokens) is (request.reuse is None):
        raise RuntimeError(f"{answer.reused_tokens} of the prompt's tokens came from the cache.")
    return answer


def generation_of(num_tokens: int) -> GenerationSettings:
    """Return greedy settings for exactly so many tokens."""
    return GenerationSettings(max_new_tokens=num_tokens, repetition_penalty=1.0, loop_guard=False)


def plan_of(bench: Bench, num_frames: int, tokens_per_frame: int) -> VisualPlan:
    """Return the layout of so many frames: 210 (newline per row), 196 or 16 tokens each.

    One newline ends the clip in the last two. A check pools its maps of 4 x 4 to 2 x 2.
    """
    has_rows = tokens_per_frame == 210
    patches = 4 if bench.is_check else 27
    side = 2 if bench.is_check else 4 if tokens_per_frame == 16 else 14
    of_frame = side * (side + 1) if has_rows else side * side
    tile_px = 56 if bench.is_check else 384
    return VisualPlan(
        kind="video",
        source="noise",
        height_px=tile_px,
        width_px=tile_px,
        times_s=tuple(float(idx) for idx in range(num_frames)),
        frame_idxs=tuple(range(num_frames)),
        fit="squeeze",
        grid=Grid(1, 1),
        overview=False,
        pool_mode="bilinear",
        pool_stride=-(-patches // side),
        newline=Newline.ROW if has_rows else Newline.CLIP,
        crop=(0, patches, 0, patches),
        map_size=(side, side),
        num_tokens=num_frames * of_frame + (0 if has_rows else 1),
    )


def video_part(plan: VisualPlan, key: str = "noise") -> VisualPart:
    """Return a video of noise at the tower's own size: decoded frames, a few of them again."""
    noise = np.random.default_rng(0).integers(
        0, 256, (_CLIP_FRAMES, plan.height_px, plan.width_px, 3), np.uint8
    )

    def clips() -> Iterator[Clip]:
        for start in range(0, plan.num_frames, _CLIP_FRAMES):
            idxs = np.arange(start, min(plan.num_frames, start + _CLIP_FRAMES))
            yield Clip(noise[: len(idxs)], idxs.astype(np.float64), idxs)

    return VisualPart(plan=plan, clips=clips, key=key)


def request_of(*parts: TextPart | VisualPart, num_new: int, **options: Any) -> Request:
    """Return a request for exactly so many tokens after these parts and a question."""
    asked = (*parts, TextPart(QUESTION_IDS))
    return Request(parts=asked, generation=generation_of(num_new), **options)


def filled_sequence(
    engine: Scheduler, num_tokens: int, kv_format: KvFormat, key: str = "filled"
) -> tuple[KvSequence, VisualPart]:
    """Reserve a video's worth of cache, fill it with noise, and name it as a visual.

    Returns:
        The sequence, and the part a prompt names to find it there; its frames are never asked for.
    """
    arena = engine.arena
    sequence = KvSequence(arena, kv_format=kv_format)
    sequence.reserve(num_tokens)
    done = 0
    while done < num_tokens:
        span = sequence.writable(num_tokens - done)
        for layer_idx in range(arena.num_layers):
            _fill_stored(arena.stored(layer_idx, span))
        done += span.num_tokens
        named = (VisualRun(key, num_tokens),) if done == num_tokens else ()
        sequence.append(span.num_tokens, completes=named)
    plan = VisualPlan(
        kind="video",
        source="filled",
        height_px=1,
        width_px=1,
        times_s=(0.0,),
        frame_idxs=(0,),
        fit="squeeze",
        grid=Grid(1, 1),
        overview=False,
        pool_mode="bilinear",
        pool_stride=1,
        newline=Newline.NONE,
        crop=(0, 1, 0, 1),
        map_size=(1, 1),
        num_tokens=num_tokens,
    )
    return sequence, VisualPart(plan=plan, clips=lambda: iter(()), key=key)


def _fill_stored(stored: Any) -> None:
    for codes, scales in ((stored.k, stored.k_scales), (stored.v, stored.v_scales)):
        if codes.is_floating_point():
            codes.normal_()
        else:
            codes.random_(*((0, 256) if codes.dtype is torch.uint8 else (-127, 128)))
        if scales is not None:
            scales.fill_(_SCALE)
