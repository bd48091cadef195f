"""A scene → its frames, in pieces of bounded memory or a whole batch at once.

The same bytes on every machine: positions are drawn in double precision with operations that are
rounded the same everywhere, and blended in whole numbers.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from llava_video.errors import ConfigError
from llava_video.world.backdrop import paint_backdrop
from llava_video.world.dice import number_of, raw_bytes
from llava_video.world.font import LETTER_HEIGHT, write_text
from llava_video.world.scene import Scene, Thing
from llava_video.world.shapes import MOST_REACH, OPAQUE, cover
from llava_video.world.vocabulary import COLOURS

Frames = npt.NDArray[np.uint8]

_CHUNK_BYTES = 16 << 20
_WALL, _MORTAR = (104, 84, 72), (78, 62, 54)
_PLATE, _INK, _FRAME = (250, 250, 250), (16, 16, 16), (16, 16, 16)
PLATE_PX = 2  # dots between a sign's letters and the end of its plate


def render(scene: Scene) -> Frames:
    """Draw all frames of a scene.

    Returns:
        (T, H, W, 3) uint8, RGB.
    """
    return render_at(scene, range(scene.num_frames))


def render_at(scene: Scene, frame_idxs: Sequence[int]) -> Frames:
    """Draw some frames of a scene alone: the same bytes as in `render`.

    Args:
        scene: the whole clip.
        frame_idxs: which of its frames, in any order.

    Returns:
        (number of them, H, W, 3) uint8, RGB.
    """
    frames = np.empty((len(frame_idxs), *_shape(scene)[1:]), dtype=np.uint8)
    _draw(scene, _canvas(scene), frame_idxs, frames)
    return frames


def iter_frames(scene: Scene) -> Iterator[npt.NDArray[np.uint8]]:
    """Draw the frames of a scene one by one, some ahead; any length in bounded memory.

    Yields:
        (H, W, 3) uint8, RGB.
    """
    frame_bytes = scene.height_px * scene.width_px * 3
    chunk = max(1, min(64, _CHUNK_BYTES // frame_bytes))
    canvas = _canvas(scene)
    for start in range(0, scene.num_frames, chunk):
        num_frames = min(chunk, scene.num_frames - start)
        frames = np.empty((num_frames, *_shape(scene)[1:]), dtype=np.uint8)
        _draw(scene, canvas, range(start, start + num_frames), frames)
        yield from frames


def render_batch(scenes: Sequence[Scene], out: Frames | None = None) -> Frames:
    """Draw several scenes of one shape, without a decoder in between.

    Args:
        scenes: at least one; all of the same number and size of frames.
        out: (B, T, H, W, 3) uint8 to draw into; None makes one.

    Raises:
        ConfigError: scenes of several shapes, or another shape of `out`.
    """
    shapes = {_shape(scene) for scene in scenes}
    if len(shapes) != 1:
        raise ConfigError(
            f"scenes of the shapes {sorted(shapes)}.", "give settings of one size, rate and length."
        )
    shape = (len(scenes), *shapes.pop())
    frames = np.empty(shape, dtype=np.uint8) if out is None else out
    if frames.shape != shape or frames.dtype != np.uint8:
        raise ConfigError(f"out is {frames.dtype} of {frames.shape}.", f"uint8 of {shape}.")
    for scene, clip in zip(scenes, frames, strict=True):
        _draw(scene, _canvas(scene), range(scene.num_frames), clip)
    return frames


def _shape(scene: Scene) -> tuple[int, int, int, int]:
    return (scene.num_frames, scene.height_px, scene.width_px, 3)


def camera_offsets(scene: Scene) -> npt.NDArray[np.int64]:
    """Return how far each frame is cut to the right and down of where it belongs, (T, 2) px."""
    if not scene.shake_px:
        return np.zeros((scene.num_frames, 2), dtype=np.int64)
    drawn = raw_bytes(number_of(scene.name, "shake"), scene.num_frames * 2).astype(np.int64)
    return (drawn % (2 * scene.shake_px + 1) - scene.shake_px).reshape(-1, 2)


def _canvas(scene: Scene) -> Frames:
    """Paint the background with room for the camera to be off."""
    height_px = scene.height_px + 2 * scene.shake_px
    width_px = scene.width_px + 2 * scene.shake_px
    return paint_backdrop(scene.backdrop, height_px, width_px, scene.unit_px)


def _draw(scene: Scene, canvas: Frames, frame_idxs: Sequence[int], frames: Frames) -> None:
    """Draw some frames into (n, H, W, 3)."""
    offsets = camera_offsets(scene)[np.asarray(frame_idxs, dtype=np.int64)]
    margin = scene.shake_px
    for frame, (right, down) in zip(frames, offsets, strict=True):
        top, left = margin + down, margin + right
        frame[:] = canvas[top : top + scene.height_px, left : left + scene.width_px]
    times_s = [scene.time_of(idx) for idx in frame_idxs]
    for thing in scene.things:
        _draw_thing(thing, scene.unit_px, times_s, offsets, frames)
    fixed = [*_wall_pieces(scene), *_sign_pieces(scene)]
    for frame, (right, down) in zip(frames, offsets, strict=True):
        for piece, top, left in fixed:
            _paste(frame, piece, top - int(down), left - int(right))
    if scene.noise:
        _add_noise(scene, frame_idxs, frames)


def _draw_thing(
    thing: Thing,
    unit_px: int,
    times_s: Sequence[float],
    offsets: npt.NDArray[np.int64],
    frames: Frames,
) -> None:
    height_px, width_px = frames.shape[1:3]
    looks: dict[tuple[float, float, float], int] = {}  # an object at rest is drawn once
    idxs = [
        looks.setdefault((thing.x.at(t), thing.y.at(t), thing.radius.at(t)), len(looks))
        for t in times_s
    ]
    x_px, y_px, radius_px = np.array(list(looks)).T * unit_px
    # Of its whole life, so that a frame is the same whichever others are drawn with it.
    half = int(max(thing.radius.values) * unit_px * MOST_REACH) + 2
    left, top = np.floor(x_px) - half, np.floor(y_px) - half
    along = np.arange(2 * half + 1) + 0.5
    covers = cover(
        thing.shape,
        (along + (left - x_px)[:, None])[:, None, :],
        (along + (top - y_px)[:, None])[:, :, None],
        radius_px[:, None, None],
    )[..., None]
    for frame, idx, time_s, (right, down) in zip(frames, idxs, times_s, offsets, strict=True):
        y0, x0 = int(top[idx]) - int(down), int(left[idx]) - int(right)
        y_from, y_to = max(0, y0), min(height_px, y0 + 2 * half + 1)
        x_from, x_to = max(0, x0), min(width_px, x0 + 2 * half + 1)
        if y_from >= y_to or x_from >= x_to:
            continue
        share = covers[idx, y_from - y0 : y_to - y0, x_from - x0 : x_to - x0]
        target = frame[y_from:y_to, x_from:x_to]
        colour = _tinted(thing, time_s)
        target[:] = (target * (OPAQUE - share) + colour * share + OPAQUE // 2) // OPAQUE


def _tinted(thing: Thing, time_s: float) -> npt.NDArray[np.uint16]:
    pairs = zip(COLOURS[thing.colour_at(time_s)], thing.tint, strict=True)
    return np.array([min(255, max(0, level + more)) for level, more in pairs], dtype=np.uint16)


def _wall_pieces(scene: Scene) -> Iterator[tuple[Frames, int, int]]:
    if scene.wall is None:
        return
    left, top = round(scene.wall.left * scene.unit_px), round(scene.wall.top * scene.unit_px)
    right = round(scene.wall.right * scene.unit_px)
    bottom = round(scene.wall.bottom * scene.unit_px)
    piece = np.empty((bottom - top, right - left, 3), dtype=np.uint8)
    piece[:] = _WALL
    step = max(3, scene.unit_px // 16)
    piece[step - 1 :: step] = _MORTAR
    yield piece, top, left


def _sign_pieces(scene: Scene) -> Iterator[tuple[Frames, int, int]]:
    if scene.sign is None:
        return
    ink = write_text(scene.sign.text, scene.sign.scale)
    edge = PLATE_PX * scene.sign.scale
    height_px, width_px = ink.shape
    piece = np.empty((height_px + 2 * edge, width_px + 2 * edge, 3), dtype=np.uint8)
    piece[:] = _FRAME
    rim = max(1, edge // 4)
    piece[rim:-rim, rim:-rim] = _PLATE
    piece[edge:-edge, edge:-edge][ink] = _INK
    yield piece, scene.sign.top_px, scene.sign.left_px


def sign_size(text: str, scale: int) -> tuple[int, int]:
    """Return the height and width of a sign's plate, px."""
    edges = 2 * PLATE_PX * scale
    return LETTER_HEIGHT * scale + edges, (6 * len(text) - 1) * scale + edges


def _paste(frame: npt.NDArray[np.uint8], piece: Frames, top: int, left: int) -> None:
    height_px, width_px = frame.shape[:2]
    y_from, y_to = max(0, top), min(height_px, top + piece.shape[0])
    x_from, x_to = max(0, left), min(width_px, left + piece.shape[1])
    if y_from < y_to and x_from < x_to:
        frame[y_from:y_to, x_from:x_to] = piece[
            y_from - top : y_to - top, x_from - left : x_to - left
        ]


def _add_noise(scene: Scene, frame_idxs: Sequence[int], frames: Frames) -> None:
    """Add noise of at most `noise` grey levels, seldom the most, to every sample."""
    for idx, frame in zip(frame_idxs, frames, strict=True):
        drawn = raw_bytes(number_of(scene.name, "noise", idx), 2 * frame.size).astype(np.int16)
        pairs = drawn.reshape(2, *frame.shape)
        grain = ((pairs[0] - pairs[1]) * scene.noise) // 256
        np.clip(frame + grain, 0, 255, out=pairs[0])
        frame[:] = pairs[0].astype(np.uint8)
