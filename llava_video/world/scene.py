"""What is in a clip and what happens in it: the truth that pictures, texts and answers come from.

A unit is the shorter side of the frame; x runs to the right, y down, from the top left corner.
Plain data, made by `composer`; knows no pixels but the frame's size.
"""

from dataclasses import dataclass
from typing import Literal

from llava_video.world.backdrop import Backdrop
from llava_video.world.shapes import REACH
from llava_video.world.track import Track
from llava_video.world.vocabulary import Rgb

EventKind = Literal[
    "enter", "leave", "move", "stop", "grow", "shrink", "recolour", "hide", "return", "collide"
]
# "whole": all of it shows; "gone": nothing does; "partly": anything between.
View = Literal["whole", "partly", "gone"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens.

    Attributes:
        kind: what.
        start_s: when it begins, s.
        end_s: when it ends, s; the same for a stop, a change of colour and a collision. The
            clip's length for a move that goes on.
        thing: number of the object it happens to.
        direction: where it goes, "" where nothing does.
        speed: "slowly" or "quickly", of a move; "" otherwise.
        colour: the new one, of a change of colour; "" otherwise.
        other: number of the object that is hit; None otherwise.
    """

    kind: EventKind
    start_s: float
    end_s: float
    thing: int
    direction: str = ""
    speed: str = ""
    colour: str = ""
    other: int | None = None


@dataclass(frozen=True, slots=True)
class Thing:
    """One object and its whole life.

    Attributes:
        shape: its shape, for good.
        colours: (from when, s; colour), ascending; the first from 0.
        x: of its centre, units.
        y: of its centre, units.
        radius: units.
        tint: what is added to its colour's red, green and blue.
    """

    shape: str
    colours: tuple[tuple[float, str], ...]
    x: Track
    y: Track
    radius: Track
    tint: Rgb

    def colour_at(self, time_s: float) -> str:
        """Return its colour at a moment."""
        return [colour for since_s, colour in self.colours if since_s <= time_s or not since_s][-1]

    @property
    def changes_colour(self) -> bool:
        """Whether it has several colours."""
        return len(self.colours) > 1


@dataclass(frozen=True, slots=True)
class Wall:
    """Something to hide behind: a rectangle in front of the objects, units."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class Sign:
    """A plate with a text; no object ever comes near it.

    Attributes:
        text: what it says.
        left_px: of the plate.
        top_px: of the plate.
        scale: px per dot of a letter.
    """

    text: str
    left_px: int
    top_px: int
    scale: int


@dataclass(frozen=True, slots=True)
class State:
    """One object at one moment.

    Attributes:
        thing: its number.
        shape: its shape.
        colour: its colour now.
        x: of its centre, units.
        y: of its centre, units.
        radius: units.
        view: how much of it shows.
        motion: the direction it moves in now; "" at rest.
    """

    thing: int
    shape: str
    colour: str
    x: float
    y: float
    radius: float
    view: View
    motion: str


@dataclass(frozen=True, slots=True)
class Scene:
    """A clip before it is drawn.

    Attributes:
        name: what its draws come from; no two scenes share one.
        height_px: of the frame.
        width_px: of the frame.
        rate_hz: frames per second; frame k shows the moment k / rate_hz.
        num_frames: how many.
        things: the objects, in the order they are drawn.
        events: what happens, by start.
        wall: what an object hides behind; None where none does.
        sign: None where there is none.
        backdrop: what is behind.
        shake_px: how far the camera is off at most, each way.
        noise: most grey levels a pixel is off, each way.
        crf: of H.264 when it becomes a file; 0 loses nothing but colour detail.
    """

    name: str
    height_px: int
    width_px: int
    rate_hz: float
    num_frames: int
    things: tuple[Thing, ...]
    events: tuple[Event, ...]
    wall: Wall | None
    sign: Sign | None
    backdrop: Backdrop
    shake_px: int
    noise: int
    crf: int

    @property
    def unit_px(self) -> int:
        """The frame's shorter side, px."""
        return min(self.height_px, self.width_px)

    @property
    def height(self) -> float:
        """Of the frame, units."""
        return self.height_px / self.unit_px

    @property
    def width(self) -> float:
        """Of the frame, units."""
        return self.width_px / self.unit_px

    @property
    def length_s(self) -> float:
        """From the first frame to the end of the last, s."""
        return self.num_frames / self.rate_hz

    def time_of(self, idx: int) -> float:
        """Return the moment a frame shows, s."""
        return idx / self.rate_hz

    def state_at(self, time_s: float) -> tuple[State, ...]:
        """Return every object at a moment, in order, those that cannot be seen included."""
        return tuple(self._state(idx, time_s) for idx in range(len(self.things)))

    def _state(self, idx: int, time_s: float) -> State:
        thing = self.things[idx]
        x, y, radius = thing.x.at(time_s), thing.y.at(time_s), thing.radius.at(time_s)
        motion = next(
            (
                event.direction
                for event in self.events
                if event.thing == idx
                and event.direction
                and event.kind != "collide"
                and event.start_s <= time_s < event.end_s
            ),
            "",
        )
        view = self._view(thing.shape, x, y, radius)
        return State(idx, thing.shape, thing.colour_at(time_s), x, y, radius, view, motion)

    def _view(self, shape: str, x: float, y: float, radius: float) -> View:
        side, up, down = REACH[shape]
        left, right = x - side * radius, x + side * radius
        top, bottom = y - up * radius, y + down * radius
        shake, pixel = self.shake_px / self.unit_px, 1 / self.unit_px
        # Half a pixel beyond an edge still fades in; a whole one is nothing.
        if right < -shake - pixel or left > self.width + shake + pixel:
            return "gone"
        if bottom < -shake - pixel or top > self.height + shake + pixel:
            return "gone"
        if self.wall is not None:
            wall = self.wall
            is_across = left >= wall.left and right <= wall.right
            if is_across and top >= wall.top and bottom <= wall.bottom:
                return "gone"
            is_clear = right < wall.left - pixel or left > wall.right + pixel
            if not (is_clear or bottom < wall.top - pixel or top > wall.bottom + pixel):
                return "partly"
        is_inside = left >= shake and right <= self.width - shake
        is_inside = is_inside and top >= shake and bottom <= self.height - shake
        return "whole" if is_inside else "partly"
