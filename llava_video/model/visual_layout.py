"""The original config.json → how pictures and videos are laid out as rows of the prompt.

Every key may be missing; the defaults are the ones the original code falls back to. Opens no file
and knows no weights.
"""

import ast
import itertools
import re
from dataclasses import dataclass
from typing import cast

from llava_video.model.json_fields import JsonFields
from llava_video.model.members import LLAVA_NEXT_VIDEO, Member
from llava_video.model.tower_config import unsupported
from llava_video.planning.geometry import Aspect, Merge
from llava_video.values import Newline, PoolMode, PoolOf

_NEWLINES = {
    "grid": Newline.ROW,
    "frame": Newline.FRAME,
    "one_token": Newline.CLIP,
    "no_token": Newline.NONE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualLayout:
    """How features become rows of the prompt.

    Attributes:
        canvases: (height_px, width_px) the checkpoint may lay a picture out on, in its own order.
        aspect: what happens to a picture that is not square.
        anyres_max: N of anyres_max_N: maps larger than N tiles are resized; None without a limit.
        merge: "spatial" arranges tiles as one map, "flat" concatenates them.
        unpad: whether the padding's features are cut off the map and newline tokens exist.
        newline: where newline tokens stand in a video.
        pool_mode: how a frame's map is pooled.
        pool_stride: side reduction of a frame's map.
        pool_of: whether tokens are pooled, or the tower's features before the projector.
        slow_every: 0, or k: every k-th frame is slow (LLaVA-Video's slow-fast layout).
    """

    canvases: tuple[tuple[int, int], ...]
    aspect: Aspect
    anyres_max: int | None
    merge: Merge
    unpad: bool
    newline: Newline
    pool_mode: PoolMode
    pool_stride: int
    pool_of: PoolOf
    slow_every: int


def visual_layout_of(fields: JsonFields, tile_px: int, member: Member) -> VisualLayout:
    """Read how pictures and videos are laid out.

    Args:
        fields: the configuration.
        tile_px: side of a tile, px; canvases are whole tiles.
        member: its line, which says what the configuration leaves out of a video.

    Raises:
        CheckpointError: on a value this library does not build, or canvases not of whole tiles.
    """
    merge = fields.one_of("mm_patch_merge_type", "flat", ("flat", "spatial", "spatial_unpad"))
    aspect, anyres_max = _aspect(fields.text("image_aspect_ratio", "square"))
    canvases = _canvases(fields, tile_px)
    if aspect == "anyres" and not canvases:
        raise fields.wrong("image_grid_pinpoints", None, "canvases, because pictures are tiled")
    mode = fields.text("mm_spatial_pool_mode", "bilinear")
    if mode not in ("bilinear", "average", "max"):
        raise unsupported("mm_spatial_pool_mode", mode, "'bilinear', 'average' or 'max'")
    stride, pool_of = _pooling(fields, member)
    return VisualLayout(
        canvases=canvases,
        aspect=aspect,
        anyres_max=anyres_max,
        merge="flat" if merge == "flat" else "spatial",
        unpad="unpad" in merge,
        newline=_newline(fields, merge, member, pool_of),
        pool_mode=cast(PoolMode, mode),
        pool_stride=stride,
        pool_of=pool_of,
        slow_every=fields.integer("faster_token_stride", 10) if is_slow_fast(fields) else 0,
    )


def is_slow_fast(fields: JsonFields) -> bool:
    """Whether every k-th frame of a video is slow, which takes a separator token."""
    # The reference reads add_faster_video only in the branch of newlines per row.
    is_grid = fields.text("mm_newline_position", "one_token") == "grid"
    return is_grid and fields.flag("add_faster_video", False)


def _pooling(fields: JsonFields, member: Member) -> tuple[int, PoolOf]:
    """Return the pool stride of a video, and what is pooled."""
    if member is not LLAVA_NEXT_VIDEO:
        # The reference pools by 2 whatever mm_spatial_pool_stride says; only slow-fast reads it.
        usual = member.pool_stride or 2
        is_read = is_slow_fast(fields)
        return fields.integer("mm_spatial_pool_stride", usual) if is_read else usual, "tokens"
    position = fields.one_of("mm_pooling_position", "before", ("before", "after"))
    stride = fields.integer("mm_spatial_pool_stride", 2)
    return stride, "features" if position == "before" else "tokens"


def _newline(fields: JsonFields, merge: str, member: Member, pool_of: PoolOf) -> Newline:
    usual = member.newline
    if member is LLAVA_NEXT_VIDEO and pool_of == "tokens":
        usual = "one_token"  # of the later code, which pools after the projector
    position = fields.one_of("mm_newline_position", usual, _NEWLINES)
    newline = _NEWLINES[position]
    if "unpad" in merge:
        return newline
    is_asked = fields.has("mm_newline_position") and newline in (Newline.ROW, Newline.FRAME)
    if merge == "spatial" and is_asked:
        raise fields.wrong("mm_newline_position", position, "'one_token': newlines need 'unpad'")
    return Newline.NONE  # "flat" reads no newline position; "spatial" has no newline to put there


def _aspect(ratio: str) -> tuple[Aspect, int | None]:
    limit = re.fullmatch(r"anyres_max_(\d+)", ratio)
    if limit and int(limit[1]) > 0:
        return "anyres", int(limit[1])
    if ratio in ("anyres", "pad"):
        return cast(Aspect, ratio), None
    if ratio in ("highres", "crop_split") or ratio.startswith("anyres"):
        raise unsupported("image_aspect_ratio", ratio, "anyres, anyres_max_N, pad or square")
    return "square", None  # every other word means the plain processor in the reference


def _canvases(fields: JsonFields, tile_px: int) -> tuple[tuple[int, int], ...]:
    pinpoints = fields.values.get("image_grid_pinpoints")
    if pinpoints is None:
        return ()
    if isinstance(pinpoints, str):
        pinpoints = _spelled_out(fields, pinpoints, tile_px)
    canvases = []
    for pair in pinpoints if isinstance(pinpoints, list | tuple) else (pinpoints,):
        if not _is_canvas(pair, tile_px):
            raise fields.wrong("image_grid_pinpoints", pair, f"pairs of multiples of {tile_px} px")
        width_px, height_px = pair
        canvases.append((height_px, width_px))
    return tuple(canvases)


def _is_canvas(pair: object, tile_px: int) -> bool:
    return (
        isinstance(pair, list | tuple)
        and len(pair) == 2
        and all(isinstance(px, int) and px > 0 and px % tile_px == 0 for px in pair)
    )


def _spelled_out(fields: JsonFields, text: str, tile_px: int) -> object:
    """Expand "(1x1),...,(6x6)", which names the first and last pair in tiles, or a list as text."""
    pairs = [(int(a), int(b)) for a, b in re.findall(r"\((\d+)x(\d+)\)", text)]
    if pairs:
        (a_first, b_first), (a_last, b_last) = pairs[0], pairs[-1]
        sides = itertools.product(range(a_first, a_last + 1), range(b_first, b_last + 1))
        return [[a * tile_px, b * tile_px] for a, b in sides]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError) as cause:
        raise fields.wrong("image_grid_pinpoints", text, "'(1x1),...,(6x6)' or pairs") from cause
