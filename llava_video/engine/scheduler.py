"""Requests → events: the one loop. A single answer, a batch and a chat are uses of it.

The caller drives: whoever waits for an event runs a step for everybody, in turn, so one model
serves many threads without a thread of its own. Requests are admitted in order, by the memory
they will need to their end; each step takes a chunk of prompt tokens, shared fairly by the requests
that prefill, and one token of every request that writes. Knows no video and no template.
"""

import itertools
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence

import torch

from llava_video.engine.admission import Admission
from llava_video.engine.arena import Arena
from llava_video.engine.constraint import ConstraintCompiler
from llava_video.engine.decode_groups import runs_freely
from llava_video.engine.failing import as_failure, failing
from llava_video.engine.job import Job
from llava_video.engine.prefixes import KeptPrefixes
from llava_video.engine.request import Event, Failed, Finished, Request
from llava_video.engine.settings import EngineSettings
from llava_video.engine.stepper import Stepper
from llava_video.engine.tools import Tools
from llava_video.engine.turns import Turns
from llava_video.errors import ConfigError
from llava_video.model.decoder import LanguageModel
from llava_video.model.kept_rows import KeptRows
from llava_video.model.llava import LlavaModel
from llava_video.model.sinks import Sinks, read_sinks
from llava_video.model.tokenizer import Tokenizer
from llava_video.values import KvFormat

_CLOSED = ("the engine was closed.", "load the model again.")


class _Caller:
    """One `run`: its requests under way, and the events nobody has taken yet."""

    def __init__(self) -> None:
        self.events: deque[Event] = deque()
        self.jobs: dict[int, Job] = {}
        self.has_drawn_all = False
        self.has_left = False

    @property
    def is_served(self) -> bool:
        """Whether it has nothing to wait for."""
        return bool(self.events) or not self.jobs or self.has_left

    @property
    def is_done(self) -> bool:
        """Whether every event was taken. A request leaves `jobs` after its last event is here."""
        return self.has_drawn_all and not self.jobs and not self.events

    def tell(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Finished | Failed):
            self.jobs.pop(event.request_id, None)

    def forget(self) -> None:
        """Let go of the requests and of what their untaken answers keep."""
        for job in self.jobs.values():
            job.abandon()
        self.jobs.clear()
        for event in self.events:
            if isinstance(event, Finished) and event.answer.sequence is not None:
                event.answer.sequence.release()
        self.events.clear()


class Scheduler:
    """The engine over one model; every method may be called from any thread.

    Args:
        model: the weights.
        tokenizer: the checkpoint's.
        eos_ids: ids that end an answer; () never ends one before its length.
        repetition_penalty: the checkpoint's, for requests that name none.
        settings: chunk sizes and limits.

    Attributes:
        arena: the memory of all sequences.
        kept_rows: rows of frames that were shown; None where there is no room for any.
    """

    def __init__(
        self,
        model: LlavaModel,
        tokenizer: Tokenizer,
        eos_ids: Collection[int] = (),
        repetition_penalty: float = 1.0,
        settings: EngineSettings | None = None,
    ) -> None:
        settings = settings or EngineSettings()
        language_model = model.language_model
        language_model.rope = settings.rope
        if model.fusion is not None:
            model.fusion.rope = settings.rope
        text = language_model.config
        self.arena = _arena(language_model, settings)
        self._prefixes = KeptPrefixes(settings.kept_prefixes)
        self._admission = Admission(
            self.arena, self._prefixes, is_grouped=runs_freely(language_model, settings)
        )
        self._stepper: Stepper | None = Stepper(
            language_model, self.arena, self._prefixes, settings
        )
        most_bytes = settings.kept_rows_bytes
        self.kept_rows = KeptRows(most_bytes) if most_bytes else None
        self._tools: Tools | None = Tools(
            model=model,
            tokenizer=tokenizer,
            eos_ids=frozenset(eos_ids),
            repetition_penalty=repetition_penalty,
            constraints=ConstraintCompiler(tokenizer.to_json, text.vocab_size, sorted(eos_ids)),
            tile_chunk=settings.tile_chunk or _tile_chunk(model, settings),
            arena=self.arena,
            prefixes=self._prefixes,
            kept_rows=self.kept_rows,
        )
        self._settings = settings
        self._asked: deque[Job] = deque()  # any thread appends to this and to `_abandoned`
        self._turns = Turns()  # what follows belongs to whoever has the turn
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._abandoned: deque[_Caller] = deque()

    def run(self, requests: Iterable[Request]) -> Iterator[Event]:
        """Answer requests; their events come interleaved, each request's in order.

        Requests are drawn while there is room, so they may come from an endless iterator. Closing
        the iterator cancels what is under way; its memory is free when the step under way, if any,
        has ended. Each request ends with `Finished` or `Failed`, never with an exception here.

        Raises:
            ConfigError: two requests under way share an id, or the engine was closed.
        """
        caller = _Caller()
        source = iter(requests)
        try:
            while not caller.is_done:
                self._draw(source, caller)
                self._advance(caller)
                while caller.events:
                    yield caller.events.popleft()
        finally:
            # May run in a finalizer, in the middle of a step of this very thread: no waiting here.
            caller.has_left = True
            self._abandoned.append(caller)
            if self._turns.is_held_by(caller):  # Ctrl-C came as it was given back
                self._turns.give_back(caller)
            self._sweep()

    def read_sinks(
        self, ids: Sequence[int], *, position_scale: float = 1.0, kv_format: KvFormat = "plain"
    ) -> Sinks:
        """Compute the first tokens of a stream, apart from the arena; see `model.sinks`.

        Raises:
            CapacityError: there is no memory for them.
            ConfigError: as `model.sinks.read_sinks`, or the engine was closed.
        """
        try:
            with self._turns.turn():  # no step of another thread is being captured meanwhile
                if self._tools is None:
                    raise ConfigError(*_CLOSED)
                language_model = self._tools.model.language_model
                return read_sinks(
                    language_model, ids, position_scale=position_scale, kv_format=kv_format
                )
        finally:
            self._sweep()

    def close(self) -> None:
        """Fail what is under way and let go of the model; the engine is of no use afterwards."""
        with self._turns.turn():
            self._tools = self._stepper = None
            self._take_asked()
            self._fail_all(ConfigError(*_CLOSED))
            self._prefixes.clear()
            if self.kept_rows is not None:
                self.kept_rows.clear()
        self._sweep()

    def _draw(self, source: Iterator[Request], caller: _Caller) -> None:
        """Take requests as long as there is room for them."""
        while not caller.has_drawn_all and len(caller.jobs) < self._settings.max_running:
            request = next(source, None)
            if request is None:
                caller.has_drawn_all = True
            else:
                self._submit(request, caller)

    def _submit(self, request: Request, caller: _Caller) -> None:
        tools = self._tools
        if tools is None:
            raise ConfigError(*_CLOSED)
        if request.request_id in caller.jobs:
            raise ConfigError(
                f"request_id = {request.request_id} is under way twice.", "number the requests."
            )
        try:
            job = Job(request, tools, caller.tell)
        except Exception as error:  # noqa: BLE001 - one bad request must not end the others
            caller.tell(Failed(request.request_id, error))
            return
        caller.jobs[request.request_id] = job
        self._asked.append(job)  # nobody waits for the end of a step to ask

    def _advance(self, caller: _Caller) -> None:
        """Run one step for everybody, unless another thread's step brought events meanwhile."""
        try:
            if self._turns.take(caller, lambda: caller.is_served):
                self._forget_abandoned()
                self._step()
        finally:
            self._turns.give_back(caller)
        self._sweep()

    def _sweep(self) -> None:
        """Free what abandoned callers held; a step that is under way does it at its end."""
        who = object()
        while self._abandoned:
            try:
                if not self._turns.try_take(who):
                    return
                self._forget_abandoned()
            finally:
                if self._turns.is_held_by(who):
                    self._turns.give_back(who)

    def _forget_abandoned(self) -> None:
        while self._abandoned:
            self._abandoned.popleft().forget()
        self._take_asked()
        if self._stepper is not None:
            self._stepper.drop_gone()

    def _step(self) -> None:
        self._take_asked()
        stepper = self._stepper
        if stepper is None:
            self._fail_all(ConfigError(*_CLOSED))
            return
        try:
            with torch.inference_mode():
                self._end_cancelled()
                self._admit()
                stepper.step(self._running)
        except BaseException as error:
            # Rows were pulled that no cache holds: none of these can go on.
            self._fail_all(as_failure(error), running_only=True)
            if not isinstance(error, Exception):
                raise
        finally:
            self._drop_ended()
            stepper.drop_gone()

    def _take_asked(self) -> None:
        while self._asked:
            job = self._asked[0]
            if job not in self._waiting:  # it may be, after Ctrl-C: it is let go of last
                self._waiting.append(job)
            self._asked.popleft()
        self._drop_ended()

    def _end_cancelled(self) -> None:
        for job in (*self._running, *self._waiting):
            with failing(job):
                if job.is_cancelled:
                    job.cancel()
        self._drop_ended()

    def _admit(self) -> None:
        """Start waiting requests, in order, as long as their memory is there."""
        while self._waiting and len(self._running) < self._settings.max_running:
            job = self._waiting[0]
            num_places = self._settings.max_running - len(self._running)
            with failing(job):
                behind = itertools.islice(self._waiting, 1, num_places)
                if not self._admission.admit(job, may_wait=bool(self._running), behind=behind):
                    return
                self._running.append(job)
            self._waiting.popleft()

    def _drop_ended(self) -> None:
        self._running = [job for job in self._running if not job.has_ended]
        self._waiting = deque(job for job in self._waiting if not job.has_ended)
        self._admission.settle(self._running)

    def _fail_all(self, error: Exception, *, running_only: bool = False) -> None:
        for job in (*self._running, *(() if running_only else self._waiting)):
            if not job.has_ended:
                job.fail(error)
        self._drop_ended()


def _arena(language_model: LanguageModel, settings: EngineSettings) -> Arena:
    text = language_model.config
    arena = Arena(
        text.num_layers,
        text.num_kv_heads,
        text.head_dim,
        dtype=language_model.dtype,
        devices=language_model.devices,
        slab_tokens=settings.slab_tokens,
    )
    limits = [] if settings.max_cache_bytes is None else [settings.max_cache_bytes]
    if settings.max_cache_tokens is not None:
        limits.append(settings.max_cache_tokens * arena.token_bytes("plain"))
    arena.limit_bytes = min(limits, default=None)
    return arena


def _tile_chunk(model: LlavaModel, settings: EngineSettings) -> int:
    return settings.tiles_per_call(model.device.type, model.dimensions.vision.patches_per_side)
