"""One video and its room → the layout, frames and time sentence that fit, and what was given up.

The order is fixed: the grid becomes coarser until it is one tile, then the pool stride grows to 4,
then frames go. The steps do not depend on the room, so more room never gives a coarser plan. Frames
that are fused with the prompt have one layout only. Knows nothing of the prompt but what a time
sentence costs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

from llava_video.errors import BudgetError, ConfigError
from llava_video.plan_table import ordinal
from llava_video.planning.budget import Limit, Room
from llava_video.planning.geometry import Geometry
from llava_video.planning.grid import coarser_grids
from llava_video.planning.layout import (
    ONE_TILE,
    Layout,
    layout_tokens,
    refuse_knobs,
    video_layout,
)
from llava_video.planning.sampler import Sample, thin
from llava_video.planning.settings import PlanningSettings
from llava_video.planning.time_note import TimeNote
from llava_video.values import Grid

COARSEST_STRIDE = 4
_LAYOUT_KNOBS = ("grid", "detail", "pool_stride", "pool_mode", "newline")

NoteCost = Callable[[TimeNote], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What one video becomes, and in `reasons` what was chosen or given up for it.

    `is_whole` says that nothing was: all frames in the layout that was wanted.
    """

    layout: Layout
    sample: Sample
    note: TimeNote | None
    is_whole: bool
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]


def layout_steps(
    height_px: int, width_px: int, geometry: Geometry, planning: PlanningSettings
) -> tuple[Layout, ...]:
    """List the layouts a video may get, the wanted one first, each with fewer tokens than before.

    Args:
        height_px: of the frames as shown.
        width_px: of the frames as shown.
        geometry: the model.
        planning: the user's knobs; a pinned one is the same in all steps.

    Raises:
        ConfigError: the wanted layout is impossible for this model.
    """
    if geometry.compressed_side:
        refuse_knobs(geometry, **{name: getattr(planning, name) for name in _LAYOUT_KNOBS})
        return (video_layout(height_px, width_px, geometry),)
    grids = _grids(height_px, width_px, geometry, planning)
    stride = wanted_stride(geometry, planning)
    wanted = [(grid, stride) for grid in grids]
    if planning.pool_stride is None:
        wanted += [(grids[-1], coarser) for coarser in range(stride + 1, COARSEST_STRIDE + 1)]

    def layout_of(grid: Grid, pool_stride: int) -> Layout:
        return video_layout(
            height_px,
            width_px,
            geometry,
            grid=grid,
            pool_stride=pool_stride,
            pool_mode=planning.pool_mode,
            newline=planning.newline,
        )

    steps = [layout_of(*wanted[0])]
    for grid, pool_stride in wanted[1:]:
        try:
            layout = layout_of(grid, pool_stride)
        except ConfigError:  # pooling would leave nothing of so small a map
            continue
        if layout_tokens(layout, 1) < layout_tokens(steps[-1], 1):
            steps.append(layout)
    return tuple(steps)


def wanted_stride(geometry: Geometry, planning: PlanningSettings) -> int:
    """Return the pool stride of a video's maps when nothing is given up."""
    stride = planning.pool_stride or geometry.pool_stride
    return max(stride, COARSEST_STRIDE) if planning.detail == "low" else stride


def fit_video(
    sample: Sample,
    steps: tuple[Layout, ...],
    room: Room,
    note_cost: NoteCost | None,
    *,
    is_trained: bool = True,
) -> Choice:
    """Choose the first step at which all frames fit; at the last one, as many frames as fit.

    Args:
        sample: the frames wanted.
        steps: from `layout_steps`.
        room: tokens this video may take.
        note_cost: tokens a time sentence adds to the prompt; None when there is none.
        is_trained: whether the model saw videos in training, of one tile per frame.

    Raises:
        BudgetError: not even one frame of the last step fits.
    """
    trial = _Trial(sample, room, note_cost, is_trained=is_trained)
    for layout in steps:
        if trial.fits(layout, sample.num_frames):
            return trial.choice(steps, layout, sample.num_frames)
    coarsest = steps[-1]
    if not trial.fits(coarsest, 1):
        raise trial.refusal(coarsest)
    # Bisection rather than the greatest count: of two rooms, the larger one goes up at the first
    # answer that differs, so the result cannot shrink even where a sentence has odd lengths.
    low, high = 1, sample.num_frames
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if trial.fits(coarsest, middle) else (low, middle)
    return trial.choice(steps, coarsest, low)


def whole_note(sample: Sample) -> TimeNote:
    """Return the time sentence of a sample that lists every time."""
    return TimeNote(
        duration_s=sample.duration_s, num_frames=sample.num_frames, times_s=sample.times_s
    )


class _Trial:
    """One video against one room; time sentences are counted once each."""

    def __init__(
        self, sample: Sample, room: Room, note_cost: NoteCost | None, *, is_trained: bool
    ) -> None:
        self._sample = sample
        self._room = room
        self._note_cost = note_cost
        self._is_trained = is_trained
        self._cost_of = cache(self._cost)

    def fits(self, layout: Layout, num_frames: int) -> bool:
        visual_tokens = layout_tokens(layout, num_frames)
        if self._room.visual_tokens is not None and visual_tokens > self._room.visual_tokens:
            return False
        if visual_tokens > self._room.total_tokens:
            return False  # spares the tokenizer a long sentence
        return visual_tokens + self._reserve_tokens(num_frames) <= self._room.total_tokens

    def choice(self, steps: tuple[Layout, ...], layout: Layout, num_frames: int) -> Choice:
        sample = thin(self._sample, num_frames)
        every = self._every(num_frames)
        note = None if self._note_cost is None else self._note(num_frames, every)
        reasons = [*self._sample.reasons, *_tiles_reason(layout, is_trained=self._is_trained)]
        reasons += self._sacrifices(steps, layout, num_frames)
        if every > 1:
            reasons.append(
                f"The time sentence lists every {ordinal(every)} time: all {num_frames} cost "
                f"{self._cost_of(num_frames, 1):,} tokens, its share is {self._room.note_tokens:,}."
            )
        warnings = [*self._sample.warnings]
        if 2 * num_frames < self._sample.num_frames:
            warnings.append(
                f"Only {num_frames} of {self._sample.num_frames} chosen frames fit the budget."
            )
        is_whole = layout == steps[0] and num_frames == self._sample.num_frames
        if sample.compat == "reference" and not is_whole:
            warnings.append("The budget changed the layout or the frames of the reference.")
        return Choice(
            layout=layout,
            sample=sample,
            note=note,
            is_whole=is_whole,
            reasons=tuple(reasons),
            warnings=tuple(warnings),
        )

    def refusal(self, layout: Layout) -> BudgetError:
        """Say what one frame needs and what there is."""
        need_tokens, have_tokens = layout_tokens(layout, 1), self._room.visual_tokens
        if have_tokens is not None and need_tokens > have_tokens:
            found = f"{need_tokens:,} visual tokens, max_video_tokens leaves it {have_tokens:,}"
        else:
            need_tokens += self._reserve_tokens(1)
            have_tokens = self._room.total_tokens
            sentence = " with its time sentence" if self._note_cost else ""
            found = (
                f"{need_tokens:,} tokens{sentence}, the rest of the prompt and the answer leave "
                f"{have_tokens:,}{self._room.limit.note(have_tokens)}"
            )
        return BudgetError(
            f"one frame{_layout_words(layout)} needs {found}.",
            need_tokens=need_tokens,
            have_tokens=have_tokens,
        )

    def _sacrifices(
        self, steps: tuple[Layout, ...], layout: Layout, num_frames: int
    ) -> Iterator[str]:
        wanted, asked = steps[0], self._sample.num_frames
        given_up: list[tuple[str, Layout]] = []
        if layout.grid != wanted.grid:
            grids = f"{_grid_words(wanted.grid)} → {_grid_words(layout.grid)}"
            given_up.append((f"Grid {grids}", wanted))
        if layout.pool_stride != wanted.pool_stride:
            before = next(step for step in steps if step.grid == layout.grid)
            given_up.append((f"Pool stride {wanted.pool_stride} → {layout.pool_stride}", before))
        if num_frames < asked:
            given_up.append((f"Frames {asked} → {num_frames}", layout))
        needed_tokens = [layout_tokens(before, asked) for _, before in given_up]
        free_tokens = self._free_tokens(min(needed_tokens, default=0), asked)
        is_cap = free_tokens == self._room.visual_tokens
        note = Limit(tokens=0).note if is_cap else self._room.limit.note
        for (change, _), need_tokens in zip(given_up, needed_tokens, strict=True):
            need = note(need_tokens)
            yield (
                f"{change}: {asked} frames would take {need_tokens:,} tokens{need}, "
                f"{free_tokens:,}{note(free_tokens)} are free."
            )

    def _free_tokens(self, need_tokens: int, num_frames: int) -> int:
        """Return the room that was too small; the time sentence counts where that decides."""
        free_tokens = self._room.total_tokens
        if self._room.visual_tokens is not None and need_tokens > self._room.visual_tokens:
            return min(free_tokens, self._room.visual_tokens)
        if need_tokens > free_tokens:
            return free_tokens
        return max(0, free_tokens - self._reserve_tokens(num_frames))

    def _reserve_tokens(self, num_frames: int) -> int:
        """Return the tokens kept free for the time sentence.

        All times if they stay within the share, else the share (or the shortest sentence where even
        that is longer). Grows by at most the room's own growth, so more room never fits less.
        """
        if self._note_cost is None:
            return 0
        whole_tokens = self._cost_of(num_frames, 1)
        share_tokens = self._room.note_tokens
        if whole_tokens <= share_tokens:
            return whole_tokens
        least_tokens = self._cost_of(num_frames, num_frames)
        return min(whole_tokens, max(share_tokens, least_tokens))

    def _every(self, num_frames: int) -> int:
        """Return the least k for which a sentence of every k-th time stays within its reserve."""
        if self._note_cost is None:
            return 0
        reserve_tokens = self._reserve_tokens(num_frames)
        if self._cost_of(num_frames, 1) <= reserve_tokens:
            return 1
        low, high = 1, num_frames
        while high - low > 1:
            middle = (low + high) // 2
            fits = self._cost_of(num_frames, middle) <= reserve_tokens
            low, high = (low, middle) if fits else (middle, high)
        return high

    def _cost(self, num_frames: int, every: int) -> int:
        return self._note_cost(self._note(num_frames, every)) if self._note_cost else 0

    def _note(self, num_frames: int, every: int) -> TimeNote:
        return replace(whole_note(thin(self._sample, num_frames)), every=every)


def _grids(
    height_px: int, width_px: int, geometry: Geometry, planning: PlanningSettings
) -> list[Grid]:
    if isinstance(planning.grid, Grid):
        return [planning.grid]
    if planning.grid != "auto" and planning.detail != "high":
        return [ONE_TILE]
    grids = coarser_grids(height_px, width_px, geometry.canvases, geometry.tile_px)
    return [*grids, ONE_TILE]


def _tiles_reason(layout: Layout, *, is_trained: bool) -> Iterator[str]:
    if layout.grid != ONE_TILE and is_trained and not layout.is_fused:
        yield (
            f"{_grid_words(layout.grid).capitalize()} and an overview per frame: finer than the "
            "one tile that videos are trained with."
        )


def _layout_words(layout: Layout) -> str:
    if layout.is_fused:
        return ""
    return f" of {_grid_words(layout.grid)} at pool stride {layout.pool_stride}"


def _grid_words(grid: Grid) -> str:
    return "one tile" if grid == ONE_TILE else f"{grid.rows} x {grid.cols} tiles"
