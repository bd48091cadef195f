"""Steps that survive running out of memory: what does not fit at once is run in halves.

A step writes keys and values to places that were reserved before, so it can be run again. From
then on the chunks are smaller. Knows no request.
"""

import logging
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from llava_video.engine.step import Places, Work, run_step
from llava_video.errors import CapacityError
from llava_video.model.decoder import LanguageModel
from llava_video.model.kv_cache import KvCache, KvSpan
from llava_video.model.memory import free_words, is_out_of_memory

logger = logging.getLogger(__name__)


class StepRunner:
    """Runs the steps of one engine.

    Args:
        language_model: the decoder.
        cache: the arena of all sequences.
        chunk_tokens: most prompt tokens of a step.
        give_back: called when memory has run out; gives back what can be made again.

    Attributes:
        chunk_tokens: most prompt tokens of a step from now on.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        cache: KvCache,
        chunk_tokens: int,
        give_back: Callable[[], None],
    ) -> None:
        self.chunk_tokens = chunk_tokens
        self._language_model = language_model
        self._cache = cache
        self._give_back = give_back

    def run(self, works: Sequence[Work]) -> Tensor:
        """Run one step, in two parts when it does not fit at once; as `run_step`.

        Raises:
            CapacityError: it does not fit in two parts either.
        """
        try:
            return run_step(self._language_model, self._cache, works)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error)
        # Outside of the handler: the error's traceback held the step's tensors.
        return self._run_in_halves(works, reason)

    def _run_in_halves(self, works: Sequence[Work], reason: str) -> Tensor:
        num_tokens = sum(len(work.hidden) for work in works)
        half_tokens = -(-num_tokens // 2)
        planned_tokens = self.chunk_tokens
        if half_tokens < self.chunk_tokens < 2 * num_tokens:
            self.chunk_tokens = -(-self.chunk_tokens // 2)
        logger.warning(
            "no memory for a step of %d tokens (%s); it is run in halves, and chunks are %d tokens "
            "from now on",
            num_tokens,
            reason,
            self.chunk_tokens,
        )
        self.give_back()
        free = free_words(self._device)
        try:
            parts = [
                run_step(self._language_model, self._cache, part)
                for part in _parts(works, half_tokens)
            ]
            return torch.cat(parts)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise CapacityError(
                f"no memory for a step of {num_tokens} tokens, nor for half of it "
                f"(prefill_chunk_tokens = {planned_tokens}; {free}): {error}.",
                "a smaller prefill_chunk_tokens, tile_chunk or max_running, a coarser kv_cache, "
                "fewer frames, or a smaller dtype.",
            ) from error.with_traceback(None)

    def give_back(self) -> None:
        """Give back all memory that can be made again."""
        self._give_back()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def _device(self) -> torch.device:
        return self._language_model.devices[0]


class _Later:
    """A sequence after some tokens that a part of the same step has written already."""

    def __init__(self, sequence: Places, span: KvSpan, num_written: int) -> None:
        self._span = span
        self._num_written = num_written
        self.position_scale = sequence.position_scale
        self.next_idx = sequence.next_idx + num_written
        self.past = (*sequence.past, span.part(0, num_written))

    def writable(self, num_tokens: int) -> KvSpan:
        """See `Places.writable`."""
        left = self._span.num_tokens - self._num_written
        stop = self._num_written + min(left, num_tokens)
        return self._span.part(self._num_written, stop)


def _parts(works: Sequence[Work], most_tokens: int) -> Iterator[list[Work]]:
    """Yield works of at most so many tokens together, to be run one after another."""
    part: list[Work] = []
    room = most_tokens
    for work in works:
        start, num_tokens = 0, len(work.hidden)
        while start < num_tokens:
            stop = min(num_tokens, start + room)
            part.append(_piece(work, start, stop))
            room -= stop - start
            start = stop
            if not room:
                yield part
                part, room = [], most_tokens
    if part:
        yield part


def _piece(work: Work, start: int, stop: int) -> Work:
    num_tokens = len(work.hidden)
    if (start, stop) == (0, num_tokens):
        return work
    span = work.sequence.writable(num_tokens)
    # The logits wanted are those of the last tokens.
    first_wanted = num_tokens - work.num_logits
    return Work(
        sequence=_Later(work.sequence, span, start),
        hidden=work.hidden[start:stop],
        num_logits=max(0, stop - max(start, first_wanted)),
    )
