"""Labels of patches and cells → the losses that teach them, beside the answers' own.

An answer is a weak teacher of a tower: nothing is learned from words until objects are found. So
beside the answers each patch of the tower is asked what covers it, each cell's row what is in it
and what happened, and heads of the decoder are told where to look (`pointing.py`). The linear
readers are thrown away after training. Source of the idea: dense labels and auxiliary targets of
detectors; which ones help was tried on the small world.
"""

from collections.abc import Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import nn

from llava_video.errors import ConfigError
from llava_video.model.labels import IGNORED
from llava_video.model.llava import LlavaModel
from llava_video.train.dense_labels import LOOKS, PATCHES, STORY, UNKNOWN
from llava_video.train.forward import TrainingModel
from llava_video.train.packing import Share
from llava_video.train.pointer import Pointer
from llava_video.train.pointing import PointingKeys, heads_fit
from llava_video.train.raw_frames import RawFrames
from llava_video.train.world_settings import DenseSettings
from llava_video.values import VisualPlan

# What is learned last counts more.
_COUNTS: Final = {"shape": 3.0, "goes": 2.0, "went": 2.0}


class DenseTraining(TrainingModel):
    """A `TrainingModel` that is taught cell by cell too.

    Args:
        model: shared with the caller.
        settings: what each loss counts.

    Raises:
        ConfigError: heads or a layer are named that there are not.
    """

    def __init__(self, model: LlavaModel, settings: DenseSettings) -> None:
        super().__init__(model)
        text = model.dimensions.text
        for role, heads in settings.heads.items():
            if not heads_fit(heads, text):
                raise ConfigError(
                    f"dense.{role}_heads = {heads}, and the decoder has {text.num_layers} layers "
                    f"of {text.num_heads} heads.",
                    "pairs of a layer and a head, both counted from 0.",
                )
        if settings.story_layer is not None and settings.story_layer >= text.num_layers:
            raise ConfigError(
                f"dense.story_layer = {settings.story_layer}, and the decoder has "
                f"{text.num_layers} layers.",
                "a layer, counted from 0; null for the last.",
            )
        width = model.dimensions.text.hidden_size
        self.settings = settings
        self.patches = nn.Linear(model.dimensions.vision.hidden_size, sum(PATCHES.values()))
        self.looks = nn.Linear(width, sum(LOOKS.values()))
        self.story = nn.Linear(width, sum(STORY.values()))
        self.parts: dict[str, torch.Tensor] = {}  # means over the last batch, for metrics

    def forward(  # type: ignore[override]  # a batch of it holds labels of cells beside
        self,
        ids: torch.Tensor,
        labels: torch.Tensor,
        tiles: torch.Tensor,
        plans: Sequence[VisualPlan],
        shares: Sequence[Share],
        looks: torch.Tensor,
        story: torch.Tensor,
        patches: torch.Tensor,
        visual_rows: torch.Tensor,
        pointers: Sequence[Sequence[Pointer]] = (),
        frames: RawFrames | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> dict[str, Any]:
        """Return {"loss": the weighted sum} of a batch.

        Args:
            ids: as `TrainingModel.forward`, like those below that are not told.
            labels: the same.
            tiles: the same.
            plans: the same.
            shares: the same.
            looks: (V, len(LOOKS)) int8, of the batch's visual rows.
            story: (V, len(STORY)) int8.
            patches: (N P^2, len(PATCHES)) int8, of the patches of the batch's N tiles.
            visual_rows: (V,) int64, where they stand in the sequence.
            pointers: of each share, what rows should look at.
            frames: the same.
            num_items_in_batch: the same.
        """
        settings, parts = self.settings, {}
        seen: list[torch.Tensor] = []  # what the tower says of each patch, before it is pooled
        hook = self.model.vision_tower.register_forward_hook(lambda *call: seen.append(call[-1]))
        with hook:
            visuals = self.visuals(plans, tiles, frames)
        # Of a step that is cut into batches and processes, which sums their losses: a mean too, in
        # which a batch weighs as much as it has learned tokens.
        num_own = (labels != IGNORED).sum()
        weight = 1.0 if num_items_in_batch is None else num_own / num_items_in_batch
        if settings.patches:
            said = self.patches(torch.cat(seen).flatten(0, 1))
            parts["patches"] = weight * _loss(said, patches, PATCHES)
        if settings.looks:
            parts["looks"] = weight * _loss(self.looks(torch.cat(visuals)), looks, LOOKS)
        if settings.story or settings.answers:
            pointers = pointers or [()] * len(shares)
            keys = PointingKeys(self.keys(shares), pointers, settings.heads)
            behind: list[torch.Tensor] = []  # copied: without gradients the next layer overwrites
            language, layer = self.model.language_model, settings.story_layer
            asked = language.norm if layer is None else language.layers[layer]
            with asked.register_forward_hook(lambda *call: behind.append(call[-1][visual_rows])):
                hidden = self.hidden_rows(self.spliced(ids, visuals), keys)
            if (looking := keys.loss()) is not None:
                parts["pointers"] = weight * looking
            if settings.story:
                parts["story"] = weight * _loss(self._told(behind[0]), story, STORY)
            if settings.answers:
                parts["answers"] = self.answer_loss(hidden, labels, num_items_in_batch)
        self.parts = {name: (loss / weight).detach() for name, loss in parts.items()}
        return {"loss": sum(getattr(settings, name) * loss for name, loss in parts.items())}

    def _told(self, rows: torch.Tensor) -> torch.Tensor:
        """Return what the story's reader says of rows behind the layer that is asked."""
        if self.settings.story_layer is not None:
            rows = F.rms_norm(rows, rows.shape[-1:], eps=self.model.dimensions.text.rms_norm_eps)
        return self.story(rows)  # type: ignore[no-any-return]  # nn.Module


def _loss(logits: torch.Tensor, labels: torch.Tensor, questions: dict[str, int]) -> torch.Tensor:
    """Return the mean over the questions, as they count, of each one's mean over its rows."""
    counts = [_COUNTS.get(name, 1.0) for name in questions]
    losses = []
    for idx, part in enumerate(torch.split(logits.float(), [*questions.values()], dim=1)):
        own = labels[:, idx].long()
        total = F.cross_entropy(part, own, ignore_index=UNKNOWN, reduction="sum")
        losses.append(counts[idx] * total / (own != UNKNOWN).sum().clamp(min=1))
    return torch.stack(losses).sum() / sum(counts)
