"""Requests → events: the one loop. A single answer, a batch and a chat are uses of it.

The caller drives: whoever waits for an event runs a step for everybody, under one lock, so one
model serves many threads without a thread of its own. Requests are admitted in order, by the memory
they will need to their end; each step takes a chunk of prompt tokens, shared fairly by the requests
that prefill, and one token of every request that writes. Knows no video and no template.
"""

import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Collection, Iterable, Iterator

import torch

from llava_video.engine.arena import Arena
from llava_video.engine.constraint import ConstraintCompiler
from llava_video.engine.job import Job, Tools
from llava_video.engine.logits import check_finite
from llava_video.engine.request import Event, Failed, Finished, Request
from llava_video.engine.settings import EngineSettings
from llava_video.engine.step import Work, run_step
from llava_video.errors import CapacityError, ConfigError
from llava_video.model.llava import LlavaModel
from llava_video.model.memory import is_out_of_memory
from llava_video.model.tokenizer import Tokenizer

# Patches of one vision call by kind of device: on a CPU the activations of two tiles of 27 x 27
# stay in its caches, a GPU is busy with sixteen.
_PATCHES = {"cpu": 2 * 27**2}
_GPU_PATCHES = 16 * 27**2
_CLOSED = ("the engine was closed.", "load the model again.")


class _Caller:
    """One `run`: its requests under way, and the events nobody has taken yet."""

    def __init__(self) -> None:
        self.events: deque[Event] = deque()
        self.jobs: dict[int, Job] = {}

        self.has_drawn_all = False

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
        text = language_model.config
        self.arena = Arena(
            text.num_layers,
            text.num_kv_heads,
            text.head_dim,
            dtype=language_model.dtype,
            devices=language_model.devices,
            slab_tokens=settings.slab_tokens,
            limit_tokens=settings.max_cache_tokens,
        )
        constraints = ConstraintCompiler(tokenizer.to_json, text.vocab_size, sorted(eos_ids))
        self._tools: Tools | None = Tools(
            model=model,
            tokenizer=tokenizer,
            eos_ids=frozenset(eos_ids),
            repetition_penalty=repetition_penalty,
            constraints=constraints,
            tile_chunk=settings.tile_chunk or _tile_chunk(model),
            arena=self.arena,
        )
        self._settings = settings
        self._lock = threading.Lock()
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
            self._abandoned.append(caller)
            self._sweep()

    def close(self) -> None:
        """Fail what is under way and let go of the model; the engine is of no use afterwards."""
        with self._lock:
            self._tools = None
            self._fail_all(ConfigError(*_CLOSED))
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
        with self._lock:
            self._waiting.append(job)

    def _advance(self, caller: _Caller) -> None:
        """Run one step for everybody, unless another thread's step brought events meanwhile."""
        with self._lock:
            if caller.jobs and not caller.events:
                self._forget_abandoned()
                self._step()
        self._sweep()

    def _sweep(self) -> None:
        """Free what abandoned callers held; a step that is under way does it at its end."""
        while self._abandoned and self._lock.acquire(blocking=False):
            try:
                self._forget_abandoned()
            finally:
                self._lock.release()

    def _forget_abandoned(self) -> None:
        while self._abandoned:
            self._abandoned.popleft().forget()
        self._drop_ended()

    def _step(self) -> None:
        tools = self._tools
        if tools is None:
            self._fail_all(ConfigError(*_CLOSED))
            return
        try:
            with torch.inference_mode():
                self._end_cancelled()
                self._admit(tools)
                self._forward(tools)
        except BaseException as error:
            # Rows were pulled that no cache holds: none of these can go on.
            self._fail_all(_as_failure(error), running_only=True)
            if not isinstance(error, Exception):
                raise
        finally:
            self._drop_ended()

    def _end_cancelled(self) -> None:
        for job in (*self._running, *self._waiting):
            with _failing(job):
                if job.is_cancelled:
                    job.cancel()
        self._drop_ended()

    def _admit(self, tools: Tools) -> None:
        """Start waiting requests, in order, as long as their memory is there."""
        limit_tokens = self._settings.max_cache_tokens
        while self._waiting and len(self._running) < self._settings.max_running:
            job = self._waiting[0]
            with _failing(job):
                need_tokens = job.need_tokens()
                if limit_tokens is not None and need_tokens > limit_tokens:
                    raise CapacityError(
                        f"the request needs {need_tokens} tokens of cache, the limit is "
                        f"{limit_tokens}.",
                        "plan fewer tokens, a smaller max_new_tokens, or raise max_cache_tokens.",
                    )
                try:
                    job.admit()
                except CapacityError:
                    # Whoever runs gives memory back; where nobody runs, waiting would be for ever.
                    if self._running:
                        return
                    raise
                self._running.append(job)
            self._waiting.popleft()

    def _forward(self, tools: Tools) -> None:
        batch = self._gather()
        works = [work for _, brought in batch for work in brought]
        if not works:
            return
        logits = run_step(tools.model.language_model, self.arena, works)
        errors = iter(check_finite(logits, tools.model.language_model.dtype))
        parts = iter(torch.split(logits, [work.num_logits for work in works]))
        for job, brought in batch:
            rows = [next(parts) for _ in brought]
            bad = [error for error in itertools.islice(errors, sum(map(len, rows))) if error]
            with _failing(job):
                if bad:
                    raise bad[0]
                job.receive(brought, rows)

    def _gather(self) -> list[tuple[Job, list[Work]]]:
        """Ask every request for its part of the step; prompts share one chunk fairly."""
        batch: list[tuple[Job, list[Work]]] = []
        for job, share in zip(self._running, self._shares(), strict=True):
            with _failing(job):
                works = job.works(share)
                if works:
                    batch.append((job, works))
        return batch

    def _shares(self) -> list[int]:
        """Share the prefill chunk among the running requests: equally, shortest prompts first."""
        lefts = [job.prefill_left_tokens for job in self._running]
        shares = [0] * len(lefts)
        chunk_tokens = self._settings.prefill_chunk_tokens
        prefilling = sorted((left, idx) for idx, left in enumerate(lefts) if left)
        for num_done, (left, idx) in enumerate(prefilling):
            equal = -(-chunk_tokens // (len(prefilling) - num_done))
            shares[idx] = min(left, equal)
            chunk_tokens -= shares[idx]
        return shares

    def _drop_ended(self) -> None:
        self._running = [job for job in self._running if not job.has_ended]
        self._waiting = deque(job for job in self._waiting if not job.has_ended)

    def _fail_all(self, error: Exception, *, running_only: bool = False) -> None:
        for job in (*self._running, *(() if running_only else self._waiting)):
            if not job.has_ended:
                job.fail(error)
        self._drop_ended()


def _tile_chunk(model: LlavaModel) -> int:
    patches = _PATCHES.get(model.device.type, _GPU_PATCHES)
    return max(1, patches // model.dimensions.vision.patches_per_side**2)


@contextlib.contextmanager
def _failing(job: Job) -> Iterator[None]:
    """Let an error end one request and not the step: what it raises is its own, often user code."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - it becomes the request's Failed event
        job.fail(_as_failure(error))


def _as_failure(error: BaseException) -> Exception:
    if is_out_of_memory(error):
        failure = CapacityError(
            f"no memory for a step: {error}.",
            "a smaller prefill_chunk_tokens, tile_chunk or max_running, or a smaller dtype.",
        )
        failure.__cause__ = error
        return failure
    if isinstance(error, Exception):
        return error
    return CapacityError(f"the step was interrupted by {type(error).__name__}.", "ask again.")
