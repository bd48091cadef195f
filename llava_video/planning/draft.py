"""A plan on its way: what it is, whether anything was given up, and how it compares with another.

Knows neither how drafts are made nor what becomes of them.
"""

from dataclasses import dataclass, replace

from llava_video.planning.budget import Limit
from llava_video.values import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A plan within one limit.

    Attributes:
        plan: what would be done.
        limit: what it was made within.
        is_whole: whether every video got the frames and the layout it wanted.
    """

    plan: Plan
    limit: Limit
    is_whole: bool

    @property
    def num_frames(self) -> int:
        """Frames of all videos."""
        return sum(visual.num_frames for visual in self.plan.visuals if visual.kind == "video")

    def saying(self, *reasons: str, warnings: tuple[str, ...] = ()) -> "Draft":
        """Return the draft with more reasons and warnings."""
        plan = replace(
            self.plan,
            reasons=(*self.plan.reasons, *reasons),
            warnings=(*self.plan.warnings, *warnings),
        )
        return replace(self, plan=plan)

    def shows_as(self, other: "Draft") -> bool:
        """Say whether both show the model the same: frames, grids and pool strides."""
        mine, theirs = (
            [(v.grid, v.pool_stride, v.num_frames) for v in draft.plan.visuals]
            for draft in (self, other)
        )
        return mine == theirs


def wider_words(wider: Draft, draft: Draft) -> str:
    """Say in words what a draft shows, beside one that shows less.

    "all 512 frames at pool stride 2", "400 frames".
    """
    pairs = [
        (mine, theirs)
        for mine, theirs in zip(wider.plan.visuals, draft.plan.visuals, strict=True)
        if mine.kind == "video"
    ]
    words = f"{'all ' if wider.is_whole else ''}{wider.num_frames:,} frame"
    words += "s"[: wider.num_frames != 1]
    if len(pairs) == 1 and pairs[0][0].grid != pairs[0][1].grid:
        words += f" of {pairs[0][0].grid.rows} x {pairs[0][0].grid.cols} tiles"
    if any(mine.pool_stride != theirs.pool_stride for mine, theirs in pairs):
        strides = sorted({mine.pool_stride for mine, _ in pairs})
        words += f" at pool stride{'s'[: len(strides) > 1]} {' and '.join(map(str, strides))}"
    return words
