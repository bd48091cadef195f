"""One sample through the public stages, stage by stage, each result kept where it can be compared.

plan → tiles → tower → projector → pooling → visual rows → embeddings → logits → tokens. Every stage
is the library's own function; nothing is computed here that the library computes itself. Of frames
that are fused with their prompt the visual rows are part of the embeddings.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt
import torch
from parity_case import Sample, Visual
from parity_model import Candidate
from parity_visuals import clip_of, clips_of, item_of, whole_tile

from llava_video.engine.arena import Arena
from llava_video.engine.logits import penalize
from llava_video.engine.request import (
    FusedPart,
    Part,
    Request,
    TextPart,
    VisualPart,
)
from llava_video.engine.rows import PromptRows
from llava_video.engine.sequence import Sequence as KvSequence
from llava_video.engine.settings import GenerationSettings
from llava_video.engine.step import Work, run_step
from llava_video.model.fusion import hidden_positions
from llava_video.model.labels import Labelled, label_conversation, turns_of_sample
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import ModelConfig, geometry_of
from llava_video.model.preprocess import make_tiles
from llava_video.model.tokenizer import MARK_ID
from llava_video.ops.pool import pool_map
from llava_video.planning.planner import plan_request
from llava_video.planning.settings import PlanningSettings, SamplingSettings
from llava_video.values import Plan, VisualPlan

# Smaller than every case, so that prefill, vision and clips all come in several pieces.
PREFILL_CHUNK_TOKENS = 500
TILE_CHUNK = 3


class SampleRun:
    """A sample on one model; each stage is computed when it is first asked for.

    Args:
        sample: the prompt and its visuals.
        model: the weights.
        tested: whose tokenizer reads the prompt.
        config: the checkpoint's, with the case's overrides.
    """

    def __init__(
        self, sample: Sample, model: LlavaModel, tested: Candidate, config: ModelConfig
    ) -> None:
        self.sample, self.model, self.config = sample, model, config
        self.tokenizer, self.vocab_size = tested.tokenizer, tested.vocab_size

    @cached_property
    def ids(self) -> list[int]:
        """Prompt ids with -200 at every mark."""
        if self.sample.prompt is not None:
            return self.tokenizer.encode_ids(self.sample.prompt)
        if self.sample.conversation:
            return list(self._learned.ids)
        ids = list(self.sample.ids)
        padding = self.config.generation.pad_id
        end = 0 if self.config.padding_side == "left" else -1
        while ids and ids[end] == padding:
            ids.pop(end)
        return ids

    @cached_property
    def labels(self) -> list[int] | None:
        """The label of every id, -100 for those not learned; None where nothing is learned."""
        if self.sample.conversation:
            return list(self._learned.labels)
        theirs = self.sample.expected.get("labels")
        if theirs is None:
            return None
        labels = theirs.reshape(-1).tolist()
        is_left = self.config.padding_side == "left"
        return labels[-len(self.ids) :] if is_left else labels[: len(self.ids)]

    @cached_property
    def _learned(self) -> Labelled:
        turns = turns_of_sample(self.sample.conversation)
        config = self.config
        return label_conversation(
            turns, self.tokenizer, config.template, has_mark_ends=config.has_mark_ends
        )

    @cached_property
    def plan(self) -> Plan:
        """The planner's plan for exactly these frames, laid out as the configuration says."""
        geometry = geometry_of(self.config, "golden", "float32")
        prompt = self.sample.prompt or ""
        text_tokens = sum(token_id != MARK_ID for token_id in self.ids)
        return plan_request(
            [item_of(visual) for visual in self.sample.visuals],
            geometry,
            PlanningSettings(
                image_aspect=geometry.aspect, time_instruction=False, max_new_tokens=16
            ),
            SamplingSettings(),
            lambda notes: (prompt, text_tokens),
        )

    @cached_property
    def tiles(self) -> list[torch.Tensor]:
        """Normalised tiles (N, 3, px, px), one tensor per visual."""
        vision = self.config.vision
        return [
            make_tiles(
                clip_of(visual, 0, len(visual.frames)),
                plan,
                tile_px=vision.image_px,
                mean=vision.pixel_mean,
                std=vision.pixel_std,
            )
            for visual, plan in self._visuals
        ]

    @cached_property
    def levels(self) -> list[npt.NDArray[np.uint8]]:
        """The same tiles before they are normalised, 0..255."""
        shape = (1, 3, 1, 1)
        mean = np.asarray(self.config.vision.pixel_mean, dtype=np.float64).reshape(shape)
        std = np.asarray(self.config.vision.pixel_std, dtype=np.float64).reshape(shape)
        return [
            np.rint((tiles.numpy().astype(np.float64) * std + mean) * 255).astype(np.uint8)
            for tiles in self.tiles
        ]

    @cached_property
    def whole_frames(self) -> list[npt.NDArray[np.uint8]]:
        """The tile (T, 3, px, px) that shows the whole frame, per visual."""
        return [
            levels[whole_tile(plan) :: plan.tiles_per_frame]
            for levels, (_, plan) in zip(self.levels, self._visuals, strict=True)
        ]

    @cached_property
    def features(self) -> list[torch.Tensor]:
        """The tower's features (N, P, C), one tensor per visual."""
        with torch.inference_mode():
            return [
                torch.cat([self.model.vision_tower(part) for part in self._chunks(tiles)])
                for tiles in self.tiles
            ]

    @cached_property
    def projected(self) -> list[torch.Tensor]:
        """Projected features (N, P, D), one tensor per visual."""
        return [
            torch.cat([self.model.encode(part) for part in self._chunks(tiles)])
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
        if self.is_fused:
            spans = zip(self.feature_starts, self.plan.visuals, strict=True)
            return [self.embeddings[start : start + plan.num_tokens] for start, plan in spans]
        return [
            torch.cat(list(self.model.visual_rows(plan, clips_of(visual), TILE_CHUNK)))
            for visual, plan in self._visuals
        ]

    @cached_property
    def compressed(self) -> torch.Tensor:
        """What the compressor gives (T, queries, C) while the prompt is fused."""
        found: list[torch.Tensor] = []
        assert self.model.fusion is not None  # a set stores this of models that have one
        hook = self.model.fusion.attention.register_forward_hook(
            lambda _module, _inputs, output: found.append(output)
        )
        try:
            self._fused_rows(self.labels)
        finally:
            hook.remove()
        return torch.cat(found)

    @cached_property
    def fused_text(self) -> npt.NDArray[np.float32]:
        """The prompt (L, D) after the first frame alone; NaN where the fusion leaves it out."""
        rows = self._fused_rows(self.labels, num_frames=1).cpu().numpy()
        hidden = np.asarray(hidden_positions(self.ids, self.labels))
        place, num_visual = self.ids.index(MARK_ID), len(rows) - len(self.ids) + 1
        text = np.concatenate([rows[: place + 1], rows[place + num_visual :]])
        text[hidden] = np.nan
        return text

    @cached_property
    def feature_starts(self) -> list[int]:
        """Index in the sequence of the first row of every visual."""
        counts = iter(visual.num_tokens for visual in self.plan.visuals)
        lengths = [next(counts) if token_id == MARK_ID else 1 for token_id in self.ids]
        starts = itertools.accumulate([0, *lengths[:-1]])
        return [s for s, token_id in zip(starts, self.ids, strict=True) if token_id == MARK_ID]

    @cached_property
    def embeddings(self) -> torch.Tensor:
        """The language model's input (L, D): as the engine draws it, or in training."""
        if self.is_fused and self.labels is not None:
            return self._fused_rows(self.labels)
        return self._drawn_rows()

    @cached_property
    def logits(self) -> torch.Tensor:
        """The logits (L, vocab) at every position of the prompt, prefilled in chunks."""
        return self._logits_of(self.embeddings, [])

    @cached_property
    def free_logits(self) -> torch.Tensor:
        """The same where labels hide nothing."""
        return self._logits_of(self._drawn_rows(), [])

    def forced_margins(self, tokens: Sequence[int], penalty: float = 1.0) -> list[float]:
        """Return the reference's margins by teacher forcing: top-1 minus top-2 at each step."""
        logits = self._logits_of(self.embeddings, tokens[:-1])[-len(tokens) :]
        margins = []
        for step, row in enumerate(logits):
            top = penalize(row, tokens[:step], penalty).topk(2).values
            margins.append(float(top[0] - top[1]))
        return margins

    def request(self, num_tokens: int = 16, penalty: float = 1.0, request_id: int = 0) -> Request:
        """Return the engine's request: greedy, end tokens ignored by the engine of `engine_of`."""
        visuals = iter(self._visuals)
        parts: list[Part] = []
        for piece in _pieces(self.ids):
            if piece:
                parts.append(TextPart(piece))
            else:
                visual, plan = next(visuals)
                parts.append(
                    VisualPart(plan=plan, clips=partial(clips_of, visual), key=str(len(parts)))
                )
        if self.is_fused:
            parts = [_fused(parts)]
        generation = GenerationSettings(
            max_new_tokens=num_tokens, repetition_penalty=penalty, loop_guard=False
        )
        return Request(parts=tuple(parts), generation=generation, request_id=request_id)

    @property
    def is_fused(self) -> bool:
        """Whether the model fuses its frames with the prompt."""
        return any(visual.is_fused for visual in self.plan.visuals)

    @property
    def num_tokens(self) -> int:
        """Tokens of the prompt, text and visual."""
        return self.plan.tokens

    @cached_property
    def position_labels(self) -> torch.Tensor:
        """The label (L,) of every position: those of ids at theirs, none at visual tokens.

        Raises:
            ValueError: nothing is learned of the sample.
        """
        if self.labels is None:
            raise ValueError("a loss needs labels, and the case has none.")
        counts = iter(visual.num_tokens for visual in self.plan.visuals)
        spread = [
            [label] * (next(counts) if token_id == MARK_ID else 1)
            for token_id, label in zip(self.ids, self.labels, strict=True)
        ]
        return torch.tensor(list(itertools.chain.from_iterable(spread)))

    def _drawn_rows(self) -> torch.Tensor:
        rows = PromptRows(self.model, list(self.request().parts), TILE_CHUNK)
        with torch.inference_mode():
            pieces = []
            while rows.num_left:
                pieces.append(rows.take(min(PREFILL_CHUNK_TOKENS, rows.num_left)))
        return torch.cat(pieces)

    def _fused_rows(
        self, labels: Sequence[int] | None, num_frames: int | None = None
    ) -> torch.Tensor:
        """Return the rows of a prompt fused with its visual, or with its first frames."""
        ((visual, plan),) = self._visuals
        if num_frames is not None:
            plan = replace(
                plan,
                times_s=plan.times_s[:num_frames],
                frame_idxs=plan.frame_idxs[:num_frames],
                num_tokens=plan.num_tokens // plan.num_frames * num_frames,
            )
        clips = (clip_of(visual, idx, idx + 1) for idx in range(plan.num_frames))
        with torch.inference_mode():
            prompt = self.model.fused_prompt(self.ids, plan.num_frames, labels)
            for _ in self.model.fuse(prompt, plan, clips, TILE_CHUNK):
                pass
            return prompt.rows()

    def _chunks(self, tiles: torch.Tensor) -> Iterator[torch.Tensor]:
        for chunk in tiles.split(TILE_CHUNK):
            yield chunk.to(self.model.device)

    @property
    def _visuals(self) -> list[tuple[Visual, VisualPlan]]:
        return list(zip(self.sample.visuals, self.plan.visuals, strict=True))

    def _logits_of(self, rows: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
        """Return the logits (L + n, vocab) of a prompt's rows (L, D) followed by n tokens."""
        language_model, text = self.model.language_model, self.config.text
        arena = Arena(
            text.num_layers,
            text.num_kv_heads,
            text.head_dim,
            dtype=language_model.dtype,
            devices=language_model.devices,
            slab_tokens=1024,
        )
        chunks = list(rows.split(PREFILL_CHUNK_TOKENS))
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


def _pieces(ids: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield the runs of text ids, and () for every mark."""
    piece: list[int] = []
    for token_id in (*ids, None):
        if token_id not in (MARK_ID, None):
            piece.append(token_id)
            continue
        if piece:
            yield tuple(piece)
        if token_id == MARK_ID:
            yield ()
        piece = []


def _fused(parts: Sequence[Part]) -> FusedPart:
    (place,) = (idx for idx, part in enumerate(parts) if isinstance(part, VisualPart))
    visual = parts[place]
    assert isinstance(visual, VisualPart)
    before, after = (
        tuple(token_id for part in side if isinstance(part, TextPart) for token_id in part.ids)
        for side in (parts[:place], parts[place + 1 :])
    )
    # Nothing limits the memory of a parity run.
    return FusedPart(before=before, visual=visual, after=after, held_bytes=0)


def _maps(features: torch.Tensor) -> torch.Tensor:
    side = round(features.shape[1] ** 0.5)
    return features.reshape(len(features), side, side, -1)


def numpy_of(tensors: Sequence[torch.Tensor]) -> npt.NDArray[np.float32]:
    """Return tensors of rows as one array."""
    joined: npt.NDArray[np.float32] = torch.cat(list(tensors)).detach().float().cpu().numpy()
    return joined
