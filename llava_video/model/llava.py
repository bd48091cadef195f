"""The whole model: frames and their plan -> visual rows; the language model beside them.

Frames are pulled, tiled, encoded, pooled and projected some at a time, in one pass for them all, so
memory does not depend on how many there are. Is built from sizes alone and reads no file; knows no
tokenizer, no sequence and no sampling.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import nn

from llava_video.errors import CheckpointError, DecodeError
from llava_video.model.decoder import LanguageModel
from llava_video.model.dimensions import ModelDimensions
from llava_video.model.frame_rows import FrameGroup, grouped, pooled_rows
from llava_video.model.preprocess import make_tiles
from llava_video.model.projector import Projector
from llava_video.model.vision_calls import VisionCalls
from llava_video.model.vision_tower import VisionTower
from llava_video.ops.attention import AttentionKind
from llava_video.ops.splice import exactly
from llava_video.values import Clip, Newline, VisualPlan


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
        self, plan: VisualPlan, clips: Iterable[Clip], tile_chunk: int
    ) -> Iterator[torch.Tensor]:
        """Yield the rows of a video or picture, frame by frame.

        As many whole frames as `tile_chunk` holds go through tower, pooling and projector together;
        a frame of more tiles is encoded in pieces. Where memory is short, in smaller ones.

        Args:
            plan: the layout, and how many frames there are.
            clips: the frames, in order, in pieces of any length.
            tile_chunk: tiles per call of the tower; 2 keeps a CPU's memory warm, a GPU wants more.

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
        yield from exactly(self._all_rows(plan, frames, calls), plan.num_tokens, "visual tokens")

    @property
    def _vision_device(self) -> torch.device:
        return self.vision_tower.position_embedding.device

    def _all_rows(
        self, plan: VisualPlan, frames: Iterator[Clip], calls: VisionCalls
    ) -> Iterator[torch.Tensor]:
        """Yield the rows of each frame, in order."""
        first_idx = 0
        waiting: list[Clip] = []
        while waiting := waiting or list(itertools.islice(frames, calls.num_frames)):
            together = waiting[: calls.num_frames]
            groups = grouped(plan, range(first_idx, first_idx + len(together)))
            encode = functools.partial(self._rows_of, together, plan, groups, calls.tile_chunk)
            rows = calls.attempt(encode, len(together))
            if rows is None:
                continue
            yield from _in_order(rows, groups)
            del rows  # the reader's alone while the next are made
            first_idx += len(together)
            waiting = waiting[len(together) :]

    def _rows_of(
        self, frames: list[Clip], plan: VisualPlan, groups: list[FrameGroup], tile_chunk: int
    ) -> torch.Tensor:
        """Return the rows (R, D) of some consecutive frames, group by group."""
        order = [idx for group in groups for idx in group.frame_idxs]
        first_idx = min(order)
        is_linear = all(group.layout.is_linear for group in groups)
        num_before = self.projector.num_before_pooling(plan.pool_of, is_linear=is_linear)
        tiles = self._tiles([frames[idx - first_idx] for idx in order], plan)
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
