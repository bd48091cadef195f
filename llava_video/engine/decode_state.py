"""What a step that writes freely reads and writes on the device, and the step itself.

Every tensor keeps its memory, so that a captured graph may be replayed on it: the step embeds the
last tokens, runs the decoder, chooses the next tokens and puts everything where the next step finds
it, each row one token further. The host only says, now and then, which rows there are. Knows no
request and no cache of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from llava_video.engine.sampler import Choosing, choose_tokens, rules_of, to_device
from llava_video.engine.writer import AnswerWriter
from llava_video.model.decoder import LanguageModel
from llava_video.model.kv_cache import KvCache
from llava_video.model.step_keys import DecodeKeys

# Steps between two visits of the host: it draws so many uniform numbers of each row ahead, and cuts
# the rows' tokens into items anew, which have grown by as many.
STEPS_AHEAD: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterRow:
    """One row of the next steps.

    Attributes:
        writer: chooses and takes its tokens; all it was given so far, or all but the ones on their
            way.
        source_idx: the row it had in the last steps, whose last token stands on the device; None
            when the writer knows its last token.
        num_pending: tokens on their way to the writer.
    """

    writer: AnswerWriter
    source_idx: int | None
    num_pending: int


class DecodeState:
    """The rows' last tokens, what each has said, and how the next are chosen.

    Args:
        max_rows: most rows of a step.
        vocab_size: columns of the logits.
        device: where the decoder is.

    Attributes:
        ids: (max_rows,) int64, the tokens to embed next.
        tokens: (max_rows,) int64, the tokens chosen last, -1 where logits were not finite.
        seen: (max_rows, vocab) bool, the ids of each answer so far.
    """

    def __init__(self, max_rows: int, vocab_size: int, device: torch.device) -> None:
        self.ids = torch.zeros(max_rows, dtype=torch.int64, device=device)
        self.tokens = torch.zeros_like(self.ids)
        self.seen = torch.zeros(max_rows, vocab_size, dtype=torch.bool, device=device)
        self._uniforms = torch.zeros(max_rows, STEPS_AHEAD, dtype=torch.float64, device=device)
        self._step_idx = torch.zeros(1, dtype=torch.int64, device=device)
        self._rules = rules_of([None] * max_rows, vocab_size, device)

    def arrange(self, rows: Sequence[WriterRow], num_rows: int) -> None:
        """Say who the rows of the next steps are; takes at most `STEPS_AHEAD` of them.

        Args:
            rows: the first ones.
            num_rows: of the step; those beyond `rows` only fill it up.
        """
        device, vocab_size = self.ids.device, self.seen.shape[1]
        choosers = [row.writer.chooser for row in rows]
        padding = [None] * (num_rows - len(rows))
        rules = rules_of([*choosers, *padding], vocab_size, device)
        uniforms = to_device(_uniforms_ahead(rows), device)
        # Until here nothing has changed: what ran out of memory can be done again.
        if [row.source_idx for row in rows] != list(range(len(rows))):
            self._move(rows)
        self._rules.copy_(rules)
        self._uniforms[: len(rows)].copy_(uniforms)
        self._step_idx.zero_()

    def choose(self, logits: Tensor, choosing: Choosing) -> None:
        """Choose the next token of the first rows, and make it the one to embed next.

        Args:
            logits: (R, vocab) float32.
            choosing: at least what the rows need.
        """
        num_rows = len(logits)
        ids, seen = self.ids[:num_rows], self.seen[:num_rows]
        uniforms = self._uniforms[:num_rows].index_select(1, self._step_idx)[:, 0]
        tokens = choose_tokens(logits, seen, self._rules.first(num_rows), uniforms, choosing)
        # Nothing above has changed anything: a step that ran out of memory can be run again.
        self.tokens[:num_rows].copy_(tokens)
        ids.copy_(tokens.clamp_(min=0))
        seen.scatter_(1, ids[:, None], value=True)
        self._step_idx.add_(1)

    def _move(self, rows: Sequence[WriterRow]) -> None:
        """Put what is carried over where it belongs, and what is new beside it."""
        num_rows, device, vocab_size = len(rows), self.ids.device, self.seen.shape[1]
        order = to_device(torch.tensor([row.source_idx or 0 for row in rows]), device)
        is_new = [row.source_idx is None for row in rows]
        new_ids = [row.writer.ids[-1] if new else -1 for row, new in zip(rows, is_new, strict=True)]
        said = [
            idx * vocab_size + token_id
            for idx, row in enumerate(rows)
            if is_new[idx]
            for token_id in row.writer.ids
        ]
        ids = to_device(torch.tensor(new_ids), device)
        places = to_device(torch.tensor(said, dtype=torch.int64), device)
        ids = torch.where(ids < 0, self.ids[order], ids)
        seen = self.seen[order] & (~to_device(torch.tensor(is_new), device))[:, None]
        self.ids[:num_rows].copy_(ids)
        self.seen[:num_rows].copy_(seen)
        self.seen.view(-1).index_fill_(0, places, value=True)


def _uniforms_ahead(rows: Sequence[WriterRow]) -> Tensor:
    """Return the numbers of the next steps, (R, STEPS_AHEAD) float64 on the CPU."""
    ahead = []
    for row in rows:
        chooser, stop = row.writer.chooser, row.num_pending + STEPS_AHEAD
        if chooser.generation.temperature:
            ahead.append(chooser.uniforms.ahead(stop)[row.num_pending :])
        else:
            ahead.append([0.0] * STEPS_AHEAD)
    return torch.tensor(ahead, dtype=torch.float64)


def decode_step(
    language_model: LanguageModel,
    cache: KvCache,
    keys: DecodeKeys,
    is_last_item: Tensor,
    state: DecodeState,
    choosing: Choosing,
) -> None:
    """Run one step and leave everything as the next one needs it. Waits for nothing.

    Args:
        language_model: all of it on one device.
        cache: holds the keys' slab.
        keys: of R single tokens; each is moved to the next place of its row.
        is_last_item: (W,) int32, 1 at the last item of each row's work: it grows with the row.
        state: its first R rows.
        choosing: at least what the rows need.
    """
    num_rows = len(keys.slots)
    hidden = language_model.run(language_model.embed(state.ids[:num_rows]), keys, cache)
    state.choose(language_model.logits(hidden), choosing)
    keys.slots.add_(1)
    keys.work.items[:, 2].add_(is_last_item)
    keys.rotation.advance_()
