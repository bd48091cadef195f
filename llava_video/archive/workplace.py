"""A loaded model → a place where units are worked, several at once, by threads or actors.

The same place stands in a run's own process, in a worker process and in an actor of a cluster.
Knows no ledger and no other place.
"""

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from llava_video.api import LlavaVideo
from llava_video.archive.device_use import DeviceUse
from llava_video.archive.hands import Busy
from llava_video.archive.model_facts import digest_of, model_facts
from llava_video.archive.room import Room, RoomyEngine
from llava_video.archive.row import Maker
from llava_video.archive.settings import ArchiveSettings
from llava_video.archive.unit import Unit
from llava_video.archive.work import Outcome, Worker
from llava_video.video.sandbox import DecoderPool
from llava_video.video.settings import SandboxSettings


class Workplace:
    """Where units are worked; any thread may use it.

    Args:
        model: answers; it stays its owner's.
        settings: the run's.
        options: of every request.
    """

    def __init__(
        self, model: LlavaVideo, settings: ArchiveSettings, options: Mapping[str, Any]
    ) -> None:
        self.facts = model_facts(model)
        revision, server = digest_of(self.facts), self.facts.get("server")
        self.maker = Maker(model=model.spec.name, revision=revision, server=server)
        self._settings = settings
        self._stack = ExitStack()
        self._finishing = threading.Event()
        self._engine = RoomyEngine(model.engine, Room(settings.ahead_bytes))
        self._device = DeviceUse()
        own = LlavaVideo(model.spec, self._engine, on_event=model.on_event)
        reading = self._read(options)
        self._worker = Worker(own, settings, reading, self.maker, self._finishing)

    def work(self, unit: Unit) -> Outcome:
        """Try a unit; where another try may succeed, wait before telling."""
        outcome = self._worker.work(unit)
        if outcome.may_pass and unit.attempts + 1 < self._settings.attempts:
            self._finishing.wait(self._settings.retry_wait_s * 2**unit.attempts)
        return outcome

    @property
    def busy(self) -> Busy:
        """How busy engine and device were so far."""
        return Busy(self._engine.busy.share, self._device.mean())

    def finish(self) -> None:
        """Let waits for another try end."""
        self._finishing.set()

    def close(self) -> None:
        """End what is under way with its next event, and the decoding processes."""
        self._finishing.set()
        self._engine.stop()
        self._stack.close()

    def _read(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options with the run's way of reading."""
        own = dict(options)
        asked = own.setdefault("sandbox", self._settings.sandbox)
        if asked is True or isinstance(asked, SandboxSettings):
            limits = asked if isinstance(asked, SandboxSettings) else SandboxSettings()
            if self._settings.task == "timeline":
                # Windows of one video are open side by side; a pool of one each would starve.
                own["sandbox"] = limits
            else:
                limits = replace(limits, num_workers=self._settings.in_flight)
                own["sandbox"] = self._stack.enter_context(DecoderPool(limits))
        return own
