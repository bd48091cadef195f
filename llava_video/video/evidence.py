"""Clips on their way to the model → what was really seen: times, thumbnails, and doubts.

Passes every clip through unchanged. Knows neither where clips come from nor where they go; holds
at most 64 thumbnails and one frame.
"""

import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from PIL import Image

from llava_video.values import Clip, FrameRef, Segment
from llava_video.video.clips import Frame

_MAX_THUMBNAILS = 64
_THUMBNAIL_WIDTH_PX = 160
# Black after compression is not all zeros; no lit scene stays below this anywhere.
_BLACK_LEVEL = 16
# A still picture after compression differs by this much from frame to frame, not more.
_STILL_LEVELS = 2
_SAME = "All N frames show the same picture."
_IS_SAME = re.compile(_SAME.replace("N", r"\d+").replace(".", r"\."))

Judge = Callable[[Frame], str]


class Evidence:
    """What was seen of one video or picture.

    Args:
        num_frames: frames that were planned, repeats included.
    """

    def __init__(self, num_frames: int) -> None:
        self._num_planned = num_frames
        picks = np.linspace(0, num_frames - 1, min(num_frames, _MAX_THUMBNAILS))
        self._picks = frozenset(np.rint(picks).astype(int).tolist())
        self._forget()

    @classmethod
    def recalled(cls, frames: Sequence[FrameRef], thumbnails: Sequence[Frame] = ()) -> "Evidence":
        """Return the evidence of frames that were seen earlier and are not here.

        Args:
            frames: all of them, in order.
            thumbnails: of `thumbnail`, one per frame and all of one size; () where none was kept.
        """
        evidence = cls(len(frames))
        evidence._frames = list(frames)
        for idx, (ref, picture) in enumerate(zip(frames, thumbnails, strict=False)):
            if idx in evidence._picks:
                evidence._thumbnails.append(picture)
                evidence._thumbnail_times_s.append(ref.pts_s)
        evidence._all_black = evidence._all_same = False
        return evidence

    @property
    def frames(self) -> tuple[FrameRef, ...]:
        """The frames that passed, in order."""
        return tuple(self._frames)

    @property
    def thumbnails(self) -> Frame | None:
        """(N, h, w, 3) uint8, N <= 64, evenly chosen from the planned frames; None without any."""
        return np.stack(self._thumbnails) if self._thumbnails else None

    @property
    def thumbnail_times_s(self) -> tuple[float, ...]:
        """The thumbnails' times, s."""
        return tuple(self._thumbnail_times_s)

    def watch(self, clips: Iterator[Clip]) -> Iterator[Clip]:
        """Yield the clips as they come, and note what is in them; starts from nothing."""
        self._forget()
        for clip in clips:
            for frame, pts_s, frame_idx in zip(
                clip.frames, clip.pts_s.tolist(), clip.frame_idxs.tolist(), strict=True
            ):
                self._note(frame, FrameRef(frame_idx, pts_s))
            yield clip

    def warnings(self) -> tuple[str, ...]:
        """Say what a reader of the answer should know, one sentence each."""
        num_seen = len(self._frames)
        if num_seen == 0:
            return ("No frame was seen: the answer rests on nothing.",)
        found = []
        if num_seen < self._num_planned:
            found.append(f"Only {num_seen} of {self._num_planned} planned frames were seen.")
        if self._all_black:
            found.append("Every frame is black." if num_seen > 1 else "The frame is black.")
        elif num_seen > 1 and self._all_same:
            found.append(_SAME.replace("N", str(num_seen)))
        return tuple(found)

    def verdict(self, judge: Judge) -> str:
        """Return what a judge says of the thumbnails, "" without any; it looks at them once."""
        if judge not in self._verdicts:
            thumbnails = self.thumbnails
            self._verdicts[judge] = "" if thumbnails is None else judge(thumbnails)
        return self._verdicts[judge]

    def coverage(
        self, planned_idxs: Sequence[int], planned_times_s: Sequence[float], end_s: float
    ) -> tuple[Segment, ...]:
        """Return the spans the seen frames stand for, s.

        A planned frame stands for the time up to the next planned one, the last for the time up to
        `end_s`; frames that were planned and not seen leave gaps.

        Args:
            planned_idxs: the planned frames' indices, ascending.
            planned_times_s: their times, s.
            end_s: end of the planned span, s.
        """
        seen = {ref.frame_idx for ref in self._frames}
        spans: list[Segment] = []
        ends_s = [*planned_times_s[1:], end_s] if planned_times_s else []
        for idx, start_s, stop_s in zip(planned_idxs, planned_times_s, ends_s, strict=True):
            if idx not in seen:
                continue
            if spans and spans[-1].end_s == start_s:
                start_s = spans.pop().start_s
            spans.append(Segment(start_s, stop_s))
        return tuple(spans)

    def _forget(self) -> None:
        self._frames: list[FrameRef] = []
        self._thumbnails: list[Frame] = []
        self._thumbnail_times_s: list[float] = []
        self._verdicts: dict[Judge, str] = {}
        self._first: Frame | None = None
        self._all_black = self._all_same = True

    def _note(self, frame: Frame, ref: FrameRef) -> None:
        if len(self._frames) in self._picks:
            self._thumbnails.append(thumbnail(frame, self._thumbnails))
            self._thumbnail_times_s.append(ref.pts_s)
        self._frames.append(ref)
        # Once a frame has light or moves, no later one is looked at.
        self._all_black = self._all_black and int(frame.max()) < _BLACK_LEVEL
        if self._first is None:
            self._first = frame.copy()
        elif self._all_same:
            self._all_same = _same(self._first, frame)


def _same(one: Frame, other: Frame) -> bool:
    if one.shape != other.shape:
        return False
    # In uint8, without a signed copy.
    return int((np.maximum(one, other) - np.minimum(one, other)).max()) <= _STILL_LEVELS


def thumbnail(frame: Frame, earlier: Sequence[Frame] = ()) -> Frame:
    """Return a small picture of a frame, (h, w, 3) uint8, at most 160 px wide.

    Args:
        frame: (H, W, 3) uint8.
        earlier: pictures of the same sheet, whose size it takes.
    """
    height_px, width_px = frame.shape[:2]
    if earlier:  # one sheet, one size
        shown_height_px, shown_width_px = earlier[0].shape[:2]
    else:
        shown_width_px = min(_THUMBNAIL_WIDTH_PX, width_px)
        shown_height_px = max(1, round(height_px * shown_width_px / width_px))
    picture = Image.fromarray(np.ascontiguousarray(frame))
    size = (shown_width_px, shown_height_px)
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))


def is_of_sameness(warning: str) -> bool:
    """Say whether a warning is that all frames show the same picture.

    >>> is_of_sameness("All 8 frames show the same picture."), is_of_sameness("The frame is black.")
    (True, False)

    Args:
        warning: of `Evidence.warnings`.
    """
    return _IS_SAME.fullmatch(warning) is not None
