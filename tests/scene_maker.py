"""Small scenes made by hand, so that what is true of them can be counted."""

from llava_video.world.backdrop import Backdrop
from llava_video.world.scene import Event, Scene, Sign, Thing, Wall
from llava_video.world.track import Track

PLAIN = Backdrop("plain", (120, 120, 120), (0, 0, 0), "", 0.1, 0)


def still(value: float) -> Track:
    return Track((0.0,), (value,))


def thing(
    shape: str = "square",
    colour: str = "red",
    x: Track | float = 0.5,
    y: Track | float = 0.5,
    radius: Track | float = 0.1,
    later: tuple[tuple[float, str], ...] = (),
) -> Thing:
    x, y, radius = (v if isinstance(v, Track) else still(v) for v in (x, y, radius))
    return Thing(shape, ((0.0, colour), *later), x, y, radius, (0, 0, 0))


def scene(
    *things: Thing,
    events: tuple[Event, ...] = (),
    wall: Wall | None = None,
    sign: Sign | None = None,
    size_px: tuple[int, int] = (100, 100),
    rate_hz: float = 2.0,
    num_frames: int = 16,
    shake_px: int = 0,
    noise: int = 0,
    name: str = "by hand",
) -> Scene:
    """Make a scene over a plain background; of 100 px, so that a unit is 100 px."""
    return Scene(
        name=name,
        height_px=size_px[0],
        width_px=size_px[1],
        rate_hz=rate_hz,
        num_frames=num_frames,
        things=things,
        events=events,
        wall=wall,
        sign=sign,
        backdrop=PLAIN,
        shake_px=shake_px,
        noise=noise,
        crf=18,
    )


def moving(
    start_s: float, end_s: float, way: float, *, idx: int = 0, x: float = 0.3, **others: float
) -> tuple[Thing, Event]:
    """Make a red square that moves to the right, and its event."""
    path = Track((0.0, start_s, end_s), (x, x, x + way))
    return thing(x=path, **others), Event("move", start_s, end_s, idx, "right", "slowly")
