"""One mixed step: prefill chunks and single tokens of several sequences → their logits.

Rows of all sequences are laid end to end, without padding; each attends to its own past. Knows no
request and no text.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from llava_video.model.decoder import LanguageModel
from llava_video.model.kv_cache import KvCache, KvSpan
from llava_video.model.step_rows import Row


class Places(Protocol):
    """Where the next tokens of a sequence go, and what they see; see `engine.sequence.Sequence`."""

    @property
    def position_scale(self) -> float:
        """Positions are index / position_scale."""
        ...

    @property
    def next_idx(self) -> int:
        """Index of the next token."""
        ...

    @property
    def past(self) -> tuple[KvSpan, ...]:
        """Where the tokens before it stand."""
        ...

    def writable(self, num_tokens: int) -> KvSpan:
        """Return where the next tokens go: one span of at most this many, at least one."""
        ...


@dataclass(frozen=True, slots=True)
class Work:
    """What one sequence brings to a step.

    Attributes:
        sequence: where the tokens follow; it has room for them. The step writes the cache; whoever
            made the work then says `sequence.append`.
        hidden: (n, D) rows of the language model's input, n at most one `writable` span.
        num_logits: logits wanted, of the last so many tokens.
    """

    sequence: Places
    hidden: Tensor = field(repr=False)
    num_logits: int


def run_step(language_model: LanguageModel, cache: KvCache, works: Sequence[Work]) -> Tensor:
    """Run one forward over all works.

    Args:
        language_model: the decoder.
        cache: the arena of the sequences.
        works: at least one, of different sequences.

    Returns:
        (sum of num_logits, vocab) float32, in the order of the works.
    """
    rows: list[Row] = []
    idxs: list[Tensor] = []
    wanted: list[Tensor] = []
    start = 0
    for work in works:
        sequence, num_tokens = work.sequence, len(work.hidden)
        stop = start + num_tokens
        rows.append(Row(start, stop, sequence.past, sequence.writable(num_tokens)))
        first = sequence.next_idx
        idxs.append(torch.arange(first, first + num_tokens))
        wanted.append(torch.arange(stop - work.num_logits, stop))
        start = stop
    hidden = works[0].hidden if len(works) == 1 else torch.cat([work.hidden for work in works])
    scales = [work.sequence.position_scale for work in works]
    hidden = language_model(hidden, torch.cat(idxs), rows, cache, scales)
    return language_model.logits(hidden[torch.cat(wanted).to(hidden.device)])
