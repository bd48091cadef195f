"""One mixed step: prefill chunks and single tokens of several sequences → their logits.

Rows of all sequences are laid end to end, without padding; each attends to its own past. Knows no
request and no text.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from llava_video.engine.sequence import Sequence as KvSequence
from llava_video.model.decoder import LanguageModel, Row
from llava_video.model.kv_cache import KvCache


@dataclass(frozen=True, slots=True)
class Work:
    """What one sequence brings to a step.

    Attributes:
        sequence: where the tokens follow; it has room for them. The step writes the cache; whoever
            made the work then says `sequence.append`.
        hidden: (n, D) rows of the language model's input, n at most one `writable` span.
        num_logits: logits wanted, of the last so many tokens.
    """

    sequence: KvSequence
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
    positions: list[Tensor] = []
    wanted: list[Tensor] = []
    start = 0
    for work in works:
        sequence, num_tokens = work.sequence, len(work.hidden)
        stop = start + num_tokens
        rows.append(Row(start, stop, sequence.past, sequence.writable(num_tokens)))
        first = sequence.next_idx
        idxs = torch.arange(first, first + num_tokens, dtype=torch.float64)
        positions.append(idxs / sequence.position_scale)
        wanted.append(torch.arange(stop - work.num_logits, stop))
        start = stop
    hidden = works[0].hidden if len(works) == 1 else torch.cat([work.hidden for work in works])
    hidden = language_model(hidden, torch.cat(positions), rows, cache)
    return language_model.logits(hidden[torch.cat(wanted).to(hidden.device)])
