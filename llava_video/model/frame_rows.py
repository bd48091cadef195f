"""Where the rows of a frame stand, and the ops that put them there for many frames at once.

Order of a frame's rows: the overview's map (pooled, without newlines), the merged map of the grid
with its newlines, the frame's or the clip's newline, the separator. Rows are made in two steps,
because a linear layer may stand between them: pooled maps first, learned vectors afterwards into
the room that was left. Follows a `VisualPlan` and decides nothing; knows no tower and no projector.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from llava_video.ops.newline import fill_rows
from llava_video.ops.pool import Pooling
from llava_video.ops.pool_rows import pool_rows
from llava_video.values import Grid, Newline, VisualPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameLayout:
    """The rows of one frame; frames of the same layout are made together.

    Attributes:
        grid: tiles laid over the frame.
        overview_side: rows and columns of the pooled overview map; 0 without overview.
        overview_stride: its pool stride.
        merged: how the grid's map is cropped and pooled.
        has_row_ends: whether a newline follows each row of the merged map.
        has_newline: whether a newline follows the maps: a frame's own, or the clip's.
        has_separator: whether a separator ends the frame.
    """

    grid: Grid
    overview_side: int
    overview_stride: int
    merged: Pooling
    has_row_ends: bool
    has_newline: bool
    has_separator: bool

    @property
    def num_tiles(self) -> int:
        """Tiles of a frame."""
        return self.grid.rows * self.grid.cols + bool(self.overview_side)

    @property
    def num_rows(self) -> int:
        """Rows of a frame."""
        return self._end + self.has_newline + self.has_separator

    @property
    def is_linear(self) -> bool:
        """Whether every map is pooled so that a linear layer may come before or after."""
        return self.merged.is_linear and (
            not self.overview_side or self.overview_stride == 1 or self.merged.mode != "max"
        )

    def pool(self, maps: torch.Tensor, rows: torch.Tensor, *, gelu: bool) -> None:
        """Write the pooled maps of some frames; what is left for learned vectors becomes zero.

        Args:
            maps: (N, tiles, p, p, C), the overview's tile first; with `gelu` not to be used
                afterwards.
            rows: (N, num_rows, C), overwritten.
            gelu: apply the exact GELU to what is read.

        Raises:
            ValueError: when maps, rows and layout do not fit together.
        """
        num_frames, num_tiles, side, _, num_channels = maps.shape
        if num_tiles != self.num_tiles or rows.shape[:2] != (num_frames, self.num_rows):
            raise ValueError(
                f"features {tuple(maps.shape)} and rows {tuple(rows.shape)} for frames of "
                f"{self.num_tiles} tiles and {self.num_rows} rows."
            )
        if self.overview_side:
            overview = Pooling(
                crop=(0, side, 0, side),
                stride=self.overview_stride,
                mode=self.merged.mode,
                size=(self.overview_side, self.overview_side),
            )
            views = rows[:, : self.overview_side**2]
            views = views.view(num_frames, *overview.size, num_channels)
            pool_rows(maps[:, :1, None], views, overview, gelu=gelu)
            maps = maps[:, 1:]
        tiles = maps.view(num_frames, self.grid.rows, self.grid.cols, side, side, num_channels)
        pool_rows(tiles, self._merged_rows(rows), self.merged, gelu=gelu)
        if self._end < self.num_rows:
            rows[:, self._end :] = 0

    def write_learned(
        self, rows: torch.Tensor, *, newline: torch.Tensor | None, separator: torch.Tensor | None
    ) -> None:
        """Write newlines and separators of some frames over the room left for them.

        Args:
            rows: (N, num_rows, D); the other rows stay as they are.
            newline: (D,), needed only where the layout has one.
            separator: (D,), likewise.

        Raises:
            ValueError: when a vector is missing.
        """
        if self.has_row_ends or self.has_newline:
            if newline is None:
                raise ValueError("newlines were asked for, and there is no newline.")
            if self.has_row_ends:
                fill_rows(self._merged_rows(rows)[:, :, -1], newline.to(rows))
            if self.has_newline:
                fill_rows(rows[:, self._end : self._end + 1], newline.to(rows))
        if self.has_separator:
            if separator is None:
                raise ValueError("a separator after each frame was asked for, and there is none.")
            fill_rows(rows[:, -1:], separator.to(rows))

    @property
    def _end(self) -> int:
        """Rows of the maps and their row ends."""
        height, width = self.merged.size
        return self.overview_side**2 + height * (width + self.has_row_ends)

    def _merged_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the (N, h, w or w + 1, C) rows of the merged map, a view."""
        height, width = self.merged.size
        of_map = rows[:, self.overview_side**2 : self._end]
        return of_map.view(len(rows), height, width + self.has_row_ends, rows.shape[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameGroup:
    """Frames of one layout whose rows stand together.

    Attributes:
        layout: of each.
        frame_idxs: which of the plan's frames, in order.
        first_row: where their rows begin in the memory of all groups.
    """

    layout: FrameLayout
    frame_idxs: tuple[int, ...]
    first_row: int

    @property
    def num_rows(self) -> int:
        """Rows of all its frames."""
        return self.layout.num_rows * len(self.frame_idxs)

    def rows_of(self, rows: torch.Tensor) -> torch.Tensor:
        """Return this group's (N, rows of a frame, D) of all groups' rows (R, D), a view."""
        own = rows[self.first_row : self.first_row + self.num_rows]
        return own.view(len(self.frame_idxs), self.layout.num_rows, rows.shape[1])


def layout_of(plan: VisualPlan, frame_idx: int) -> FrameLayout:
    """Return the layout of a frame.

    Args:
        plan: of the whole item.
        frame_idx: which of its frames, from 0: the last may end the clip, and in the slow-fast
            layout every k-th is slow.
    """
    is_fast = bool(plan.slow_every) and frame_idx % plan.slow_every != 0
    is_last = frame_idx == plan.num_frames - 1
    merged = Pooling(
        crop=plan.crop,
        stride=plan.pool_stride * 2 if is_fast else plan.pool_stride,
        mode=plan.pool_mode,
        size=(plan.fast_side, plan.fast_side) if is_fast else plan.map_size,
    )
    return FrameLayout(
        grid=plan.grid,
        overview_side=plan.overview_side if plan.overview else 0,
        overview_stride=plan.pool_stride,
        merged=merged,
        has_row_ends=plan.newline is Newline.ROW,
        has_newline=plan.newline is Newline.FRAME or (plan.newline is Newline.CLIP and is_last),
        has_separator=bool(plan.slow_every),
    )


def layouts_of(plan: VisualPlan) -> list[FrameLayout]:
    """Return the layout of every frame of a plan; where all are alike, one object."""
    if not plan.slow_every and plan.newline is not Newline.CLIP:
        return [layout_of(plan, 0)] * plan.num_frames
    return [layout_of(plan, idx) for idx in range(plan.num_frames)]


def grouped(plan: VisualPlan, frame_idxs: Iterable[int]) -> list[FrameGroup]:
    """Group frames by their layout, in the order in which layouts come first.

    Args:
        plan: of the whole item.
        frame_idxs: which of its frames, in order.
    """
    return grouped_by((idx, layout_of(plan, idx)) for idx in frame_idxs)


def grouped_by(frames: Iterable[tuple[int, FrameLayout]]) -> list[FrameGroup]:
    """Group numbered frames, perhaps of several items, as `grouped`.

    Args:
        frames: (number, layout), in order; the numbers become the groups' `frame_idxs`.
    """
    found: dict[FrameLayout, list[int]] = {}
    for idx, layout in frames:
        found.setdefault(layout, []).append(idx)
    groups: list[FrameGroup] = []
    first_row = 0
    for layout, idxs in found.items():
        groups.append(FrameGroup(layout=layout, frame_idxs=tuple(idxs), first_row=first_row))
        first_row += groups[-1].num_rows
    return groups


def pooled_rows(features: torch.Tensor, groups: list[FrameGroup], *, gelu: bool) -> torch.Tensor:
    """Return the rows of some frames, pooled, with zeros where learned vectors belong.

    Args:
        features: (tiles of all frames, P, C), group by group; with `gelu` not to be used
            afterwards.
        groups: the frames.
        gelu: apply the exact GELU before the pooling.

    Returns:
        (rows of all groups, C).

    Raises:
        ValueError: when the groups do not describe these features.
    """
    num_tiles, num_patches, num_channels = features.shape
    side = round(num_patches**0.5)
    counts = [group.layout.num_tiles * len(group.frame_idxs) for group in groups]
    if sum(counts) != num_tiles or side * side != num_patches:
        raise ValueError(f"features {tuple(features.shape)} for {sum(counts)} tiles.")
    rows = features.new_empty(sum(group.num_rows for group in groups), num_channels)
    for group, part in zip(groups, torch.split(features, counts), strict=True):
        maps = part.view(len(group.frame_idxs), -1, side, side, num_channels)
        group.layout.pool(maps, group.rows_of(rows), gelu=gelu)
    return rows
