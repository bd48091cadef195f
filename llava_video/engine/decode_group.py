"""Requests of one slab that write without a constraint: a step is launched before the last is read.

The next token of each stands on the device before the host knows it: the host launches the step
after it, and only then reads the tokens of the step before. So no step waits for the host, and of a
request that turns out to have ended one surplus token is dropped. Its keys and values go to a place
that the request had reserved; work that is launched later, on the same stream, may have that place.

Knows no lock and no other slab.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llava_video.engine.arena import Arena
from llava_video.engine.decode_state import STEPS_AHEAD, DecodeState, WriterRow, decode_step
from llava_video.engine.job import Job
from llava_video.engine.sampler import Choosing, choosing_of
from llava_video.engine.sequence import Sequence as KvSequence
from llava_video.engine.step_graphs import StepGraphs
from llava_video.engine.writer import AnswerWriter
from llava_video.model.decoder import LanguageModel
from llava_video.model.kv_cache import KvSpan
from llava_video.model.step_keys import DecodeKeys
from llava_video.model.step_rows import Row, decode_keys
from llava_video.ops.decode_work import choose_split_tokens, count_items, programs_at_once

# Steps of fewer items than this share one graph: an empty item costs almost nothing.
_LEAST_ITEMS = 16


class _Member:
    """One request: what it has in the cache as it joins, and the steps launched since."""

    def __init__(self, job: Job, sequence: KvSequence, writer: AnswerWriter) -> None:
        self.job = job
        self.writer = writer
        self.scale = sequence.position_scale
        self.num_left = num_left_of(writer)
        self._past = sequence.past
        self._room = sequence.writable(self.num_left + 1)
        self._first_idx = sequence.next_idx
        self.num_launched = self.num_pending = 0

    @property
    def idx(self) -> int:
        """Index of the token that the next step computes."""
        return self._first_idx + self.num_launched

    @property
    def spans(self) -> tuple[KvSpan, ...]:
        """Where everything before it stands."""
        return (*self._past, self._room.part(0, self.num_launched))

    def place(self, num_later: int = 0) -> KvSpan:
        """Return where it goes, or one some places later."""
        start = self.num_launched + num_later
        return self._room.part(start, start + 1)

    def note_launch(self) -> None:
        self.num_launched += 1
        self.num_pending += 1
        self.num_left -= 1


@dataclass(frozen=True, slots=True)
class _Launched:
    """The tokens of a step on their way to the host."""

    members: tuple[_Member, ...]
    tokens: Tensor
    event: torch.cuda.Event | None

    def read(self) -> list[int]:
        if self.event is not None:
            self.event.synchronize()
        ids: list[int] = self.tokens.tolist()
        return ids


@dataclass(frozen=True, slots=True)
class _Keys:
    """The keys of steps of one size, in memory that graphs read."""

    keys: DecodeKeys
    is_last_item: Tensor


class DecodeGroup:
    """The requests that write freely in one slab.

    Args:
        language_model: all of it on one device.
        arena: holds the slab.
        slab_idx: which.
        graphs: runs the steps.
        max_rows: most requests at once.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        arena: Arena,
        slab_idx: int,
        graphs: StepGraphs,
        max_rows: int,
    ) -> None:
        self._language_model = language_model
        self._arena = arena
        self._slab_idx = slab_idx
        self._graphs = graphs
        self._device = language_model.devices[0]
        self._num_programs = programs_at_once(self._device)
        vocab_size = language_model.config.vocab_size
        self._state = DecodeState(_bucket(max_rows), vocab_size, self._device)
        self._all_keys: dict[tuple[int, int], _Keys] = {}
        self._members: dict[Job, _Member] = {}
        self._rows: list[_Member] = []
        self._size = (0, 0)
        self._choosing: Choosing = "greedy"
        self._steps_left = 0
        self._launched: deque[_Launched] = deque()
        self._is_ahead = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._members and not self._launched

    def launch(self, jobs: Sequence[Job]) -> None:
        """Launch the next token of each request that has one left.

        Args:
            jobs: those that write freely now, all in this slab.
        """
        self._members = {job: self._members.get(job) or _member(job) for job in jobs}
        rows = [member for member in self._members.values() if member.num_left]
        self._is_ahead = bool(rows)
        if not rows:
            self._rows = []
            return
        if rows != self._rows or not self._steps_left:
            self._arrange(rows)
        keys, choosing = self._all_keys[self._size], self._choosing
        tokens = self._state.tokens[: len(rows)]
        # Before the step: what fails after it could not be tried again.
        on_host = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=tokens.is_cuda)
        self._graphs.run(
            (self._slab_idx, self._size, choosing),
            lambda: decode_step(
                self._language_model,
                self._arena,
                keys.keys,
                keys.is_last_item,
                self._state,
                choosing,
            ),
        )
        self._steps_left -= 1
        on_host.copy_(tokens, non_blocking=True)
        self._launched.append(_Launched(tuple(rows), on_host, _event_on(self._device)))
        for member in rows:
            member.note_launch()

    def deliver(self) -> Iterator[tuple[Job, int]]:
        """Yield the tokens of all steps but the one just launched; -1 where logits had NaN.

        Yields:
            Requests that have not ended, and their next token.
        """
        while len(self._launched) > self._is_ahead:
            launched = self._launched.popleft()
            for member, token_id in zip(launched.members, launched.read(), strict=True):
                member.num_pending -= 1
                if not member.job.has_ended:
                    yield member.job, token_id
        self.forget_ended()

    def forget_ended(self) -> None:
        """Let go of requests that have ended; what is still on its way, nobody waits for."""
        self._members = {job: m for job, m in self._members.items() if not job.has_ended}
        if not self._members:
            self._rows = []
            self._launched.clear()

    def _arrange(self, rows: list[_Member]) -> None:
        """Say who the rows of the next steps are, and what they see."""
        num_rows = _bucket(len(rows))
        keys = self._keys_of(rows, num_rows)
        size = (num_rows, keys.work.num_items)
        static = self._all_keys.get(size)
        if static is None:
            is_last_item = torch.zeros(keys.work.num_items, dtype=torch.int32, device=self._device)
            self._all_keys[size] = static = _Keys(keys, is_last_item)
        else:
            static.keys.copy_(keys)
        last_items = keys.work.row_items[1:].long() - 1
        static.is_last_item.zero_().index_fill_(0, last_items, 1)
        before = {member: idx for idx, member in enumerate(self._rows)}
        self._state.arrange(
            [
                WriterRow(
                    writer=member.writer,
                    source_idx=before.get(member),
                    num_pending=member.num_pending,
                )
                for member in rows
            ],
            num_rows,
        )
        self._rows, self._size = rows, size
        self._choosing = choosing_of([member.writer.chooser for member in rows])
        # A row ends when its request's length is reached, and the rows are arranged anew.
        self._steps_left = min(STEPS_AHEAD, *(member.num_left for member in rows))

    def _keys_of(self, members: Sequence[_Member], num_rows: int) -> DecodeKeys:
        config = self._language_model.config
        rows = [
            Row(idx, idx + 1, member.spans, member.place()) for idx, member in enumerate(members)
        ]
        # What only fills up the step writes where the first row will write next, over it, and
        # moves on with it. The room is there: a request's last token is never computed.
        filler = members[0].place(1)
        rows += [Row(idx, idx + 1, (), filler) for idx in range(len(members), num_rows)]
        idxs = [member.idx for member in members] + [0] * (num_rows - len(members))
        scales = [member.scale for member in members] + [1.0] * (num_rows - len(members))
        spans = [[(s.start, s.stop) for s in (*row.past, row.write)] for row in rows]
        num_tokens = sum(stop - start for row_spans in spans for start, stop in row_spans)
        split_tokens = choose_split_tokens(num_tokens, config.num_kv_heads, self._num_programs)
        return decode_keys(
            torch.tensor(idxs),
            rows,
            scales,
            config,
            mode=self._language_model.rope,
            device=self._device,
            split_tokens=split_tokens,
            num_items=max(_LEAST_ITEMS, _bucket(count_items(spans, split_tokens))),
        )


def num_left_of(writer: AnswerWriter) -> int:
    """Count the tokens that an answer may still get."""
    return writer.chooser.generation.max_new_tokens - len(writer.ids)


def _member(job: Job) -> _Member:
    writing = job.writing()
    assert writing is not None, "a request that does not write freely"
    return _Member(job, *writing)


def _bucket(number: int) -> int:
    """Return the least power of two that is not smaller."""
    return 1 << (number - 1).bit_length()


def _event_on(device: torch.device) -> torch.cuda.Event | None:
    """Return what happens when a GPU has done all that was launched; None on a CPU."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's own
    event.record(torch.cuda.current_stream(device))
    return event
