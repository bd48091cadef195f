"""Footage of a watch whose truth is planted: a picture of eight faint bars says what there is.

Bit 0: an object is there; bits 1 to 2: how many others; bits 3 to 4: its colour; bits 5 to 6: what
the sign says. A bar is 20 px wide and changes by 8 levels, in a sensor's noise of one level: just
above the gate's stated threshold (`least_contrast(20, GateSettings())` is 7.8), and far from what a
mean over the picture would notice. Frames are drawn as they are asked for.
"""

import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from llava_video.api import LlavaVideo
from llava_video.engine.oracle import OracleEngine
from llava_video.errors import LlavaVideoError
from llava_video.monitor.labels import Label
from llava_video.monitor.settings import WatchSettings, rules_of
from llava_video.video.stream_events import Mark, StreamCounts, StreamFrame, StreamStatus
from llava_video.world.bars import paint_index

START_S = 1_750_000_000.0
HEIGHT_PX, WIDTH_PX = 96, 160
KINDS = ("object", "count", "colour", "sign", "moving")
_LOW, _HIGH = 124, 132
_MIDDLE = slice(HEIGHT_PX // 4, HEIGHT_PX * 3 // 4)

RULES: list[dict[str, Any]] = [
    {"name": "object", "question": "Is bit 0 set?"},
    {"name": "count", "question": "What are bits 1 to 2?", "when": {"changed": True},
     "answer": {"type": "number", "at_least": 0, "at_most": 3}},
    {"name": "colour", "question": "What are bits 3 to 4?", "when": {"changed": True},
     "answer": {"type": "choice", "choices": ["0", "1", "2", "3"]}},
    {"name": "sign", "question": "What are bits 5 to 6?", "when": {"changed": True},
     "answer": {"type": "text", "max_characters": 40}},
]  # fmt: skip


def settings_of(
    names: tuple[str, ...] = ("gate",), sinks: list[dict[str, Any]] | None = None, **camera: Any
) -> WatchSettings:
    """Return the four rules, watching cameras without cooldown."""
    return rules_of(
        {
            "cameras": [{"name": name, "address": f"{name}.mp4", **camera} for name in names],
            "rules": [{**rule, "cooldown_s": 0} for rule in RULES],
            "sinks": sinks or [],
            "guard": False,
        }
    )


class Day:
    """A day of a camera: nothing but noise 95 % of the time, and events far enough apart.

    Args:
        seconds: its length.
        seed: another one gives other events.
        every_s: from one event to the next, at least.

    Attributes:
        labels: what is to be told.
        states: (second, state) of every change.
        moving: seconds at which something moves at the top, which no rule asks about.
    """

    def __init__(self, seconds: int, seed: int = 0, every_s: int = 120) -> None:
        dice = random.Random(seed)
        self.seconds = seconds
        self.labels: list[Label] = []
        self.states = [(0, 0)]
        self.moving: set[int] = set()
        at_s, state, kinds = 40, 0, list[str]()
        while at_s + 60 < seconds:
            kinds = kinds or dice.sample(KINDS, len(KINDS))
            kind = kinds.pop()
            if kind == "moving":
                self.moving |= set(range(at_s, at_s + 24))
            elif kind == "object":
                self._event(kind, at_s, state | 1, 20)
                self.states.append((at_s + 20, state))
            else:
                low = {"count": 1, "colour": 3, "sign": 5}[kind]
                before = state >> low & 3
                after = dice.choice([one for one in range(4) if one != before])
                state = state & ~(3 << low) | after << low
                self._event(kind, at_s, state, 8)
            at_s += every_s + dice.randrange(every_s)

    def _event(self, rule: str, at_s: int, state: int, seconds: int) -> None:
        self.states.append((at_s, state))
        self.labels.append(Label(start_s=at_s, end_s=at_s + seconds, rule=rule))

    def state(self, second: int) -> int:
        """Return what there is at a second."""
        return [state for at_s, state in self.states if at_s <= second][-1]

    def frames(self, noise: float = 1.0) -> Iterator[StreamFrame]:
        """Draw its frames, one a second; equal seeds of noise come again after 64 frames."""
        grain = np.random.default_rng(1).normal(0, noise, (64, HEIGHT_PX, WIDTH_PX, 3))
        grain = np.rint(np.clip(grain, -4, 4)).astype(np.int16)
        changes = dict(self.states)
        drawn, state = picture_of(0), 0
        for second in range(self.seconds):
            if second in changes:
                state = changes[second]
                drawn = picture_of(state)
            plain = drawn
            if second in self.moving:
                plain = drawn.copy()
                left = second * 7 % (WIDTH_PX - 16)
                plain[4:20, left : left + 16] = 220
            picture = (plain + grain[second * 31 % 64]).clip(0, 255).astype(np.uint8)
            yield StreamFrame(
                idx=second, picture=picture, pts_s=float(second), wall_s=START_S + second
            )


def picture_of(state: int) -> npt.NDArray[np.int16]:
    """Draw a state, without noise."""
    picture = np.full((HEIGHT_PX, WIDTH_PX, 3), 100, np.int16)
    bars = paint_index(state, HEIGHT_PX, WIDTH_PX) > 0
    picture[_MIDDLE] = np.where(bars[_MIDDLE], _HIGH, _LOW)
    return picture


class Played:
    """A day as what `rehearse` opens: its events, as fast as they are taken."""

    error: LlavaVideoError | None = None

    def __init__(self, frames: Iterator[StreamFrame | Mark]) -> None:
        self._frames = frames

    def next(self) -> StreamFrame | Mark | None:
        return next(self._frames, None)

    def close(self) -> None:
        """Do nothing."""


class FakeStreams:
    """Cameras of a watch, whose frames come as fast as they are taken.

    Args:
        events: by camera, in order.
        errors: why cameras ended.
    """

    def __init__(
        self,
        events: Mapping[str, Iterator[StreamFrame | Mark]],
        errors: Mapping[str, LlavaVideoError] | None = None,
    ) -> None:
        self._events = dict(events)
        self._errors = dict(errors or {})
        self._turns = list(events)
        self.is_over = self.is_closed = False

    def next(self, timeout_s: float | None = None) -> tuple[str, StreamFrame | Mark] | None:
        while self._turns:
            name = self._turns.pop(0)
            event = next(self._events[name], None)
            if event is not None:
                self._turns.append(name)
                return name, event
        self.is_over = True
        return None

    def statuses(self) -> Mapping[str, StreamStatus]:
        state = "ended" if self.is_over else "live"
        return {
            name: StreamStatus(name=f"rtsp://{name}", state=state, counts=StreamCounts())
            for name in self._events
        }

    def errors(self) -> Mapping[str, LlavaVideoError]:
        return self._errors

    def close(self) -> None:
        self.is_closed = True


def oracle_of(model: LlavaVideo) -> LlavaVideo:
    """Return the oracle behind a model's tokenizer and plans."""
    return LlavaVideo(model.spec, OracleEngine(model.spec.tokenizer))
