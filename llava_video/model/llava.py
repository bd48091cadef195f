"""The whole model: frames and their plan -> visual rows; the language model beside them.

Frames are pulled, tiled, encoded and written out a few tiles at a time, so memory does not depend
on how many there are. Is built from sizes alone and reads no file; knows no tokenizer, no sequence
and no sampling.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import nn

from llava_video.errors import CheckpointError, DecodeError
from llava_video.model.decoder import LanguageModel
from llava_video.model.dimensions import ModelDimensions
from llava_video.model.frame_rows import frame_rows
from llava_video.model.preprocess import make_tiles
from llava_video.model.projector import Projector
from llava_video.model.vision_tower import VisionTower
from llava_video.ops.attention import AttentionKind
from llava_video.ops.splice import exactly, rechunk
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
        self.projector = Projector(dimensions.vision.hidden_size, text_size)
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
        """Return the projected features of some tiles, in one call of the tower.

        Args:
            tiles: (N, 3, px, px) normalised, on any device.

        Returns:
            (N, P, D) in the model's dtype, on the tower's device.
        """
        tower_device = self.vision_tower.position_embedding.device
        features: torch.Tensor = self.projector(self.vision_tower(tiles.to(tower_device)))
        return features

    @torch.inference_mode()
    def visual_rows(
        self, plan: VisualPlan, clips: Iterable[Clip], tile_chunk: int
    ) -> Iterator[torch.Tensor]:
        """Yield the rows of a video or picture, frame by frame.

        Args:
            plan: the layout, and how many frames there are.
            clips: the frames, in order, in pieces of any length.
            tile_chunk: tiles per call of the tower; 2 keeps a CPU's memory warm, a GPU wants more.

        Yields:
            (n, D) per frame, newline and separator rows included; `plan.num_tokens` rows in all.

        Raises:
            CheckpointError: the plan wants a learned token that the checkpoint lacks.
            ConfigError: the rows do not add up to the plan's tokens.
            DecodeError: the clips hold more or fewer frames than the plan says.
        """
        self._check_learned_tokens(plan)
        frames = _planned_frames(plan, clips)
        tiles = rechunk((self._tiles(frame, plan) for frame in frames), tile_chunk)
        encoded = (self.encode(chunk) for chunk in tiles)
        rows = (
            frame_rows(
                features, plan, frame_idx, newline=self.image_newline, separator=self.separator
            )
            for frame_idx, features in enumerate(rechunk(encoded, plan.tiles_per_frame))
        )
        yield from exactly(rows, plan.num_tokens, "visual tokens")

    def _tiles(self, frame: Clip, plan: VisualPlan) -> torch.Tensor:
        vision = self.dimensions.vision
        return make_tiles(
            frame, plan, tile_px=vision.image_px, mean=vision.pixel_mean, std=vision.pixel_std
        )

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
