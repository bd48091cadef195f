"""One object and its acts, one after the other → its tracks and events.

Says False where an act finds no room; then the composer tries again.
"""

from dataclasses import dataclass, field
from typing import Final

from llava_video.world.scene import Event, EventKind, Thing, Wall
from llava_video.world.shapes import REACH
from llava_video.world.track import Track
from llava_video.world.vocabulary import DIRECTIONS, SIDE_AHEAD, SIDE_BEHIND, SIZES, SPEEDS, Rgb

# From an edge of the wall to what stands beside it or hides behind it, units.
_BESIDE, _SLACK = 0.05, 0.035
# Beyond the frame's edge, units: a pixel of the smallest frame. A shaking camera adds to it.
_OUTSIDE: Final = 0.033
# Whoever enters or hides does so at least this fast, units/s: its tip shows in half a second.
_LEAST_SPEED: Final = 0.25


@dataclass(frozen=True, slots=True)
class Act:
    """What an object is to do.

    Attributes:
        kind: "enter", "leave", "move", "grow", "shrink", "recolour", "hide" or "collide".
        start_s: when, s.
        direction: of "enter", "leave", "move", "hide" and "collide".
        speed: "slowly" or "quickly".
        length_s: of a move, a growth or a stay behind the wall; s.
        colour: of "recolour": the new one.
        is_return: whether it leaves its hiding place where it came from.
        goes_on: whether a move lasts until the clip ends.
    """

    kind: EventKind
    start_s: float
    direction: str = ""
    speed: str = "slowly"
    length_s: float = 1.5
    colour: str = ""
    is_return: bool = False
    goes_on: bool = False

    def way(self) -> tuple[float, float]:
        """Return where a move leads, (to the right, down), units."""
        dx, dy = DIRECTIONS[self.direction]
        distance = SPEEDS[self.speed] * self.length_s
        return dx * distance, dy * distance


@dataclass(frozen=True, slots=True)
class Stage:
    """Where and how long acts are played.

    Attributes:
        left: of where objects may stand, units.
        top: likewise.
        right: likewise.
        bottom: likewise.
        width: of the frame, units.
        height: of the frame, units.
        shake: how far the camera is off, units.
        length_s: of the clip, s.
        closed: the edge where a sign is, "top" or "bottom": nobody enters or leaves there.
    """

    left: float
    top: float
    right: float
    bottom: float
    width: float
    height: float
    shake: float
    length_s: float
    closed: str = ""

    def has_room(self, shape: str, x: float, y: float, radius: float) -> bool:
        """Say whether an object may stand somewhere."""
        side, up, down = (reach * radius for reach in REACH[shape])
        is_across = self.left <= x - side and x + side <= self.right
        return is_across and self.top <= y - up and y + down <= self.bottom


@dataclass(slots=True)
class Actor:
    """An object that is being given a life, from the place where it first stands.

    Attributes:
        idx: its number.
        shape: its shape.
        colour: its first colour.
        size: "small" or "large", at first.
        x: where it stands, units.
        y: where it stands, units.
        free_s: when it may act again, s.
        events: what it has done.
        wall: what it hides behind.
    """

    idx: int
    shape: str
    colour: str
    size: str
    x: float
    y: float
    free_s: float = 0.0
    events: list[Event] = field(default_factory=list)
    wall: Wall | None = None
    _xs: list[tuple[float, float]] = field(default_factory=list)
    _ys: list[tuple[float, float]] = field(default_factory=list)
    _radii: list[tuple[float, float]] = field(default_factory=list)
    _colours: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Stand there from the beginning."""
        self._xs.append((0.0, self.x))
        self._ys.append((0.0, self.y))
        self._radii.append((0.0, SIZES[self.size]))
        self._colours.append((0.0, self.colour))

    @property
    def radius(self) -> float:
        """Its radius after what it has done, units."""
        return self._radii[-1][1]

    def play(self, act: Act, stage: Stage) -> bool:
        """Do one act; False where there is no room or no time, and then this actor is spoilt."""
        if act.start_s < self.free_s:
            return False
        plays = {
            "enter": self._enter,
            "leave": self._leave,
            "move": self._move,
            "grow": self._resize,
            "shrink": self._resize,
            "recolour": self._recolour,
            "hide": self._hide,
        }
        is_done = plays[act.kind](act, stage)
        last_s = self.events[-1].end_s if self.events else 0.0
        self.free_s = last_s + 1.0
        return is_done and (act.goes_on or last_s <= stage.length_s - 1.0)

    def glide(self, start_s: float, end_s: float, x: float, y: float) -> None:
        """Go somewhere in a straight line."""
        self._xs += [(start_s, self.x), (end_s, x)]
        self._ys += [(start_s, self.y), (end_s, y)]
        self.x, self.y = x, y

    def place(self, x: float, y: float) -> None:
        """Stand somewhere else from the beginning, before any act."""
        self.x, self.y = x, y
        self._xs[0], self._ys[0] = (0.0, x), (0.0, y)

    def thing(self, tint: Rgb) -> Thing:
        """Return the finished object."""
        tracks = (Track(*map(tuple, zip(*t, strict=True))) for t in self._tracks())
        x, y, radius = tracks
        return Thing(self.shape, tuple(self._colours), x, y, radius, tint)

    def _tracks(self) -> tuple[list[tuple[float, float]], ...]:
        return self._xs, self._ys, self._radii

    def _add(self, kind: EventKind, start_s: float, end_s: float, act: Act) -> None:
        self.events.append(Event(kind, start_s, end_s, self.idx, act.direction))

    def _to_outside(self, direction: str, stage: Stage) -> float:
        """Return how far it is to where nothing of it shows, units."""
        side, up, down = (reach * self.radius for reach in REACH[self.shape])
        beyond = _OUTSIDE + stage.shake
        return {
            "right": stage.width - self.x + side,
            "left": self.x + side,
            "down": stage.height - self.y + up,
            "up": self.y + down,
        }[direction] + beyond

    def _enter(self, act: Act, stage: Stage) -> bool:
        dx, dy = DIRECTIONS[act.direction]
        behind = {"right": "left", "left": "right", "up": "down", "down": "up"}[act.direction]
        distance = self._to_outside(behind, stage)
        end_s = act.start_s + distance / _brisk(act, distance)
        x, y = self.x, self.y
        self._xs[0], self._ys[0] = (0.0, x - dx * distance), (0.0, y - dy * distance)
        self.x, self.y = x - dx * distance, y - dy * distance
        self.glide(act.start_s, end_s, x, y)
        self._add("enter", act.start_s, end_s, act)
        is_open = SIDE_BEHIND[act.direction] != stage.closed
        return is_open and stage.has_room(self.shape, x, y, self.radius)

    def _leave(self, act: Act, stage: Stage) -> bool:
        dx, dy = DIRECTIONS[act.direction]
        distance = self._to_outside(act.direction, stage)
        end_s = act.start_s + distance / _brisk(act, distance)
        self.glide(act.start_s, end_s, self.x + dx * distance, self.y + dy * distance)
        self._add("leave", act.start_s, end_s, act)
        return SIDE_AHEAD[act.direction] != stage.closed

    def _move(self, act: Act, stage: Stage) -> bool:
        dx, dy = act.way()
        end_s = act.start_s + act.length_s
        self.glide(act.start_s, end_s, self.x + dx, self.y + dy)
        self.note_move(act, end_s)
        return stage.has_room(self.shape, self.x, self.y, self.radius)

    def note_move(self, act: Act, end_s: float) -> None:
        """Write down a move, and its stop where it has one."""
        self.events.append(
            Event("move", act.start_s, end_s, self.idx, act.direction, speed=act.speed)
        )
        if not act.goes_on:
            self.events.append(Event("stop", end_s, end_s, self.idx))

    def _resize(self, act: Act, stage: Stage) -> bool:
        after = SIZES["large" if act.kind == "grow" else "small"]
        end_s = act.start_s + act.length_s
        self._radii += [(act.start_s, self.radius), (end_s, after)]
        self._add(act.kind, act.start_s, end_s, act)
        return stage.has_room(self.shape, self.x, self.y, after)

    def _recolour(self, act: Act, stage: Stage) -> bool:
        del stage
        self._colours.append((act.start_s, act.colour))
        kind, when_s = act.kind, act.start_s
        self.events.append(Event(kind, when_s, when_s, self.idx, colour=act.colour))
        return True

    def _hide(self, act: Act, stage: Stage) -> bool:
        dx, _ = DIRECTIONS[act.direction]
        side, up, down = (reach * self.radius for reach in REACH[self.shape])
        half = side + _SLACK + stage.shake
        distance = half + side + _BESIDE
        wall_x, y, start_x = self.x + dx * distance, self.y, self.x
        slack = _SLACK + stage.shake
        self.wall = Wall(wall_x - half, y - up - slack, wall_x + half, y + down + slack)
        way_s = distance / _brisk(act, distance)
        hidden_s = act.start_s + way_s
        out_s = hidden_s + act.length_s
        self.glide(act.start_s, hidden_s, wall_x, y)
        self._add("hide", act.start_s, hidden_s, act)
        self.glide(out_s, out_s + way_s, start_x if act.is_return else wall_x + dx * distance, y)
        back = {"left": "right", "right": "left"}[act.direction]
        direction = back if act.is_return else act.direction
        self.events.append(Event("return", out_s, out_s + way_s, self.idx, direction))
        is_inside = stage.top <= self.wall.top and self.wall.bottom <= stage.bottom
        is_inside = is_inside and stage.left <= self.wall.left and self.wall.right <= stage.right
        return is_inside and stage.has_room(self.shape, self.x, self.y, self.radius)


def _brisk(act: Act, distance: float) -> float:
    """Return a speed at which a way takes one to two and a half seconds, units/s."""
    return min(distance, max(SPEEDS[act.speed], distance / 2.5, _LEAST_SPEED))


def push(first: Actor, second: Actor, act: Act, stage: Stage) -> bool:
    """Let one object run into another, which stands in its way and is knocked on.

    The other's place follows from the first one's; it must not have done anything yet.

    Returns:
        False where there is no room or no time.
    """
    if act.start_s < first.free_s or second.events:
        return False
    dx, dy = DIRECTIONS[act.direction]
    way_x, way_y = act.way()
    hit_s = act.start_s + act.length_s
    between = _reach(first, act.direction) + _reach(second, _opposite(act.direction))
    x, y = first.x + way_x, first.y + way_y
    second.place(x + dx * between, y + dy * between)
    if not stage.has_room(second.shape, second.x, second.y, second.radius):
        return False
    first.glide(act.start_s, hit_s, x, y)
    first.note_move(act, hit_s)
    first.events.append(Event("collide", hit_s, hit_s, first.idx, act.direction, other=second.idx))
    end_s = hit_s + act.length_s
    second.glide(hit_s, end_s, second.x + way_x, second.y + way_y)
    second.note_move(Act("move", hit_s, act.direction, act.speed, act.length_s), end_s)
    first.free_s, second.free_s = end_s + 1.0, end_s + 1.0
    is_inside = all(stage.has_room(a.shape, a.x, a.y, a.radius) for a in (first, second))
    return is_inside and end_s <= stage.length_s - 1.0


def _opposite(direction: str) -> str:
    return {"right": "left", "left": "right", "up": "down", "down": "up"}[direction]


def _reach(actor: Actor, direction: str) -> float:
    """Return how far an object reaches, level with its centre."""
    side, up, down = REACH[actor.shape]
    if direction in ("left", "right"):
        # The triangle's sides slope: level with its centre it is narrower than at its foot.
        reach = side if actor.shape != "triangle" else 0.7
    else:
        reach = up if direction == "up" else down
    return reach * actor.radius
