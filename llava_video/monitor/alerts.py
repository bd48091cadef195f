"""Decisions → alerts that are told at once, and told more of later.

An alert goes out with its snapshot as soon as it is raised; description and evidence follow as an
update. Alert and state are stored together, so a restart raises nothing twice. What cannot be
stored even on the room that was held back is kept in memory and stored as soon as it can be. Knows
no model.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from llava_video.errors import LedgerError, LlavaVideoError
from llava_video.monitor.evidence import EvidenceStore
from llava_video.monitor.message import (
    Message,
    StoredFile,
    alert_message,
    end_message,
    update_message,
)
from llava_video.monitor.rules import Decision, RuleState, restored
from llava_video.monitor.settings import Rule, WatchSettings
from llava_video.monitor.spool import Batch, Spool, StateKey

_DAY_S: Final = 86_400.0

_log = logging.getLogger(__name__)

Frames = npt.NDArray[np.uint8]


class AlertDesk:
    """Stores what is to be told; may be used from several threads.

    Args:
        spool: where to.
        settings: rules, sinks and retention.
        on_put: called after something was stored, to wake who delivers.
        clock: wall clock, s since 1970.

    Attributes:
        problem: why something waits in memory, from its first failure until the room that is held
            back is there again; "" otherwise.
    """

    def __init__(
        self,
        spool: Spool,
        settings: WatchSettings,
        *,
        on_put: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._spool, self._settings = spool, settings
        self._on_put, self._clock = on_put, clock
        self.evidence = EvidenceStore(spool, settings.retention)
        self._unsaved: dict[StateKey, str] = {}
        self._settled: dict[StateKey, str | None] = {}
        self._held: list[Batch] = []
        self._guard = threading.RLock()
        self.problem = ""

    def state(self, rule: Rule, camera: str) -> RuleState:
        """Return the state a rule goes on with; a new one where there is none that can be read."""
        text = self._spool.state(rule.name, camera)
        try:
            return RuleState() if text is None else restored(rule, text)
        except (LlavaVideoError, ValueError, TypeError):  # another version's
            return RuleState()

    def take(
        self, rule: Rule, state: RuleState, decision: Decision, snapshot: Frames | None = None
    ) -> Message | None:
        """Take what a rule decided of a window; an alert is on the disk when this returns.

        What a restart may not forget (an alert, its end, a settled answer) is stored at once; hits
        that wait for more are stored by the next of these or by `tend`.

        Args:
            rule: whose decision it is.
            state: the rule's next one.
            decision: with it.
            snapshot: a frame of the window, (H, W, 3) uint8; used when an alert is raised.

        Returns:
            What is told; None where nothing is.
        """
        key = rule.name, decision.camera
        with self._guard:
            self._unsaved[key] = state.to_json()
            if decision.signal == "raised":
                files = self._kept(
                    lambda: (
                        snapshot is not None
                        and self.evidence.snapshot(decision.alert_id, snapshot, self._clock())
                    )
                )
                message = alert_message(rule, decision, files, state.number)
                self._put(message, files)
            elif decision.signal == "ended" and rule.tell_end:
                message = end_message(rule, decision)
                self._put(message, [])
            else:
                is_news = bool(decision.signal) or state.settled != self._settled.get(key)
                self._settled[key] = state.settled
                if is_news:  # or a restart would take the next alert for one that holds
                    self._try_to_flush()
                return None
            self._settled[key] = state.settled
            return message

    def update(
        self,
        alert_id: str,
        *,
        description: str = "",
        problem: str = "",
        warnings: Sequence[str] = (),
        frames: Frames | None = None,
        times_s: Sequence[float] = (),
        with_clip: bool = False,
    ) -> Message | None:
        """Tell more of an alert: its description, and its evidence as a sheet.

        Args:
            alert_id: which.
            description: what the model says.
            problem: why there is no description.
            warnings: what the reader should know of it, such as text that instructs.
            frames: (N, H, W, 3) uint8, RGB; None without.
            times_s: their wall-clock times, s.
            with_clip: whether the frames are kept as a video too.

        Returns:
            What is told; None where the alert is not known.
        """
        with self._guard:
            alert = self._alert(alert_id)
            if alert is None:
                return None
            files: list[StoredFile] = []
            if frames is not None and len(frames):
                now_s = self._clock()
                files += self._kept(lambda: self.evidence.sheet(alert_id, frames, times_s, now_s))
                if with_clip:
                    files += self._kept(
                        lambda: self.evidence.clip(alert_id, frames, times_s, now_s)
                    )
            message = update_message(
                alert, description=description, files=files, problem=problem, warnings=warnings
            )
            self._put(message, files)
            return message

    def tend(self) -> None:
        """Do what is due now and then: store states, remove what is outlived, bound the spool.

        On a full disk nothing of it is done; it is due again the next time.
        """
        now_s = self._clock()
        with self._guard:
            try:
                had_held = bool(self._held)
                self._flush()
                if had_held:
                    self._on_put()
                self.evidence.tend(now_s)
                if self.evidence.has_reserve:  # less is room that the next alert takes
                    self.problem = ""
                self._spool.prune(now_s - self._settings.retention.days * _DAY_S)
                self._spool.bound(self._settings.retention.most_waiting)
            except LedgerError:
                return

    @property
    def num_held(self) -> int:
        """Messages that no disk had room for yet."""
        return sum(len(batch.messages) for batch in self._held)

    def facts(self) -> Mapping[str, Any]:
        """Return counts for people and meters: what waits, what is kept, what was given up."""
        return {
            "waiting": self._spool.num_waiting(),
            "held": self.num_held,
            "evidence_bytes": self.evidence.num_bytes,
            **self._spool.counts(),
        }

    def _alert(self, alert_id: str) -> Message | None:
        held = (message for batch in self._held for message, _ in batch.messages)
        own_id = f"{alert_id}-alert"
        return self._spool.message(own_id) or next((m for m in held if m.id == own_id), None)

    def _kept(self, keep: Callable[[], Any]) -> list[StoredFile]:
        """Keep evidence; an alert goes out without it where it cannot be kept."""
        try:
            kept = keep()
        except (OSError, LlavaVideoError) as error:
            _log.warning("a picture of an alert cannot be kept: %s", error)
            return []
        return [kept] if kept else []

    def _put(self, message: Message, files: list[StoredFile]) -> None:
        batch = Batch(
            messages=[(message, self._sinks_of(message))],
            files=files,
            at_s=self._clock(),
            states=dict(self._unsaved),
        )
        self._unsaved.clear()
        self._held.append(batch)
        if self._try_to_flush():
            self._on_put()

    def _try_to_flush(self) -> bool:
        """Store what can be stored; return whether nothing is left."""
        try:
            self._flush()
        except LedgerError as error:
            self.problem = self.problem or error.message
            return False
        return True

    def _sinks_of(self, message: Message) -> list[str]:
        return [one.name for one in self._settings.sinks if one.takes(message.severity)]

    def _flush(self) -> None:
        """Store what is held, in order, then the states that no message brought."""
        while self._held:
            self._spool.put(self._held[0])
            del self._held[0]
        if self._unsaved:
            self._spool.put(Batch(states=dict(self._unsaved)))
            self._unsaved.clear()
