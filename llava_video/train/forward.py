"""Packed examples → the loss of what they learn, with gradients, by the model that answers.

Tower, pooling, projector, newlines, decoder and head are inference's own modules; the visuals' rows
stand at the marks as in a prompt. The head sees only rows that lead to a learned token. Source of
the loss: the mean over all learned tokens of a batch, as in transformers. Knows no file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NotRequired, TypedDict

import torch
import torch.nn.functional as F
from torch import nn

from llava_video.errors import ConfigError
from llava_video.model.labels import IGNORED
from llava_video.model.llava import LlavaModel
from llava_video.model.step_keys import StepKeys
from llava_video.model.tokenizer import MARK_ID
from llava_video.ops.tile_frames import normalised
from llava_video.train.packing import PackedKeys, Share, packed_keys
from llava_video.train.pointer import Pointer, shifted
from llava_video.train.raw_frames import (
    FilmedFrames,
    RawFrames,
    grouped_by_size,
    tiles_of_frames,
)
from llava_video.values import VisualPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One example, ready to be packed.

    Attributes:
        ids: prompt and answers, -200 at every visual.
        labels: as many; the id where it is learned, else -100.
        plans: of its visuals, in the order of their marks.
        tiles: (N, 3, px, px) of all visuals in that order, uint8 levels or normalised; N = 0
            without any.
        tails: where tails begin among `ids`, see `packing.Share`.
        filmed: the pixels of its one visual where they are tiled on the device; N = 0 then.
        looks: (V, questions) int8 of its V visual rows, see `DenseLabels`; or None.
        story: likewise.
        patches: (N P^2, questions) int8 of its N tiles' patches, likewise.
        pointers: its rows that are about something, and where in its visual that shows.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    plans: tuple[VisualPlan, ...]
    tiles: torch.Tensor
    tails: tuple[int, ...] = ()
    filmed: FilmedFrames | None = None
    looks: torch.Tensor | None = None
    story: torch.Tensor | None = None
    patches: torch.Tensor | None = None
    pointers: tuple[Pointer, ...] = ()

    @property
    def num_rows(self) -> int:
        """Rows of the language model: text and visual tokens."""
        return len(self.ids) - len(self.plans) + sum(plan.num_tokens for plan in self.plans)


class Batch(TypedDict):
    """Packed examples, as `Trainer` hands them to the model.

    ids (L',) int64 with -200 at every visual; labels (L,) int64, one per row of the sequence, a
    row's label being the token that stands there; tiles (N, 3, px, px) as an example's; plans of
    all visuals; shares of the L rows. Of clips of the small world also their frames, and where
    cells are asked: looks and story (V, questions) int8 of the V visual rows, which stand at
    visual_rows (V,), and patches (N P^2, questions) int8 of the tiles' patches; and pointers of
    each share.
    """

    ids: torch.Tensor
    labels: torch.Tensor
    tiles: torch.Tensor
    plans: list[VisualPlan]
    shares: list[Share]
    frames: NotRequired[RawFrames]
    looks: NotRequired[torch.Tensor]
    story: NotRequired[torch.Tensor]
    patches: NotRequired[torch.Tensor]
    visual_rows: NotRequired[torch.Tensor]
    pointers: NotRequired[list[list[Pointer]]]


def pack(examples: Sequence[Example]) -> Batch:
    """Put examples one behind the other.

    Args:
        examples: at least one.

    Raises:
        ConfigError: the marks of an example are not as many as its visuals.
    """
    ids: list[int] = []
    labels: list[int] = []
    shares: list[Share] = []
    visual_rows: list[torch.Tensor] = []
    for example in examples:
        share, own = _expanded(example, len(labels))
        if example.looks is not None:
            begun = len(labels) + example.ids.index(MARK_ID)
            visual_rows.append(torch.arange(begun, begun + len(example.looks)))
        for row in share.first_rows:
            own[row - share.start] = IGNORED
        shares.append(share)
        labels += own
        ids += example.ids
    tiles = [example.tiles for example in examples if len(example.tiles)]
    batch = Batch(
        ids=torch.tensor(ids),
        labels=torch.tensor(labels),
        tiles=torch.cat(tiles) if tiles else examples[0].tiles,
        plans=[plan for example in examples for plan in example.plans],
        shares=shares,
    )
    filmed = [example.filmed for example in examples if example.filmed is not None]
    if filmed:
        batch["frames"] = grouped_by_size(filmed)
    if visual_rows:
        batch["visual_rows"] = torch.cat(visual_rows)
        batch["looks"] = torch.cat([x.looks for x in examples if x.looks is not None])
        batch["story"] = torch.cat([x.story for x in examples if x.story is not None])
        batch["patches"] = torch.cat([x.patches for x in examples if x.patches is not None])
    if any(example.pointers for example in examples):
        batch["pointers"] = [
            _placed(example, share) for example, share in zip(examples, shares, strict=True)
        ]
    return batch


def _placed(example: Example, share: Share) -> list[Pointer]:
    """Return an example's pointers as those of the sequence; its text is behind its one visual."""
    if not example.pointers:
        return []
    mark = example.ids.index(MARK_ID)
    return shifted(example.pointers, text=share.stop - len(example.ids), visual=share.start + mark)


def _expanded(example: Example, start: int) -> tuple[Share, list[int]]:
    """Return an example's share, and its labels with -100 for every row of a visual."""
    if example.ids.count(MARK_ID) != len(example.plans):
        raise ConfigError(
            f"an example has {example.ids.count(MARK_ID)} marks and {len(example.plans)} visuals.",
            "one mark for each.",
        )
    plans = iter(example.plans)
    labels: list[int] = []
    places: list[int] = []  # the row of each id
    for id_, label in zip(example.ids, example.labels, strict=True):
        places.append(start + len(labels))
        labels += [IGNORED] * next(plans).num_tokens if id_ == MARK_ID else [label]
    tails = tuple(places[tail] for tail in example.tails)
    return Share(start, start + len(labels), tails), labels


class TrainingModel(nn.Module):
    """A `LlavaModel` as `Trainer` calls it.

    Args:
        model: shared with the caller; its parameters are what is trained.
        position_scale: position = index / scale, as in a request.

    Attributes:
        accepts_loss_kwargs: what `Trainer` asks before it counts the learned tokens of a whole
            step and hands their number to `forward`.
    """

    accepts_loss_kwargs: Final = True

    def __init__(self, model: LlavaModel, *, position_scale: float = 1.0) -> None:
        super().__init__()
        self.model = model
        self.position_scale = position_scale

    def forward(
        self,
        ids: torch.Tensor,
        labels: torch.Tensor,
        tiles: torch.Tensor,
        plans: Sequence[VisualPlan],
        shares: Sequence[Share],
        frames: RawFrames | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> dict[str, Any]:
        """Return {"loss": a scalar} of a batch, see `Batch`.

        Args:
            ids: of the batch.
            labels: of the batch.
            tiles: of the batch.
            plans: of the batch.
            shares: of the batch.
            frames: the pixels of all visuals in the place of their tiles; None where those are
                there.
            num_items_in_batch: learned tokens of all batches of one optimiser's step, which the sum
                is divided by; None for this batch's own.

        Raises:
            ConfigError, CheckpointError: as `LlavaModel.rows_of_tiles`; or nothing is learned.
        """
        visuals = self.visuals(plans, tiles, frames)
        hidden = self.hidden_rows(self.spliced(ids, visuals), self.keys(shares))
        return {"loss": self.answer_loss(hidden, labels, num_items_in_batch)}

    def visuals(
        self, plans: Sequence[VisualPlan], tiles: torch.Tensor, frames: RawFrames | None = None
    ) -> list[torch.Tensor]:
        """Return the rows of every visual, as they enter the decoder; arguments as `forward`."""
        if not plans:
            return []
        if frames is not None:
            tiles = tiles_of_frames(frames, plans[0], self.model.dimensions.vision)
        return self.model.rows_of_tiles(plans, self._normalised(tiles))

    def hidden_rows(self, rows: torch.Tensor, keys: StepKeys) -> torch.Tensor:
        """Return the rows (L, D) after the decoder's final norm.

        Args:
            rows: (L, D) of `spliced`.
            keys: of `keys`, or others that store nothing.
        """
        return self.model.language_model.run(rows, keys, None)

    def keys(self, shares: Sequence[Share]) -> PackedKeys:
        """Return who attends to what in a batch.

        Args:
            shares: of the batch.
        """
        language = self.model.language_model
        return packed_keys(
            shares,
            language.config,
            device=language.devices[0],
            position_scale=self.position_scale,
        )

    def answer_loss(
        self,
        hidden: torch.Tensor,
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Return the loss of what is learned.

        Args:
            hidden: (L, D) of `hidden_rows`.
            labels: of the batch.
            num_items_in_batch: as in `forward`.

        Raises:
            ConfigError: nothing is learned.
        """
        logits, targets = self.learned_logits(hidden, labels)
        num_learned = len(targets) if num_items_in_batch is None else num_items_in_batch
        total = F.cross_entropy(logits, targets, reduction="sum")
        return self.reaching(total / num_learned)

    def learned_logits(
        self, hidden: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the scores (n, vocab_size) of the n learned tokens' places, and these tokens (n,).

        Args:
            hidden: (L, D) of `hidden_rows`.
            labels: (L,) of the batch.

        Raises:
            ConfigError: nothing is learned.
        """
        is_learned = labels[1:] != IGNORED
        targets = labels[1:][is_learned]
        if not len(targets):
            raise ConfigError("a batch has no learned token.", "leave such examples out.")
        logits = self.model.language_model.logits(hidden[:-1][is_learned.to(hidden.device)])
        return logits, targets.to(logits.device)

    def reaching(self, loss: torch.Tensor) -> torch.Tensor:
        """Return a loss that leads to what learns, also of text alone where no part of it does."""
        if torch.is_grad_enabled() and not loss.requires_grad:
            return loss + self._nothing_seen().to(loss)
        return loss

    def spliced(self, ids: torch.Tensor, visuals: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the embeddings (L, D) with the visuals' rows in the place of their marks.

        Args:
            ids: of the batch.
            visuals: of `visuals`.
        """
        is_text = ids != MARK_ID
        # Where one process has visuals, they are made before its text is embedded.
        nothing = self._nothing_seen() if not visuals and _has_other_processes() else None
        text = self.model.language_model.embed(ids[is_text])
        if not visuals:
            return text if nothing is None else text + nothing
        lengths = _text_lengths(is_text.tolist())
        pieces: list[torch.Tensor] = []
        for idx, piece in enumerate(torch.split(text, lengths)):
            pieces.append(piece)
            if idx < len(visuals):
                pieces.append(visuals[idx].to(text))
        return torch.cat(pieces)

    def _normalised(self, tiles: torch.Tensor) -> torch.Tensor:
        """Return what the tower sees of levels, made where it stands: they are fewer to copy."""
        if tiles.dtype is not torch.uint8:
            return tiles
        vision = self.model.dimensions.vision
        device = self.model.vision_tower.position_embedding.device
        levels = tiles.to(device, non_blocking=True)
        return normalised(levels, vision.pixel_mean, vision.pixel_std)

    def _nothing_seen(self) -> torch.Tensor:
        """Return a zero that a blank tile leads to.

        Processes gather gradients, and under ZeRO-3 weights, of the same modules at the same time:
        one that has text alone runs the others too.
        """
        model, px = self.model, self.model.dimensions.vision.image_px
        like = model.vision_tower.position_embedding
        features = model.projector(model.vision_tower(like.new_zeros(1, 3, px, px)))
        learned = [x for x in (model.image_newline, model.separator) if x is not None]
        zero: torch.Tensor = 0.0 * sum(x.sum().to(features.device) for x in (features, *learned))
        return zero.to(model.device)


def _has_other_processes() -> bool:
    distributed = torch.distributed
    is_here = distributed.is_available() and distributed.is_initialized()
    return is_here and distributed.get_world_size() > 1


def _text_lengths(is_text: Sequence[bool]) -> list[int]:
    """Return how many text tokens stand before, between and behind the marks."""
    lengths = [0]
    for is_one in is_text:
        if is_one:
            lengths[-1] += 1
        else:
            lengths.append(0)
    return lengths
