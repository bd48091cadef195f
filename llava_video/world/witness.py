"""A scene → what anybody who is shown some of its frames can be certain of.

Whoever answers sees a frame every `gap_s`, at moments nobody knows. So a thing counts as seen when
it shows in every frame of a stretch of two gaps, an event when it lasts a gap or longer (changes of
colour, stops and collisions have no length) and what was before and after shows too. All other
things are not asked about. Nothing is rendered for this.
"""

from functools import cached_property
from typing import Final

from llava_video.world.scene import Event, Scene, State, View
from llava_video.world.settings import WorldSettings
from llava_video.world.vocabulary import PLACES, SIZES

_LOOKS: Final = 2
_DURABLE: Final = ("move", "enter", "leave", "grow", "shrink", "hide", "return")
# From the lines between the nine places to an object's centre at least, over the frame's side.
_PLACE_MARGIN: Final = 0.04


class Witness:
    """What is certain about one scene.

    Args:
        scene: the truth.
        settings: how often it is looked at, and which changes are too small.
    """

    def __init__(self, scene: Scene, settings: WorldSettings) -> None:
        self.scene = scene
        self.gap_s = max(settings.gap_s(scene.rate_hz), 1 / scene.rate_hz)
        wobble = 2 * scene.shake_px
        self._least_motion = (settings.least_motion_px + wobble) / scene.unit_px
        self._least_growth = settings.least_growth_px / scene.unit_px
        # Frames in a gap; a stretch of as many has one that is looked at.
        self._gap_frames = max(1, -(-round(self.gap_s * scene.rate_hz * 1000) // 1000))

    @cached_property
    def states(self) -> list[tuple[State, ...]]:
        """Return all objects at every frame."""
        return [self.scene.state_at(self.scene.time_of(k)) for k in range(self.scene.num_frames)]

    @cached_property
    def seen(self) -> frozenset[int]:
        """Numbers of the objects that whoever looks has seen whole."""
        return frozenset(
            idx
            for idx in range(len(self.scene.things))
            if self._longest(idx) >= min(_LOOKS * self._gap_frames, self.scene.num_frames)
        )

    @cached_property
    def clear(self) -> frozenset[int]:
        """Numbers of the objects that were seen, and all whose events are certain."""
        doubtful = {event.thing for event in self.scene.events if not self.is_certain(event)}
        doubtful |= {
            event.other
            for event in self.scene.events
            if event.other is not None and not self.is_certain(event)
        }
        return self.seen - doubtful

    @property
    def all_clear(self) -> bool:
        """Whether nothing in the clip is in doubt."""
        return len(self.clear) == len(self.scene.things)

    @cached_property
    def certain_events(self) -> tuple[Event, ...]:
        """Return the events that can be told from the frames, by start."""
        return tuple(event for event in self.scene.events if self.is_certain(event))

    def events_of(self, idx: int, *kinds: str) -> list[Event]:
        """Return an object's events of some kinds, certain or not; no kinds mean all."""
        return [
            event
            for event in self.scene.events
            if event.thing == idx and (not kinds or event.kind in kinds)
        ]

    def name(self, idx: int) -> str:
        """Name an object in a way that holds all the time: a changing colour is left out."""
        thing = self.scene.things[idx]
        if thing.changes_colour:
            return thing.shape
        return f"{thing.colours[0][1]} {thing.shape}"

    def size(self, idx: int, time_s: float) -> str:
        """Return whether an object is small or large at a moment between changes."""
        radius = self.scene.things[idx].radius.at(time_s)
        return min(SIZES, key=lambda word: abs(SIZES[word] - radius))

    def is_certain(self, event: Event) -> bool:
        """Say whether an event can be told from the frames."""
        if event.kind in _DURABLE and event.end_s - event.start_s < self.gap_s - 1e-9:
            return False
        if event.kind in ("enter", "leave"):
            return self._passes_edge(event)
        if event.kind in ("hide", "return"):
            return self._passes_wall(event)
        if event.kind in ("grow", "shrink"):
            radius = self.scene.things[event.thing].radius
            growth = abs(radius.at(event.end_s) - radius.at(event.start_s))
            return growth >= self._least_growth and self._shows_around(event)
        if event.kind == "move":
            return self._is_long_way(event) and self._shows_around(event)
        if event.kind == "collide" and event.other is not None:
            return self._hits(event, event.other)
        if event.kind == "stop":
            return self._stops(event)
        return self._shows_around(event)

    def views_at_end(self) -> tuple[View, ...] | None:
        """Return how objects show at the end; None where that changed just now or is unclear."""
        return self._steady_views(self.states[-self._steady_frames :])

    def views_at_start(self) -> tuple[View, ...] | None:
        """Return how objects show at the start; None where that changes at once or is unclear."""
        return self._steady_views(self.states[: self._steady_frames])

    def place(self, idx: int, *, at_end: bool) -> str | None:
        """Return which of nine places an object is in at an end of the clip; None in doubt."""
        steady = self._steady_frames
        states = self.states[-steady:] if at_end else self.states[:steady]
        places = {place_of(self.scene, frame[idx]) for frame in states}
        return places.pop() if len(places) == 1 else None

    def at_end(self, idx: int) -> State:
        """Return an object in the last frame."""
        return self.states[-1][idx]

    @property
    def _steady_frames(self) -> int:
        return min(self.scene.num_frames, self._gap_frames + 1)

    def _longest(self, idx: int) -> int:
        longest = run = 0
        for frame in self.states:
            run = run + 1 if frame[idx].view == "whole" else 0
            longest = max(longest, run)
        return longest

    def _views(self, idx: int, start_s: float, end_s: float) -> set[View]:
        """Return how an object shows in the frames of [start_s, end_s]."""
        rate_hz = self.scene.rate_hz
        first = max(0, -int(-(start_s * rate_hz - 1e-6) // 1))
        last = min(self.scene.num_frames - 1, int(end_s * rate_hz + 1e-6))
        return {self.states[k][idx].view for k in range(first, last + 1)}

    def _before(self, event: Event, idx: int) -> set[View]:
        """Return how an object shows in the gap before an event; empty where the clip is short."""
        if event.start_s < self.gap_s:
            return set()
        return self._views(idx, event.start_s - self.gap_s, event.start_s)

    def _after(self, event: Event, idx: int) -> set[View]:
        # One frame more is asked for than a gap has, so that the end itself may lie between two.
        if event.end_s + self.gap_s > self.scene.time_of(self.scene.num_frames - 1) + 1e-9:
            return set()
        return self._views(idx, event.end_s, event.end_s + self.gap_s)

    def _shows_around(self, event: Event) -> bool:
        """Say whether an object shows before, during and after; a move may go on to the end."""
        idx, whole = event.thing, {"whole"}
        during = self._views(idx, event.start_s, event.end_s)
        if self._before(event, idx) != whole or not during <= whole:
            return False
        return self._goes_on(event) or self._after(event, idx) == whole

    def _goes_on(self, event: Event) -> bool:
        last_s = self.scene.time_of(self.scene.num_frames - 1)
        is_last = event.kind == "move" and event.end_s > last_s
        return is_last and last_s - event.start_s >= _LOOKS * self.gap_s

    def _is_long_way(self, event: Event) -> bool:
        """Say whether the way seen is long enough, from what may be the last look before it."""
        thing, last_s = (
            self.scene.things[event.thing],
            self.scene.time_of(self.scene.num_frames - 1),
        )
        end_s = event.end_s if event.end_s <= last_s else last_s - self.gap_s
        dx = thing.x.at(end_s) - thing.x.at(event.start_s)
        dy = thing.y.at(end_s) - thing.y.at(event.start_s)
        return dx * dx + dy * dy >= self._least_motion * self._least_motion

    def _passes_edge(self, event: Event) -> bool:
        wanted: tuple[View, View] = ("gone", "whole")
        first, then = wanted if event.kind == "enter" else wanted[::-1]
        is_known = self._before(event, event.thing) == {first}
        return is_known and self._after(event, event.thing) == {then}

    def _passes_wall(self, event: Event) -> bool:
        """Say whether going behind the wall, staying there and coming back all show."""
        idx = event.thing
        hide = next(e for e in self.events_of(idx, "hide") if e.start_s <= event.start_s)
        back = next(e for e in self.events_of(idx, "return") if e.end_s >= event.end_s)
        if back.start_s - hide.end_s < self.gap_s:
            return False
        return self._before(hide, idx) == {"whole"} and self._after(back, idx) == {"whole"}

    def _hits(self, event: Event, other: int) -> bool:
        """Say whether a collision shows: the way there and the way on of what is hit."""
        there = [e for e in self.events_of(event.thing, "move") if e.end_s == event.start_s]
        on = [e for e in self.events_of(other, "move") if e.start_s == event.start_s]
        return all(self.is_certain(move) for move in (*there, *on))

    def _stops(self, event: Event) -> bool:
        move = next(e for e in self.events_of(event.thing, "move") if e.end_s == event.start_s)
        return self.is_certain(move) and self._after(event, event.thing) == {"whole"}

    def _steady_views(self, frames: list[tuple[State, ...]]) -> tuple[View, ...] | None:
        found = {tuple(state.view for state in frame) for frame in frames}
        views = found.pop()
        return None if found or "partly" in views else views


def place_of(scene: Scene, state: State) -> str | None:
    """Return which of nine places an object is in; None in doubt, or where it is not whole."""
    if state.view != "whole":
        return None
    margin = _PLACE_MARGIN + scene.shake_px / scene.unit_px
    column = _third(state.x / scene.width, margin)
    row = _third(state.y / scene.height, margin)
    return None if row is None or column is None else PLACES[row][column]


def _third(share: float, margin: float) -> int | None:
    """Return which third of a side a point is in; None near the lines between."""
    if any(abs(share - line) < margin for line in (1 / 3, 2 / 3)):
        return None
    return min(2, int(share * 3))
