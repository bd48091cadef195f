"""The whole model: frames and their plan -> visual rows; the language model beside them.

Frames are pulled, tiled, encoded, pooled and projected some at a time, in one pass for them all, so
memory does not depend on how many there are. Is built from sizes alone and reads no file; knows no
tokenizer, no sequence and no sampling.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import nn

from llava_video.errors import CheckpointError, ConfigError, DecodeError
from llava_video.model.decoder import LanguageModel
from llava_video.model.dimensions import ModelDimensions
from llava_video.model.frame_rows import (
    FrameGroup,
    grouped,
    grouped_by,
    layouts_of,
    pooled_rows,
)
from llava_video.model.fusion import FusedPrompt, Fusion
from llava_video.model.kept_rows import KeptRows, kept_or_made
from llava_video.model.preprocess import make_tiles
from llava_video.model.projector import Projector
from llava_video.model.vision_calls import VisionCalls
from llava_video.model.vision_tower import VisionTower
from llava_video.ops.attention import AttentionKind
from llava_video.ops.splice import exactly
from llava_video.values import Clip, Newline, PoolOf, VisualPlan


class LlavaModel(nn.Module):
    """Vision tower, projector, learned tokens and language model.

    Args:
        dimensions: sizes of everything.
        attn: the language model's attention, "sdpa" or "flash".

    Raises:
        BackendMissingError: "flash" without the flash-attn package.
    """

    def __init__(self, dimensions: ModelDimensions, *, attn: AttentionKind = "sdpa") -> None:
        super().__init__()
        self.dimensions = dimensions
        text_size = dimensions.text.hidden_size
        self.vision_tower = VisionTower(dimensions.vision)
        vision_size = dimensions.vision.hidden_size
        self.projector = Projector(vision_size, text_size, dimensions.projector_layers)
        self.image_newline = (
            nn.Parameter(torch.empty(text_size)) if dimensions.has_newline else None
        )
        self.separator = nn.Parameter(torch.empty(text_size)) if dimensions.has_separator else None
        self.fusion = Fusion(dimensions) if dimensions.fusion else None
        self.language_model = LanguageModel(dimensions.text, attn=attn)

    @property
    def device(self) -> torch.device:
        """Where embeddings are made and hidden rows enter the language model."""
        return self.language_model.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are stored and computed in."""
        return self.language_model.dtype

    @torch.inference_mode()
    def encode(self, tiles: torch.Tensor) -> torch.Tensor:
        """Return the projected features of some tiles, unpooled, in one call of the tower.

        Args:
            tiles: (N, 3, px, px) normalised, on any device.

        Returns:
            (N, P, D) in the model's dtype, on the tower's device.
        """
        features: torch.Tensor = self.projector(self.vision_tower(tiles.to(self._vision_device)))
        return features

    @torch.inference_mode()
    def visual_rows(
        self,
        plan: VisualPlan,
        clips: Iterable[Clip],
        tile_chunk: int,
        kept: KeptRows | None = None,
    ) -> Iterator[torch.Tensor]:
        """Yield the rows of a video or picture, frame by frame.

        As many whole frames as `tile_chunk` holds go through tower, pooling and projector together;
        a frame of more tiles is encoded in pieces. Where memory is short, in smaller ones.

        Args:
            plan: the layout, and how many frames there are.
            clips: the frames, in order, in pieces of any length.
            tile_chunk: tiles per call of the tower; 2 keeps a CPU's memory warm, a GPU wants more.
            kept: rows of earlier frames, which are not encoded again, and take these in.

        Yields:
            (n, D) per frame, newline and separator rows included; `plan.num_tokens` rows in all.

        Raises:
            CapacityError: there is no memory for one tile.
            CheckpointError: the plan wants a learned token that the checkpoint lacks.
            ConfigError: the rows do not add up to the plan's tokens, or `tile_chunk` is below 1.
            DecodeError: the clips hold more or fewer frames than the plan says.
        """
        self._check_learned_tokens(plan)
        calls = VisionCalls(tile_chunk, plan.tiles_per_frame, self._vision_device)
        frames = _planned_frames(plan, clips)
        if kept is None:
            rows = self._all_rows(plan, enumerate(frames), calls)
        else:
            make = functools.partial(self._all_rows, plan, calls=calls)
            rows = kept_or_made(plan, frames, kept, make, calls.num_frames)
        yield from exactly(rows, plan.num_tokens, "visual tokens")

    def rows_of_tiles(self, plans: Sequence[VisualPlan], tiles: torch.Tensor) -> list[torch.Tensor]:
        """Return the rows of some visuals whose tiles are there, in one call of the tower.

        The steps of `visual_rows` with gradients, where the caller has them on.

        Args:
            plans: at least one, of the same `pool_of`, none of them fused.
            tiles: (N, 3, px, px) of `make_tiles`, visual by visual, frame by frame.

        Returns:
            (plan.num_tokens, D) for each plan.

        Raises:
            CheckpointError: a plan wants a learned token that the checkpoint lacks.
            ConfigError: the plans do not fit together, or to the tiles, or to their own tokens.
        """
        for plan in plans:
            self._check_learned_tokens(plan)
        if len({plan.pool_of for plan in plans}) != 1 or any(plan.is_fused for plan in plans):
            raise ConfigError(
                f"{len(plans)} visuals that are pooled unlike, or fused with their prompt.",
                "give those of one model together; LLaVA-Mini's have rows in a prompt only.",
            )
        layouts = [layout for plan in plans for layout in layouts_of(plan)]
        counts = [layout.num_tiles for layout in layouts]
        if sum(counts) != len(tiles):
            raise ConfigError(f"{sum(counts)} tiles were planned, {len(tiles)} given.", "cut anew.")
        groups = grouped_by(enumerate(layouts))
        order = _numbers(groups)
        if order != sorted(order):
            parts = torch.split(tiles, counts)
            tiles = torch.cat([parts[idx] for idx in order])
        rows = self._rows_of_tiles(tiles, groups, plans[0].pool_of, len(tiles))
        made: Sequence[torch.Tensor]
        if len(groups) == 1:  # of many short clips, frame by frame costs more than the tower
            counts = [plan.num_frames * groups[0].layout.num_rows for plan in plans]
            made = torch.split(rows, counts)
        else:
            frames = _in_order(rows, groups)
            made = [torch.cat([next(frames) for _ in plan.times_s]) for plan in plans]
        for plan, own in zip(plans, made, strict=True):
            list(exactly([own], plan.num_tokens, "visual tokens"))
        return list(made)

    def fused_prompt(
        self, ids: Sequence[int], num_frames: int, labels: Sequence[int] | None = None
    ) -> FusedPrompt:
        """Return a prompt that waits for the frames it is fused with (`fuse`).

        Args:
            ids: its tokens, one of them negative: the visual's place.
            num_frames: frames there will be.
            labels: of training, see `fusion.hidden_positions`.

        Raises:
            CheckpointError: the model has no fusion.
        """
        if self.fusion is None:
            raise CheckpointError(
                "the plan fuses frames with the prompt, the checkpoint has no layers for it.",
                "plan with this checkpoint's own configuration.",
            )
        embeddings = self.language_model.embed(torch.tensor([max(0, id_) for id_ in ids]))
        return FusedPrompt(self.fusion, self.projector, embeddings, ids, num_frames, labels=labels)

    @torch.inference_mode()
    def fuse(
        self, prompt: FusedPrompt, plan: VisualPlan, clips: Iterable[Clip], tile_chunk: int
    ) -> Iterator[int]:
        """Give a prompt its frames, one call of tower and fusion at a time.

        Args:
            prompt: of `fused_prompt`; its rows are there at the end.
            plan: how a frame is cut, and how many frames there are.
            clips: as in `visual_rows`.
            tile_chunk: as in `visual_rows`; fewer where the prompt is long.

        Yields:
            The frames taken in so far, after each call.

        Raises:
            CapacityError, ConfigError, DecodeError: as `visual_rows`.
        """
        num_patches = plan.tiles_per_frame * self.dimensions.vision.patches_per_side**2
        if prompt.num_visual != plan.num_tokens:
            raise ConfigError(
                f"{plan.num_tokens} visual tokens were planned, {prompt.num_visual} are made.",
                "plan again: the plan does not describe what is built from it.",
            )
        most_tiles = prompt.frames_at_once(num_patches) * plan.tiles_per_frame
        calls = VisionCalls(min(tile_chunk, most_tiles), plan.tiles_per_frame, self._vision_device)

        def call(frames: list[Clip]) -> int:
            features = self._unpooled(self._tiles(frames, plan), calls.tile_chunk, 0)
            prompt.add(features.view(len(frames), -1, *features.shape[1:]))
            return prompt.num_done

        yield from calls.over(_planned_frames(plan, clips), call)

    @property
    def _vision_device(self) -> torch.device:
        return self.vision_tower.position_embedding.device

    def _all_rows(
        self, plan: VisualPlan, frames: Iterator[tuple[int, Clip]], calls: VisionCalls
    ) -> Iterator[torch.Tensor]:
        """Yield the rows of each numbered frame, in order."""

        def call(numbered: list[tuple[int, Clip]]) -> tuple[torch.Tensor, list[FrameGroup]]:
            groups = grouped(plan, [idx for idx, _ in numbered])
            return self._rows_of(dict(numbered), plan, groups, calls.tile_chunk), groups

        for rows, groups in calls.over(frames, call):
            yield from _in_order(rows, groups)
            del rows  # the reader's alone while the next are made

    def _rows_of(
        self, frames: dict[int, Clip], plan: VisualPlan, groups: list[FrameGroup], tile_chunk: int
    ) -> torch.Tensor:
        """Return the rows (R, D) of some frames, group by group."""
        ordered = [frames[idx] for idx in _numbers(groups)]
        # Not by a name of its own: the tiles go when what is pooled of them is there.
        return self._rows_of_tiles(self._tiles(ordered, plan), groups, plan.pool_of, tile_chunk)

    def _rows_of_tiles(
        self, tiles: torch.Tensor, groups: list[FrameGroup], pool_of: PoolOf, tile_chunk: int
    ) -> torch.Tensor:
        """Return the rows (R, D) of frames whose tiles (N, 3, px, px) stand group by group."""
        is_linear = all(group.layout.is_linear for group in groups)
        num_before = self.projector.num_before_pooling(pool_of, is_linear=is_linear)
        maps = self._unpooled(tiles, tile_chunk, num_before)  # (N, P, C or D)
        del tiles
        rows = pooled_rows(maps, groups, gelu=0 < num_before < self.projector.num_layers)
        del maps
        rows = self.projector.after_pooling(rows, num_before)
        for group in groups:
            group.layout.write_learned(
                group.rows_of(rows), newline=self.image_newline, separator=self.separator
            )
        return rows

    def _unpooled(self, tiles: torch.Tensor, tile_chunk: int, num_before: int) -> torch.Tensor:
        """Return what is pooled of tiles (N, 3, px, px), a chunk at a time.

        (N, P, C) features before any layer of the projector, (N, P, D) after.
        """
        whole: torch.Tensor | None = None
        start = 0
        for chunk in torch.split(tiles, tile_chunk):
            features = self.vision_tower(chunk.to(self._vision_device, non_blocking=True))
            piece = self.projector.before_pooling(features, num_before)
            del features
            if len(piece) == len(tiles):
                return piece
            if whole is None:
                whole = piece.new_empty(len(tiles), *piece.shape[1:])
            whole[start : start + len(piece)] = piece
            start += len(piece)
        assert whole is not None  # there is a tile
        return whole

    def _tiles(self, frames: Sequence[Clip], plan: VisualPlan) -> torch.Tensor:
        """Return the tiles of some frames (N, 3, px, px), frame by frame, here or on the device."""
        vision = self.dimensions.vision
        like = self.vision_tower.position_embedding
        whole: torch.Tensor | None = None
        for i, frame in enumerate(frames):
            tiles = make_tiles(
                frame,
                plan,
                tile_px=vision.image_px,
                mean=vision.pixel_mean,
                std=vision.pixel_std,
                like=like,
            )
            # Pinned memory is copied while the host goes on to the next frames' tiles.
            is_pinned = like.is_cuda and not tiles.is_cuda
            if len(frames) == 1 and not is_pinned:
                return tiles
            if whole is None:
                shape = (len(frames) * len(tiles), *tiles.shape[1:])
                whole = torch.empty(
                    shape, dtype=tiles.dtype, device=tiles.device, pin_memory=is_pinned
                )
            whole[i * len(tiles) : (i + 1) * len(tiles)] = tiles
            del tiles  # before the next are made
        assert whole is not None  # there is a frame
        return whole

    def _check_learned_tokens(self, plan: VisualPlan) -> None:
        if plan.newline is not Newline.NONE and self.image_newline is None:
            raise CheckpointError(
                f"the plan writes newline tokens ({plan.newline}), the checkpoint has none.",
                'plan with newline="none".',
            )
        if plan.slow_every and self.separator is None:
            raise CheckpointError(
                f"the plan is slow-fast (every {plan.slow_every} frames), which ends frames with a "
                "separator token; the checkpoint has none.",
                "plan without slow-fast.",
            )


def _numbers(groups: list[FrameGroup]) -> list[int]:
    """Return the frames' numbers in the order in which their tiles and rows stand."""
    return [idx for group in groups for idx in group.frame_idxs]


def _in_order(rows: torch.Tensor, groups: list[FrameGroup]) -> Iterator[torch.Tensor]:
    """Yield the rows of each frame, views of all groups' rows, in the frames' order."""
    frames = {
        idx: frame
        for group in groups
        for idx, frame in zip(group.frame_idxs, group.rows_of(rows), strict=True)
    }
    for idx in sorted(frames):
        yield frames.pop(idx)


def _planned_frames(plan: VisualPlan, clips: Iterable[Clip]) -> Iterator[Clip]:
    """Yield clips of one frame each, exactly as many as planned."""
    num_frames = 0
    for clip in clips:
        num_frames += len(clip.frames)
        if num_frames > plan.num_frames:
            raise DecodeError(
                f"{plan.num_frames} frames were planned, at least {num_frames} came.",
                "plan again for the frames there are.",
            )
        for i in range(len(clip.frames)):
            one = slice(i, i + 1)
            yield Clip(clip.frames[one], clip.pts_s[one], clip.frame_idxs[one])
    if num_frames < plan.num_frames:
        raise DecodeError(
            f"{plan.num_frames} frames were planned, {num_frames} came.",
            "plan again for the frames there are.",
        )
