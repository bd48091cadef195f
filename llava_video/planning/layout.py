"""Frame size, grid, pool stride and newline → the rows of visual tokens, and how many they are.

One frame of AnyRes-Video, from a frame of h x w px and a grid of R x C tiles of n x n patches:

    map       = R*n x C*n patches, cut to the window of the picture: a x b
    pooled    = a' x b', each side ceil(side / stride) (bilinear) or floor (average, max)
    overview  = n' x n', the whole frame in one tile, n' = n pooled the same way; no newline
    tokens    = n'*n' + a'*b' + newlines: a' (ROW), 1 (FRAME), 0 (CLIP, NONE)

A video of T frames takes T times that, and 1 more for CLIP. Worked example, 1080 x 1920 px, stride
2, bilinear, ROW: the grid that wastes least is 3 x 5, its map 81 x 135, the picture covers
int(1080 * 135 / 1920) = 75 of the 81 rows, so 75 x 135 remain, pooled 38 x 68; the overview is
14 x 14. That is 196 + 38 * 68 + 38 = 2,818 tokens per frame:

>>> frame = tiled_layout(1080, 1920, Grid(3, 5), patches_per_side=27, pool_stride=2)
>>> frame.crop, frame.map_size, layout_tokens(frame, 1)
((3, 78, 0, 135), (38, 68), 2818)

The layout videos were trained with is one squeezed tile without an overview: 14 * (14 + 1) = 210.

>>> layout_tokens(single_layout(patches_per_side=27, pool_stride=2), 64)
13440

A frame that is fused with the prompt (LLaVA-Mini) is side x side rows, whatever its size and
however many tiles it is cut into: C * C tokens.

Knows no budget, no times and no pixels.
"""

from dataclasses import dataclass, fields
from typing import Literal

from llava_video.errors import ConfigError
from llava_video.planning.geometry import Aspect, Geometry
from llava_video.planning.grid import choose_grid, pooled_side, shrunk_size, unpad_window
from llava_video.values import Fit, Grid, Newline, PoolMode, PoolOf, VisualPlan

ONE_TILE = Grid(1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How each frame becomes rows of tokens; the fields are those of `VisualPlan`."""

    fit: Fit
    grid: Grid
    overview: bool
    pool_mode: PoolMode
    pool_stride: int
    newline: Newline
    crop: tuple[int, int, int, int]
    map_size: tuple[int, int]
    overview_side: int = 0
    slow_every: int = 0
    fast_side: int = 0
    pool_of: PoolOf = "tokens"
    is_fused: bool = False


def layout_tokens(layout: Layout | VisualPlan, num_frames: int) -> int:
    """Count the visual tokens of so many frames, newlines and separators included."""
    rows, cols = layout.map_size
    per_frame = layout.overview_side**2 + _map_tokens(rows, cols, layout.newline)
    at_end = int(layout.newline is Newline.CLIP)
    if not layout.slow_every:
        return num_frames * per_frame + at_end
    num_slow = -(-num_frames // layout.slow_every)  # frames 0, k, 2k, …
    fast = _map_tokens(layout.fast_side, layout.fast_side, layout.newline)
    return num_slow * (per_frame + 1) + (num_frames - num_slow) * (fast + 1) + at_end


def count_tokens(visual: VisualPlan) -> int:
    """Recount a plan's visual tokens from its parts; equals `visual.num_tokens`."""
    return layout_tokens(visual, visual.num_frames)


def single_layout(
    *,
    patches_per_side: int,
    pool_stride: int,
    pool_mode: PoolMode = "bilinear",
    newline: Newline = Newline.ROW,
    slow_every: int = 0,
    fit: Fit = "squeeze",
    pool_of: PoolOf = "tokens",
) -> Layout:
    """Return the layout of one tile per frame.

    Raises:
        ConfigError: nothing is left after pooling.
    """
    _check_stride(pool_stride, patches_per_side)
    side = _pooled_or_refuse(patches_per_side, pool_stride, pool_mode)
    # The reference has fast frames only between row newlines.
    slow_every = slow_every if newline is Newline.ROW else 0
    fast_side = _pooled_or_refuse(patches_per_side, 2 * pool_stride, pool_mode) if slow_every else 0
    return Layout(
        fit=fit,
        grid=ONE_TILE,
        overview=False,
        pool_mode=pool_mode,
        pool_stride=pool_stride,
        newline=newline,
        crop=(0, patches_per_side, 0, patches_per_side),
        map_size=(side, side),
        slow_every=slow_every,
        fast_side=fast_side,
        pool_of=pool_of,
    )


def tiled_layout(
    height_px: int,
    width_px: int,
    grid: Grid,
    *,
    patches_per_side: int,
    pool_stride: int,
    pool_mode: PoolMode = "bilinear",
    newline: Newline = Newline.ROW,
    unpad: bool = True,
    pool_of: PoolOf = "tokens",
) -> Layout:
    """Return the layout of an overview tile and a grid of tiles per frame.

    Raises:
        ConfigError: nothing is left after pooling.
    """
    _check_stride(pool_stride, patches_per_side)
    map_rows, map_cols = grid.rows * patches_per_side, grid.cols * patches_per_side
    crop = (0, map_rows, 0, map_cols)
    if unpad:
        crop = unpad_window(height_px, width_px, map_rows, map_cols)
    top, bottom, left, right = crop
    return Layout(
        fit="letterbox",
        grid=grid,
        overview=True,
        pool_mode=pool_mode,
        pool_stride=pool_stride,
        newline=newline,
        crop=crop,
        map_size=(
            _pooled_or_refuse(bottom - top, pool_stride, pool_mode),
            _pooled_or_refuse(right - left, pool_stride, pool_mode),
        ),
        overview_side=_pooled_or_refuse(patches_per_side, pool_stride, pool_mode),
        pool_of=pool_of,
    )


def fused_layout(geometry: Geometry, fit: Fit) -> Layout:
    """Return the only layout of a model that compresses each frame and fuses it with the prompt.

    Split x split parts and the whole frame, or the whole alone; all their patches become one map of
    compressed_side rows and columns.
    """
    side = geometry.split * geometry.patches_per_side
    return Layout(
        fit=fit,
        grid=Grid(geometry.split, geometry.split),
        overview=geometry.split > 1,
        pool_mode=geometry.pool_mode,
        pool_stride=1,
        newline=Newline.NONE,
        crop=(0, side, 0, side),
        map_size=(geometry.compressed_side, geometry.compressed_side),
        is_fused=True,
    )


def refuse_knobs(geometry: Geometry, **asked: object) -> None:
    """See that no other layout is asked of a model that has only one.

    Args:
        geometry: of a model that compresses its frames.
        asked: the knobs as users call them; None where one was left out.

    Raises:
        ConfigError: one was given.
    """
    given = {name: _shown(value) for name, value in asked.items() if value is not None}
    if given:
        side = geometry.compressed_side
        shown = "picture" if "image_aspect" in given else "frame"
        fewer = "" if shown == "picture" else "; fewer frames take fewer tokens"
        raise ConfigError(
            f"{', '.join(f'{name} = {value}' for name, value in given.items())}, and "
            f"{geometry.model} makes {side} x {side} tokens of every {shown}, whatever its size.",
            f"leave {' and '.join(given)} out{fewer}.",
        )


def video_layout(
    height_px: int,
    width_px: int,
    geometry: Geometry,
    *,
    grid: Grid = ONE_TILE,
    pool_stride: int | None = None,
    pool_mode: PoolMode | None = None,
    newline: Newline | None = None,
) -> Layout:
    """Return the layout of a video's frames; None takes the checkpoint's.

    Args:
        height_px: of the frames as shown.
        width_px: of the frames as shown.
        geometry: the model.
        grid: (1, 1) is the trained layout, one tile; more tiles are AnyRes-Video, which has no fast
            frames.
        pool_stride: side reduction.
        pool_mode: how.
        newline: where newline tokens stand.

    Raises:
        ConfigError: the model has no newline token, joins tiles flat or has one layout only, or
            nothing is left.
    """
    if geometry.compressed_side:
        tiles = None if grid == ONE_TILE else grid
        knobs = {"pool_stride": pool_stride, "pool_mode": pool_mode, "newline": newline}
        refuse_knobs(geometry, grid=tiles, **knobs)
        return fused_layout(geometry, geometry.video_fit)
    pool_stride = geometry.pool_stride if pool_stride is None else pool_stride
    pool_mode = geometry.pool_mode if pool_mode is None else pool_mode
    newline = _video_newline(geometry, newline)
    side = geometry.patches_per_side
    if grid == ONE_TILE:
        return single_layout(
            patches_per_side=side,
            pool_stride=pool_stride,
            pool_mode=pool_mode,
            newline=newline,
            slow_every=geometry.slow_every,
            fit=geometry.video_fit,
            pool_of=geometry.pool_of,
        )
    _require_maps(geometry)
    return tiled_layout(
        height_px,
        width_px,
        grid,
        patches_per_side=side,
        pool_stride=pool_stride,
        pool_mode=pool_mode,
        newline=newline,
        unpad=geometry.unpad,
        pool_of=geometry.pool_of,
    )


def image_layout(height_px: int, width_px: int, geometry: Geometry, aspect: Aspect) -> Layout:
    """Return the layout of a still picture: never pooled, perhaps shrunk by `anyres_max`.

    Raises:
        ConfigError: tiles are asked of a model without canvases, or that joins them flat or
            compresses a picture whole; or the picture has fewer pixels than it is cut into blocks.
    """
    fit: Fit = "pad" if aspect == "pad" else geometry.square_fit
    if geometry.compressed_side:
        if aspect == "anyres":
            refuse_knobs(geometry, image_aspect=aspect)
        _check_blocks(height_px, width_px, geometry)
        return fused_layout(geometry, fit)
    side = geometry.patches_per_side
    has_newline = geometry.has_newline and geometry.unpad and geometry.merge == "spatial"
    if aspect != "anyres":
        return single_layout(
            patches_per_side=side,
            pool_stride=1,
            newline=Newline.CLIP if has_newline else Newline.NONE,
            fit=fit,
        )
    _require_maps(geometry)
    if not geometry.canvases:
        raise ConfigError(f"{geometry.model} names no canvases.", "image_aspect='pad' needs none.")
    grid = choose_grid(height_px, width_px, geometry.canvases, geometry.tile_px)
    map_rows, map_cols = grid.rows * side, grid.cols * side
    crop = (0, map_rows, 0, map_cols)
    map_size = (map_rows, map_cols)
    if geometry.unpad:
        crop = unpad_window(height_px, width_px, map_rows, map_cols, keeps_line=geometry.keeps_line)
        window = (crop[1] - crop[0], crop[3] - crop[2])
        map_size = shrunk_size(*window, geometry.anyres_max, side)
    return Layout(
        fit="letterbox",
        grid=grid,
        overview=True,
        pool_mode="bilinear",
        pool_stride=1,
        newline=Newline.ROW if has_newline else Newline.NONE,
        crop=crop,
        map_size=map_size,
        overview_side=side,
    )


def visual_plan(
    layout: Layout,
    *,
    kind: Literal["video", "image"],
    source: str,
    size_px: tuple[int, int],
    frame_idxs: tuple[int, ...],
    times_s: tuple[float, ...],
    duration_s: float | None = None,
    end_s: float | None = None,
    note_every: int = 0,
) -> VisualPlan:
    """Put a layout and the frames it is for together; sizes are (height, width)."""
    return VisualPlan(
        kind=kind,
        source=source,
        height_px=size_px[0],
        width_px=size_px[1],
        times_s=times_s,
        frame_idxs=frame_idxs,
        num_tokens=layout_tokens(layout, len(times_s)),
        duration_s=duration_s,
        end_s=end_s,
        note_every=note_every,
        **{field.name: getattr(layout, field.name) for field in fields(layout)},
    )


def _check_blocks(height_px: int, width_px: int, geometry: Geometry) -> None:
    # Of a picture alone: a video's frame is made a tile first. The reference fails here as well.
    split = geometry.split
    if min(height_px, width_px) < split:
        raise ConfigError(
            f"a picture of {height_px} x {width_px} px, and {geometry.model} cuts one into "
            f"{split} x {split} blocks of whole pixels.",
            f"enlarge it: {split} px or more on either side.",
        )


def _shown(value: object) -> str:
    if isinstance(value, Grid):
        return f"{value.rows} x {value.cols}"
    return repr(value.value if isinstance(value, Newline) else value)


def _map_tokens(rows: int, cols: int, newline: Newline) -> int:
    newlines = {Newline.ROW: rows, Newline.FRAME: 1}.get(newline, 0)
    return rows * cols + newlines


def _video_newline(geometry: Geometry, asked: Newline | None) -> Newline:
    if asked is not None:
        if asked is not Newline.NONE and (not geometry.has_newline or geometry.merge == "flat"):
            raise ConfigError(
                f"newline = {asked.value!r}, and {geometry.model} has no newline token.",
                "newline='none', or leave it out.",
            )
        return asked
    if not geometry.has_newline or geometry.merge == "flat":
        return Newline.NONE
    # The reference ends a clip with a newline only where the merge type says "unpad".
    return (
        Newline.NONE
        if geometry.newline is Newline.CLIP and not geometry.unpad
        else geometry.newline
    )


def _require_maps(geometry: Geometry) -> None:
    if geometry.merge == "flat":
        raise ConfigError(
            f"{geometry.model} joins tiles flat: they form no map.",
            "grid='off' for videos, image_aspect='pad' for pictures.",
        )


def _pooled_or_refuse(side: int, stride: int, mode: PoolMode) -> int:
    pooled = pooled_side(side, stride, mode)
    if not pooled:
        raise ConfigError(
            f"pool_stride = {stride} with {mode} pooling leaves nothing of {side} patches.",
            f"a stride of at most {side} leaves a patch; pool_mode='bilinear' always does.",
        )
    return pooled


def _check_stride(pool_stride: int, patches_per_side: int) -> None:
    if pool_stride > patches_per_side:
        raise ConfigError(
            f"pool_stride = {pool_stride}, and a tile has {patches_per_side} patches per side.",
            f"at most {patches_per_side}.",
        )
