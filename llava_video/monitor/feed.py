"""The events of one camera → windows whose pictures are numbered by what they show.

Puts the change gate before the rolling windows, so that what a window shows is known before anybody
asks about it, and keeps what came before an event as its evidence. Knows no queue and no question.
"""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from llava_video.monitor.gate import ChangeGate
from llava_video.monitor.reuse import contents_of
from llava_video.monitor.scene_settings import WindowSettings
from llava_video.monitor.settings import CameraSettings
from llava_video.monitor.windows import RollingWindows, Window
from llava_video.video.stream_events import Mark, StreamFrame

Frames = npt.NDArray[np.uint8]

_MOST_BYTES = WindowSettings().most_bytes
# After these nothing comes for a while: a window that waits for its end is told as it is.
_SILENT = ("lost", "stalled", "ended")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WindowJob:
    """A window that is to be judged.

    Attributes:
        camera: whose.
        window_idx: its number.
        start_s: where it begins, wall clock, s since 1970.
        at_s: where it ends.
        pictures: what stands for its frames, one for each: equal contents are equal pixels.
        frames: as they came, with what the gate finds too small or too faint; no copies.
        times_s: on the stream's clock.
        contents: what it shows, of `reuse.contents_of`.
        last: its last frame as it came, for the snapshot.
        end_pts_s: where it ends on the stream's clock.
        num_let_go: frames of it that memory had no room for.
    """

    camera: str
    window_idx: int
    start_s: float
    at_s: float
    pictures: Sequence[Frames] = field(repr=False)
    frames: Sequence[Frames] = field(repr=False)
    times_s: tuple[float, ...]
    contents: tuple[int, ...]
    last: StreamFrame = field(repr=False)
    end_pts_s: float
    num_let_go: int = 0


class CameraFeed:
    """Takes one camera's frames in; `evidence` may be asked for from another thread.

    Args:
        camera: its windows and its gate.
        before_s: what is held of the time before a window, s.
        num_waiting: windows that may wait for the model. A window's evidence is asked for when it
            has waited as long and was judged, so pictures of so many more steps, and one, are held.
        most_bytes: what held pictures may take; the oldest go.

    Attributes:
        num_frames: frames taken.
        num_new: of them, those that showed something new.
    """

    def __init__(
        self,
        camera: CameraSettings,
        before_s: float = 10.0,
        *,
        num_waiting: int = 0,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        self._camera = camera
        self._before_s = before_s
        held_s = before_s + camera.window_s + (num_waiting + 1) * camera.step_s
        self._windows = RollingWindows(
            WindowSettings(
                length_s=camera.window_s,
                step_s=camera.step_s,
                before_s=held_s,
                most_bytes=most_bytes,
            )
        )
        self._gate = ChangeGate(camera.gate)
        self._looked: dict[int, tuple[int, Frames]] = {}
        self._guard = threading.Lock()
        self.num_frames = self.num_new = 0

    @property
    def held_bytes(self) -> int:
        """What held pictures take."""
        return self._windows.held_bytes

    def take(self, event: StreamFrame | Mark) -> list[WindowJob]:
        """Take what came next, and return the windows that are complete with it."""
        with self._guard:
            if isinstance(event, Mark):
                self._windows.note(event)
                return self._jobs(self._windows.cut()) if event.kind in _SILENT else []
            change = self._gate.look(event.picture)
            self.num_frames += 1
            self.num_new += change.is_new
            self._looked[event.idx] = change.content, change.picture
            jobs = self._jobs(self._windows.add(event))
            self._forget()
            return jobs

    def finish(self) -> list[WindowJob]:
        """Return the windows that wait for their end, as they are."""
        with self._guard:
            return self._jobs(self._windows.cut())

    def evidence(self, job: WindowJob, most: int) -> tuple[Frames, tuple[float, ...]]:
        """Return frames of a window and of the time before it, as they came.

        Args:
            job: the window.
            most: so many, evenly, the last one always.

        Returns:
            (N, H, W, 3) uint8 and N wall-clock times; the last frame alone where the rest is gone.
        """
        with self._guard:
            held_s = self._before_s + self._camera.window_s
            found = list(self._windows.recent(held_s, job.end_pts_s)) or [job.last]
        shown = [one for one in found if one.picture.shape == job.last.picture.shape] or [job.last]
        num = min(most, len(shown))
        idxs = [(len(shown) - 1) * k // (num - 1) for k in range(num)] if num > 1 else [-1]
        chosen = [shown[idx] for idx in idxs]
        return np.stack([one.picture for one in chosen]), tuple(one.wall_s for one in chosen)

    def _jobs(self, windows: list[Window]) -> list[WindowJob]:
        jobs = [self._job(window) for window in windows]
        if windows:  # no later window begins before this one
            first = windows[-1].frames[0].idx
            self._looked = {idx: one for idx, one in self._looked.items() if idx >= first}
        return jobs

    def _forget(self) -> None:
        """Let go of what was seen in frames that are held no more, for want of room."""
        oldest = self._windows.recent(math.inf)[0].idx
        if next(iter(self._looked)) < oldest:
            self._looked = {idx: one for idx, one in self._looked.items() if idx >= oldest}

    def _job(self, window: Window) -> WindowJob:
        first, last = window.frames[0], window.frames[-1]
        looked = [self._looked[frame.idx] for frame in window.frames]
        return WindowJob(
            camera=self._camera.name,
            window_idx=window.idx,
            start_s=first.wall_s - (first.pts_s - window.start_s),
            at_s=last.wall_s + (window.end_s - last.pts_s),
            pictures=[picture for _, picture in looked],
            frames=[frame.picture for frame in window.frames],
            times_s=tuple(frame.pts_s for frame in window.frames),
            contents=contents_of(content for content, _ in looked),
            last=last,
            end_pts_s=window.end_s,
            num_let_go=window.num_let_go,
        )


def stacked(pictures: Sequence[Frames]) -> Frames:
    """Return pictures as one clip; those of another size than the last are scaled to it.

    A camera that changes its resolution within a window does not cost what came before.

    Args:
        pictures: (H, W, 3) uint8 each, one or more.
    """
    height_px, width_px, _ = pictures[-1].shape
    return np.stack([_scaled(picture, height_px, width_px) for picture in pictures])


def _scaled(picture: Frames, height_px: int, width_px: int) -> Frames:
    if picture.shape[:2] == (height_px, width_px):
        return picture
    from PIL import Image  # costs 30 ms that a camera of one size need not pay

    scaled = Image.fromarray(picture).resize((width_px, height_px), Image.Resampling.BILINEAR)
    return np.asarray(scaled, dtype=np.uint8)
