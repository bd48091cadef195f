"""Actors of a Ray cluster that hold the model each → workers of a crew, on any number of machines.

Ray's own pipelines (Ray Data) are not used: 2.60 tries a row that kills its actor again without
end, so that one poison file keeps a run from ending, and tells nobody whose fault a death was.
Knows no unit's state.
"""

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from types import ModuleType
from typing import Any, Final

from llava_video.archive.crew import Done, Gone, Ready
from llava_video.archive.hands import Busy, Job, as_ours
from llava_video.archive.unit import Unit
from llava_video.backends import require
from llava_video.errors import ConfigError

# Beside the units: what tells that it is to finish.
_MORE_CALLS: Final = 2
_KNOCK_S: Final = 5.0
_SHARED: Final = ("CPU", "GPU")


class RayWorker:
    """What an actor is: a place of work that is told of by calls."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def begin(self, job: Job) -> tuple[str, Any, Any]:
        """Load the model; return what decides its answers and what rows say of it, or why not."""
        from llava_video.archive.workplace import Workplace

        try:
            model = self._stack.enter_context(job.model())
            self._place = Workplace(model, job.settings, job.options)
        except Exception as error:  # noqa: BLE001 - a process's border: the driver raises it
            return "gone", "could not load its model", as_ours(error)
        return "ready", dict(self._place.facts), self._place.maker

    def work(self, unit: Unit) -> tuple[Any, Busy]:
        """Try a unit; return the outcome, and how busy the actor was so far."""
        outcome = self._place.work(unit)
        if outcome.of_place == "device":
            os._exit(1)  # another process may use the device; deaths without a result end the run
        return outcome, self._place.busy

    def finish(self) -> None:
        """Let waits for another try end."""
        self._place.finish()


class RayActors:
    """Actors of a cluster; a `Staff`.

    Args:
        job: what they are told.
        gpus: that each takes, parts too; 0 for none.
        cpus: that each takes.

    Raises:
        BackendMissingError: without Ray. `connected` has begun it before.
    """

    def __init__(self, job: Job, *, gpus: float, cpus: float) -> None:
        self._ray: Any = require("ray")
        self._job = job
        self._maker = self._ray.remote(
            num_cpus=cpus,
            num_gpus=gpus,
            max_concurrency=job.settings.in_flight + _MORE_CALLS,
            max_restarts=0,  # the crew hires, and knows why
            scheduling_strategy="SPREAD",
        )(RayWorker)
        self._actors: dict[int, Any] = {}
        self._calls: dict[Any, tuple[int, str]] = {}  # reference → worker and slot

    def hire(self, idx: int) -> None:
        """See `Staff`; where the cluster has no room, the actor waits for it."""
        self._actors[idx] = actor = self._maker.remote()
        self._calls[actor.begin.remote(self._job)] = (idx, "")

    def send(self, idx: int, slot: str, unit: Unit) -> None:
        """See `Staff`."""
        self._calls[self._actors[idx].work.remote(unit)] = (idx, slot)

    def events(self, timeout_s: float) -> Iterable[Ready | Done | Gone]:
        """See `Staff`."""
        calls = list(self._calls)
        if not calls:
            threading.Event().wait(timeout_s)
            return []
        ended, others = self._ray.wait(calls, num_returns=1, timeout=timeout_s)
        if ended and others:
            ended += self._ray.wait(others, num_returns=len(others), timeout=0)[0]
        events: list[Ready | Done | Gone] = []
        gone: dict[int, Gone] = {}
        for call in ended:
            idx, slot = self._calls.pop(call)
            event = self._event(call, idx, slot)
            if isinstance(event, Gone):
                gone.setdefault(idx, event)
            else:
                events.append(event)
        for idx in gone:
            self._let_go(idx)
        return [*events, *gone.values()]

    def finish(self) -> None:
        """See `Staff`."""
        for actor in self._actors.values():
            actor.finish.remote()

    def close(self) -> None:
        """See `Staff`."""
        for idx in list(self._actors):
            self._let_go(idx)

    def _event(self, call: Any, idx: int, slot: str) -> Ready | Done | Gone:
        errors = self._ray.exceptions
        try:
            value = self._ray.get(call)
        except errors.RayTaskError as error:  # such as a machine with another version of this
            return Gone(idx, f"has failed ({error})", None if slot else as_ours(error))
        except errors.RayError as error:
            # Where an actor's process died alone, its machine lives to tell of it.
            is_cut_off = isinstance(error, errors.ActorUnavailableError)
            words = f"is lost ({type(error).__name__})"
            return Gone(idx, words, is_suspect=not (is_cut_off or _is_of_node(error)))
        if slot:
            return Done(idx, slot, *value)
        kind, *fields = value
        return Ready(idx, *fields) if kind == "ready" else Gone(idx, *fields)

    def _let_go(self, idx: int) -> None:
        """End an actor, and forget its calls: what comes of them is nobody's any more."""
        with contextlib.suppress(Exception):
            self._ray.kill(self._actors.pop(idx))
        self._calls = {call: place for call, place in self._calls.items() if place[0] != idx}


def _is_of_node(error: Exception) -> bool:
    """Say whether an actor is lost with its machine, which is no unit's doing."""
    return bool(getattr(error, "preempted", False)) or "node has died" in str(error)


@contextlib.contextmanager
def connected(address: str) -> Any:
    """Be the driver of a cluster for a while; one that a program has begun is used as it is.

    Args:
        address: of the cluster's head, "HOST:PORT"; "auto" is the one this machine is part of,
            or, where there is none, one of this machine alone.

    Yields:
        What the cluster has: "CPU", "GPU" and "nodes" → how many, and of the machine with the most
        "most CPU" and "most GPU".

    Raises:
        BackendMissingError: without Ray.
        ConfigError: no cluster is there.
    """
    ray = require("ray")
    own = not ray.is_initialized()
    if own:
        with _own_signals():
            _connect(ray, address)
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        most = {f"most {n}": max((own.get(n, 0) for own in nodes), default=0) for n in _SHARED}
        yield {**ray.cluster_resources(), **most, "nodes": len(nodes)}
    finally:
        if own:
            ray.shutdown()


def _connect(ray: ModuleType, address: str) -> None:
    quiet: Mapping[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    try:
        if address != "auto":
            _knock(address)
        ray.init(address=address, **quiet)
    except (OSError, ValueError) as cause:  # ConnectionError is one
        if address != "auto":
            raise ConfigError(
                f"no Ray cluster answers at {address!r}: {cause}.",
                "ray start --head on one machine, --address=HOST:6379 on the others; "
                "or --ray auto.",
            ) from cause
        ray.init(include_dashboard=False, **quiet)


def _knock(address: str) -> None:
    """See that somebody is there: Ray itself would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    socket.create_connection((host, int(port)), _KNOCK_S).close()


@contextlib.contextmanager
def _own_signals() -> Any:
    """Take back what Ray does to SIGTERM: who runs an archive says what a signal means."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
