"""Whole models without their data: fake tensors, and how many bytes of them are alive.

A 7B takes no memory and no time here, and every tensor that the real path would make is counted:
`MemoryTrace` sees each operation, notes the storages it makes, and forgets them when the last
tensor of them goes. What a kernel takes inside one operation is not seen.
"""

import contextlib
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from llava_video.engine.arena import Arena
from llava_video.engine.request import FusedPart, Part, TextPart, VisualPart
from llava_video.engine.rows import PromptRows
from llava_video.engine.sequence import Sequence
from llava_video.engine.step import Work, run_step
from llava_video.model import llava
from llava_video.model.dimensions import FusionConfig, ModelDimensions, TextConfig, VisionConfig
from llava_video.model.llava import LlavaModel
from llava_video.ops import dequantise
from llava_video.ops.frequency_bands import FrequencyBands
from llava_video.ops.rotation import frequencies
from llava_video.values import Clip, Grid, KvFormat, Newline, VisualPlan

# LLaVA-Video-7B: SigLIP so400m (the defaults) and Qwen2-7B.
SEVEN_B = ModelDimensions(
    vision=VisionConfig(),
    text=TextConfig(
        hidden_size=3584,
        intermediate_size=18_944,
        num_layers=28,
        num_heads=28,
        num_kv_heads=4,
        head_dim=128,
        vocab_size=152_064,
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        max_positions=32_768,
        tie_embeddings=False,
    ),
)
# LLaVA-OneVision-0.5B: the same tower and Qwen2-0.5B.
HALF_B = ModelDimensions(
    vision=VisionConfig(),
    text=TextConfig(
        hidden_size=896,
        intermediate_size=4864,
        num_layers=24,
        num_heads=14,
        num_kv_heads=2,
        head_dim=64,
        vocab_size=151_936,
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        max_positions=32_768,
        tie_embeddings=True,
    ),
)
# LLaVA-Mini: CLIP-L/14 at 336 px without its last layer, one query, four layers, Llama-3.1-8B.
MINI_8B = ModelDimensions(
    vision=VisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_layers=23,
        num_heads=16,
        image_px=336,
        kind="clip",
        activation="quick_gelu",
    ),
    text=TextConfig(
        hidden_size=4096,
        intermediate_size=14_336,
        num_layers=32,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        vocab_size=128_256,
        rms_norm_eps=1e-5,
        rope_theta=5e5,
        rope_bands=FrequencyBands(factor=8.0, low_factor=1.0, high_factor=4.0, positions=8192),
        max_positions=131_072,
        tie_embeddings=False,
        qkv_bias=False,
    ),
    has_newline=False,
    fusion=FusionConfig(side=1, num_layers=4),
)
_QUESTION = tuple(range(100, 132))
_TILE_PX = 384


class MemoryTrace(TorchDispatchMode):
    """Counts the bytes of all storages made while it is entered, and which of them are alive.

    Attributes:
        live_bytes: alive now.
        peak_bytes: the most that was alive at once since the start or `reset_peak`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live_bytes = 0
        self.peak_bytes = 0
        self._seen: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.note(leaf)
        return out

    def note(self, tensor: torch.Tensor) -> None:
        """Count a tensor's storage, once, until its last tensor goes."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._seen:
            return
        num_bytes = storage.nbytes()
        self._seen[key] = num_bytes
        weakref.finalize(storage, self._forget, key)
        self.live_bytes += num_bytes
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def reset_peak(self) -> None:
        """Let the peak start again from what is alive."""
        self.peak_bytes = self.live_bytes

    def _forget(self, key: int) -> None:
        self.live_bytes -= self._seen.pop(key)


@contextlib.contextmanager
def traced() -> Iterator[MemoryTrace]:
    """Make every tensor within a fake one, without gradients, and count them."""
    trace = MemoryTrace()
    # It keeps what it made: a fake tensor there would meet real ones later, and the reverse.
    frequencies.cache_clear()
    try:
        with FakeTensorMode(), trace, torch.inference_mode():
            yield trace
    finally:
        frequencies.cache_clear()


def fake_model(
    dimensions: ModelDimensions = SEVEN_B, dtype: torch.dtype = torch.bfloat16
) -> LlavaModel:
    """Build a model of fake CPU weights; only within `traced` (or a FakeTensorMode)."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.inference_mode(mode=False):
            model = LlavaModel(dimensions)
    finally:
        torch.set_default_dtype(before)
    return model.requires_grad_(False).eval()


def video_of(num_frames: int, side: int = 14) -> VisualPlan:
    """Return the layout of so many frames, side x side tokens each and a newline at the end."""
    return VisualPlan(
        kind="video",
        source="fake",
        height_px=_TILE_PX,
        width_px=_TILE_PX,
        times_s=tuple(float(idx) for idx in range(num_frames)),
        frame_idxs=tuple(range(num_frames)),
        fit="squeeze",
        grid=Grid(1, 1),
        overview=False,
        pool_mode="bilinear",
        pool_stride=-(-27 // side),
        newline=Newline.CLIP,
        crop=(0, 27, 0, 27),
        map_size=(side, side),
        num_tokens=num_frames * side * side + 1,
    )


def fused_video_of(num_frames: int, side: int = 1) -> VisualPlan:
    """Return the layout of so many frames that become side x side tokens, fused with the prompt."""
    return replace(
        video_of(num_frames),
        fit="nearest",
        newline=Newline.NONE,
        map_size=(side, side),
        num_tokens=num_frames * side * side,
        is_fused=True,
    )


@dataclass
class FakeRun:
    """What a run took, bytes.

    Attributes:
        num_frames: of the video.
        num_tokens: of the prompt.
        weights_bytes: alive before the run.
        cache_bytes: what the arena holds.
        peak_bytes: the most alive at once, weights and cache included.
        live_bytes: alive after each step.
    """

    num_frames: int
    num_tokens: int = 0
    weights_bytes: int = 0
    cache_bytes: int = 0
    peak_bytes: int = 0
    live_bytes: list[int] = field(default_factory=list)

    @property
    def overhead_bytes(self) -> int:
        """The most alive at once beside weights and cache."""
        return self.peak_bytes - self.weights_bytes - self.cache_bytes


def run_video(
    model: LlavaModel,
    trace: MemoryTrace,
    plan: VisualPlan,
    *,
    kv_format: KvFormat = "plain",
    prefill_chunk_tokens: int = 2048,
    tile_chunk: int = 16,
    slab_tokens: int = 8192,
    piece_tokens: int = 32_768,
    num_new: int = 2,
    kept: list[torch.Tensor] | None = None,
    all_logits: bool = False,
) -> FakeRun:
    """Take a video through the real path up to some new tokens; pixels are not made.

    Args:
        model: of `fake_model`.
        trace: counts.
        plan: the video.
        kv_format: of the cache.
        prefill_chunk_tokens: prompt tokens of a step.
        tile_chunk: tiles of a vision call.
        slab_tokens: the arena's least piece of memory; a longer video gets one of its own length.
        piece_tokens: tokens of a quantised cache made plain in one step; fewer take longer.
        num_new: tokens generated.
        kept: takes every chunk's rows: what a path that keeps its embeddings would hold.
        all_logits: ask for the logits of every position, as a path without care would.
    """
    run = FakeRun(plan.num_frames, weights_bytes=trace.live_bytes)
    visual = VisualPart(plan=plan, clips=lambda: _clips(plan), key="fake")
    parts: list[Part] = [TextPart(_QUESTION), visual, TextPart(_QUESTION)]
    if plan.is_fused:
        parts = [FusedPart(before=_QUESTION, visual=visual, after=_QUESTION, held_bytes=0)]
    trace.reset_peak()
    arena = new_arena(model, slab_tokens)
    with _without_pixels(piece_tokens):
        rows = PromptRows(model, parts, tile_chunk)
        run.num_tokens = rows.num_left
        sequence = new_sequence(arena, kv_format)
        sequence.reserve(rows.num_left + num_new)
        run.cache_bytes = trace.live_bytes - run.weights_bytes
        while rows.num_left:
            hidden = rows.take(min(prefill_chunk_tokens, rows.num_left))
            num_logits = 0 if rows.num_left else 1
            _step(model, arena, sequence, hidden, len(hidden) if all_logits else num_logits)
            if kept is not None:
                kept.append(hidden)
            del hidden
            run.live_bytes.append(trace.live_bytes)
        rows.close()
    for _ in range(num_new):
        hidden = model.language_model.embed(torch.zeros(1, dtype=torch.int64))
        _step(model, arena, sequence, hidden, 1)
    run.peak_bytes = trace.peak_bytes
    sequence.release()
    return run


def new_arena(model: LlavaModel, slab_tokens: int = 8192) -> Arena:
    """Make the engine's arena for a model."""
    text = model.dimensions.text
    return Arena(
        text.num_layers,
        text.num_kv_heads,
        text.head_dim,
        dtype=model.dtype,
        devices=model.language_model.devices,
        slab_tokens=slab_tokens,
    )


def new_sequence(arena: Arena, kv_format: KvFormat) -> Sequence:
    """Make a sequence whose cache is stored so."""
    return Sequence(arena, kv_format=kv_format)


def _step(
    model: LlavaModel, arena: Arena, sequence: Sequence, hidden: torch.Tensor, num_logits: int
) -> None:
    work = Work(sequence=sequence, hidden=hidden, num_logits=num_logits)
    run_step(model.language_model, arena, [work])
    sequence.append(len(hidden))


@contextlib.contextmanager
def _without_pixels(piece_tokens: int) -> Iterator[None]:
    """Give tiles without data, and dequantise a block in one step: more at once, and sooner done.

    In steps of 2,048 tokens a long quantised cache would take a fake run minutes.
    """
    with (
        mock.patch.object(llava, "make_tiles", _fake_tiles),
        mock.patch.object(dequantise, "_PIECE_TOKENS", piece_tokens),
    ):
        yield


def _clips(plan: VisualPlan, chunk_frames: int = 8) -> Iterator[Clip]:
    """Yield clips without memory: one zero, shown as every pixel."""
    zero = np.zeros((1, 1, 1, 1), dtype=np.uint8)
    for start in range(0, plan.num_frames, chunk_frames):
        idxs = np.arange(start, min(plan.num_frames, start + chunk_frames))
        shape = (len(idxs), _TILE_PX, _TILE_PX, 3)
        yield Clip(np.broadcast_to(zero, shape), idxs.astype(np.float64), idxs)


def _fake_tiles(clip: Clip, plan: VisualPlan, *, tile_px: int, **_: object) -> torch.Tensor:
    return torch.empty(len(clip.frames) * plan.tiles_per_frame, 3, tile_px, tile_px)
