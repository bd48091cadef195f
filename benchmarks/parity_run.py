"""One sample through the public stages, stage by stage, each result kept where it can be compared.

plan → tiles → tower → projector → pooling → visual rows → embeddings → logits → tokens. Every stage
is the library's own function; nothing is computed here that the library computes itself.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from parity_set import Sample, Visual

from llava_video.engine.arena import Arena
from llava_video.engine.logits import penalize
from llava_video.engine.request import (
    Failed,
    Finished,
    Request,
    TextPart,
    VisualPart,
)
from llava_video.engine.rows import PromptRows
from llava_video.engine.scheduler import Scheduler
from llava_video.engine.sequence import Sequence as KvSequence
from llava_video.engine.settings import EngineSettings, GenerationSettings
from llava_video.engine.step import Work, run_step
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import ModelConfig, geometry_of
from llava_video.model.preprocess import make_tiles
from llava_video.model.tokenizer import MARK_ID, Tokenizer
from llava_video.ops.pool import pool_map
from llava_video.planning.planner import ImageItem, Item, VideoItem, plan_request
from llava_video.planning.settings import PlanningSettings, SamplingSettings
from llava_video.values import Clip, Plan, VideoInfo, VisualPlan

# Smaller than every case, so that prefill, vision and clips all come in several pieces.
PREFILL_CHUNK_TOKENS = 500
TILE_CHUNK = 3
CLIP_FRAMES = 2


@dataclass(frozen=True, slots=True)
class LogitStats:
    """What a set may store of the logits at every position; all (L,) but `rows` (L, vocab)."""

    rows: torch.Tensor
    argmax: torch.Tensor
    maximum: torch.Tensor
    margin: torch.Tensor
    logsumexp: torch.Tensor


class SampleRun:
    """A sample on one model; each stage is computed when it is first asked for.

    Args:
        sample: the prompt and its visuals.
        model: the weights.
        tokenizer: the checkpoint's.
        config: the checkpoint's, with the case's overrides.
    """

    def __init__(
        self, sample: Sample, model: LlavaModel, tokenizer: Tokenizer, config: ModelConfig
    ) -> None:
        self.sample, self.model, self.tokenizer, self.config = sample, model, tokenizer, config

    @cached_property
    def ids(self) -> list[int]:
        """Prompt ids with -200 at every mark."""
        return self.tokenizer.encode_ids(self.sample.prompt)

    @cached_property
    def plan(self) -> Plan:
        """The planner's plan for exactly these frames, laid out as the configuration says."""
        geometry = geometry_of(self.config, "golden", "float32")
        prompt = self.sample.prompt
        return plan_request(
            [_item(visual) for visual in self.sample.visuals],
            geometry,
            PlanningSettings(
                image_aspect=geometry.aspect, time_instruction=False, max_new_tokens=16
            ),
            SamplingSettings(),
            lambda notes: (prompt, self.tokenizer.num_text_tokens(prompt)),
        )

    @cached_property
    def tiles(self) -> list[torch.Tensor]:
        """Normalised tiles (N, 3, px, px), one tensor per visual."""
        vision = self.config.vision
        return [
            make_tiles(
                _clip(visual, 0, len(visual.frames)),
                plan,
                tile_px=vision.image_px,
                mean=vision.pixel_mean,
                std=vision.pixel_std,
            )
            for visual, plan in self._visuals
        ]

    @cached_property
    def tower_frame0(self) -> torch.Tensor:
        """The tower's features (P, C) of the first tile."""
        with torch.inference_mode():
            features: torch.Tensor = self.model.vision_tower(
                self.tiles[0][:1].to(self.model.device)
            )
        return features[0]

    @cached_property
    def projected(self) -> list[torch.Tensor]:
        """Projected features (N, P, D), one tensor per visual."""
        return [
            torch.cat([self.model.encode(part) for part in tiles.split(TILE_CHUNK)])
            for tiles in self.tiles
        ]

    def pooled(self, *, fast: bool = False, of_all: bool = True) -> list[torch.Tensor]:
        """Return the pooled maps (T, h w, D) of every video.

        Args:
            fast: at the stride of fast frames (slow-fast layout) instead of the plan's.
            of_all: False leaves only the frames that have this speed.
        """
        pooled = []
        for features, (visual, plan) in zip(self.projected, self._visuals, strict=True):
            if visual.kind != "video":
                continue
            maps = _maps(features)
            if not of_all:
                is_fast = np.arange(len(maps)) % max(1, plan.slow_every) != 0
                maps = maps[torch.from_numpy(is_fast == fast)]
            stride = plan.pool_stride * (2 if fast else 1)
            side = plan.fast_side if fast else plan.map_size[0]
            pooled.append(pool_map(maps, stride, plan.pool_mode, (side, side)).flatten(1, 2))
        return pooled

    @cached_property
    def visual_rows(self) -> list[torch.Tensor]:
        """The rows (num_tokens, D) of every visual, as they go into the sequence."""
        return [
            torch.cat(list(self.model.visual_rows(plan, _clips(visual), TILE_CHUNK)))
            for visual, plan in self._visuals
        ]

    @cached_property
    def feature_starts(self) -> list[int]:
        """Index in the sequence of the first row of every visual."""
        counts = iter(visual.num_tokens for visual in self.plan.visuals)
        lengths = [next(counts) if token_id == MARK_ID else 1 for token_id in self.ids]
        starts = itertools.accumulate([0, *lengths[:-1]])
        return [s for s, token_id in zip(starts, self.ids, strict=True) if token_id == MARK_ID]

    @cached_property
    def embeddings(self) -> torch.Tensor:
        """The language model's input (L, D), drawn as the engine draws it."""
        rows = PromptRows(self.model, list(self.request().parts), TILE_CHUNK)
        with torch.inference_mode():
            pieces = []
            while rows.num_left:
                pieces.append(rows.take(min(PREFILL_CHUNK_TOKENS, rows.num_left)))
        return torch.cat(pieces)

    @cached_property
    def logits(self) -> LogitStats:
        """The logits at every position of the prompt, prefilled in chunks."""
        return logit_stats(self._logits_after([]))

    def forced_margins(self, tokens: Sequence[int], penalty: float = 1.0) -> list[float]:
        """Return the reference's margins by teacher forcing: top-1 minus top-2 at each step."""
        logits = self._logits_after(tokens[:-1])[-len(tokens) :]
        margins = []
        for step, row in enumerate(logits):
            top = penalize(row, tokens[:step], penalty).topk(2).values
            margins.append(float(top[0] - top[1]))
        return margins

    def request(self, num_tokens: int = 16, penalty: float = 1.0, request_id: int = 0) -> Request:
        """Return the engine's request: greedy, end tokens ignored by the engine of `engine_of`."""
        visuals = iter(self._visuals)
        parts: list[TextPart | VisualPart] = []
        for piece in self.tokenizer.encode_prompt(self.sample.prompt):
            if piece is None:
                visual, plan = next(visuals)
                parts.append(VisualPart(plan=plan, clips=_opener(visual), key=str(len(parts))))
            else:
                parts.append(TextPart(tuple(piece)))
        generation = GenerationSettings(
            max_new_tokens=num_tokens, repetition_penalty=penalty, loop_guard=False
        )
        return Request(parts=tuple(parts), generation=generation, request_id=request_id)

    @property
    def _visuals(self) -> list[tuple[Visual, VisualPlan]]:
        return list(zip(self.sample.visuals, self.plan.visuals, strict=True))

    def _logits_after(self, tokens: Sequence[int]) -> torch.Tensor:
        """Return the logits (L + n, vocab) of the prompt followed by n tokens."""
        language_model, text = self.model.language_model, self.config.text
        arena = Arena(
            text.num_layers,
            text.num_kv_heads,
            text.head_dim,
            dtype=language_model.dtype,
            devices=language_model.devices,
            slab_tokens=1024,
        )
        chunks = list(self.embeddings.split(PREFILL_CHUNK_TOKENS))
        if tokens:
            chunks.append(language_model.embed(torch.tensor(tokens)))
        logits = []
        with torch.inference_mode(), KvSequence(arena) as sequence:
            sequence.reserve(sum(map(len, chunks)))
            for chunk in chunks:
                work = Work(sequence=sequence, hidden=chunk, num_logits=len(chunk))
                logits.append(run_step(language_model, arena, [work]).cpu())
                sequence.append(len(chunk))
        return torch.cat(logits)


def logit_stats(rows: torch.Tensor) -> LogitStats:
    """Return what is stored of logits (L, vocab)."""
    top = rows.topk(2, dim=-1)
    return LogitStats(
        rows=rows,
        argmax=top.indices[:, 0],
        maximum=top.values[:, 0],
        margin=top.values[:, 0] - top.values[:, 1],
        logsumexp=rows.logsumexp(dim=-1),
    )


def engine_of(model: LlavaModel, tokenizer: Tokenizer) -> Scheduler:
    """Return an engine without end tokens, so that every answer has its full length."""
    settings = EngineSettings(
        prefill_chunk_tokens=PREFILL_CHUNK_TOKENS,
        tile_chunk=TILE_CHUNK,
        slab_tokens=1024,
        kept_prefixes=0,
    )
    return Scheduler(model, tokenizer, eos_ids=(), settings=settings)


def answers(engine: Scheduler, requests: Sequence[Request]) -> list[tuple[int, ...]]:
    """Return the tokens of requests that run at once, in their order.

    Raises:
        Exception: a request's own error.
    """
    tokens: dict[int, tuple[int, ...]] = {}
    for event in engine.run(requests):
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, Finished):
            tokens[event.request_id] = event.answer.token_ids
    return [tokens[request.request_id] for request in requests]


def _item(visual: Visual) -> Item:
    num_frames, height_px, width_px, _ = visual.frames.shape
    if visual.kind == "image":
        return ImageItem(height_px=height_px, width_px=width_px, name="picture")
    pts_s = np.arange(num_frames, dtype=np.float64)
    info = VideoInfo(
        duration_s=float(num_frames),
        num_frames=num_frames,
        frame_rate_hz=1.0,
        height_px=height_px,
        width_px=width_px,
        codec="raw",
        container="array",
        pts_s=pts_s,
        tick_s=1e-3,
    )
    # Every frame by its time: the case's frames are those the reference was given.
    sampling = SamplingSettings(times_s=tuple(pts_s.tolist()))
    return VideoItem(info=info, name="video", sampling=sampling)


def _clip(visual: Visual, start: int, stop: int) -> Clip:
    idxs = np.arange(len(visual.frames))[start:stop]
    return Clip(visual.frames[start:stop], idxs.astype(np.float64), idxs)


def _clips(visual: Visual) -> Iterator[Clip]:
    for start in range(0, len(visual.frames), CLIP_FRAMES):
        yield _clip(visual, start, start + CLIP_FRAMES)


def _opener(visual: Visual) -> Callable[[], Iterator[Clip]]:
    return lambda: _clips(visual)


def _maps(features: torch.Tensor) -> torch.Tensor:
    side = round(features.shape[1] ** 0.5)
    return features.reshape(len(features), side, side, -1)


def numpy_of(tensors: Sequence[torch.Tensor]) -> npt.NDArray[np.float32]:
    """Return tensors of rows as one array."""
    joined: npt.NDArray[np.float32] = torch.cat(list(tensors)).detach().float().cpu().numpy()
    return joined
