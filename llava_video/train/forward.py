"""Packed examples → the loss of what they learn, with gradients, by the model that answers.

Tower, pooling, projector, newlines, decoder and head are inference's own modules; the visuals' rows
stand at the marks as in a prompt. The head sees only rows that lead to a learned token. Source of
the loss: the mean over all learned tokens of a batch, as in transformers. Knows no file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypedDict

import torch
import torch.nn.functional as F
from torch import nn

from llava_video.errors import ConfigError
from llava_video.model.labels import IGNORED
from llava_video.model.llava import LlavaModel
from llava_video.model.tokenizer import MARK_ID
from llava_video.train.packing import Share, packed_keys
from llava_video.values import VisualPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One example, ready to be packed.

    Attributes:
        ids: prompt and answers, -200 at every visual.
        labels: as many; the id where it is learned, else -100.
        plans: of its visuals, in the order of their marks.
        tiles: (N, 3, px, px) of all visuals in that order; N = 0 without any.
        tails: where tails begin among `ids`, see `packing.Share`.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    plans: tuple[VisualPlan, ...]
    tiles: torch.Tensor
    tails: tuple[int, ...] = ()

    @property
    def num_rows(self) -> int:
        """Rows of the language model: text and visual tokens."""
        return len(self.ids) - len(self.plans) + sum(plan.num_tokens for plan in self.plans)


class Batch(TypedDict):
    """Packed examples, as `Trainer` hands them to the model.

    ids (L',) int64 with -200 at every visual; labels (L,) int64, one per row of the sequence, a
    row's label being the token that stands there; tiles (N, 3, px, px); plans of all visuals;
    shares of the L rows.
    """

    ids: torch.Tensor
    labels: torch.Tensor
    tiles: torch.Tensor
    plans: list[VisualPlan]
    shares: list[Share]


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
    for example in examples:
        share, own = _expanded(example, len(labels))
        for row in share.first_rows:
            own[row - share.start] = IGNORED
        shares.append(share)
        labels += own
        ids += example.ids
    tiles = [example.tiles for example in examples if len(example.tiles)]
    return Batch(
        ids=torch.tensor(ids),
        labels=torch.tensor(labels),
        tiles=torch.cat(tiles) if tiles else examples[0].tiles,
        plans=[plan for example in examples for plan in example.plans],
        shares=shares,
    )


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
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> dict[str, Any]:
        """Return {"loss": a scalar} of a batch, see `Batch`.

        Args:
            ids: of the batch.
            labels: of the batch.
            tiles: of the batch.
            plans: of the batch.
            shares: of the batch.
            num_items_in_batch: learned tokens of all batches of one optimiser's step, which the sum
                is divided by; None for this batch's own.

        Raises:
            ConfigError, CheckpointError: as `LlavaModel.rows_of_tiles`; or nothing is learned.
        """
        hidden = self.hidden_rows(ids, tiles, plans, shares)
        logits, targets = self.learned_logits(hidden, labels)
        num_learned = len(targets) if num_items_in_batch is None else num_items_in_batch
        total = F.cross_entropy(logits, targets, reduction="sum")
        return {"loss": self.reaching(total / num_learned)}

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

    def hidden_rows(
        self,
        ids: torch.Tensor,
        tiles: torch.Tensor,
        plans: Sequence[VisualPlan],
        shares: Sequence[Share],
    ) -> torch.Tensor:
        """Return the rows (L, D) after the decoder's final norm; arguments as `forward`."""
        language = self.model.language_model
        rows = self._spliced(ids, tiles, plans)
        keys = packed_keys(
            shares,
            language.config,
            device=language.devices[0],
            position_scale=self.position_scale,
        )
        return language.run(rows, keys, None)

    def _spliced(
        self, ids: torch.Tensor, tiles: torch.Tensor, plans: Sequence[VisualPlan]
    ) -> torch.Tensor:
        """Return the embeddings (L, D) with the visuals' rows in the place of their marks."""
        is_text = ids != MARK_ID
        text = self.model.language_model.embed(ids[is_text])
        if not plans:
            return text + self._nothing_seen() if _has_other_processes() else text
        visuals = self.model.rows_of_tiles(plans, tiles)
        lengths = _text_lengths(is_text.tolist())
        pieces: list[torch.Tensor] = []
        for idx, piece in enumerate(torch.split(text, lengths)):
            pieces.append(piece)
            if idx < len(visuals):
                pieces.append(visuals[idx].to(text))
        return torch.cat(pieces)

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
