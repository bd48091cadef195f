"""Frames of a stream → windows that roll over it, and what came before an event.

A ring of frames bounded by time and by bytes, so that a year takes no more memory than a minute.
The clock is the frames' own and the caller's; knows no stream and no question.
"""

import math
from collections import deque
from dataclasses import dataclass, field

from llava_video.monitor.scene_settings import WindowSettings
from llava_video.video.stream_events import Mark, StreamFrame

# Marks that one window tells of; a flickering camera makes no more of them than it can.
_MOST_MARKS = 100


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Window:
    """A span of a stream, complete.

    Attributes:
        idx: its number; windows begin step_s apart, until a cut. Numbers without a frame are left
            out.
        start_s: on the stream's clock.
        end_s: on the stream's clock, exclusive.
        frames: at least one, in order.
        marks: what befell the stream since the window before this one was complete.
        num_let_go: frames of it that did not fit into memory.
    """

    idx: int
    start_s: float
    end_s: float
    frames: tuple[StreamFrame, ...] = field(repr=False)
    marks: tuple[Mark, ...] = ()
    num_let_go: int = 0

    @property
    def start_wall_s(self) -> float:
        """When its first frame came, seconds since 1970."""
        return self.frames[0].wall_s

    @property
    def end_wall_s(self) -> float:
        """When its last frame came, seconds since 1970."""
        return self.frames[-1].wall_s


class RollingWindows:
    """Cuts one stream.

    Args:
        settings: lengths and room.

    Attributes:
        num_let_go: frames that were let go though a window still wanted them.
        held_bytes: what held pictures take.
    """

    def __init__(self, settings: WindowSettings) -> None:
        self._settings = settings
        self._held_s = max(settings.length_s + settings.step_s, settings.before_s)
        self._frames: deque[StreamFrame] = deque()
        self._let_go_s: deque[float] = deque()
        self._marks: deque[Mark] = deque(maxlen=_MOST_MARKS)
        self._next = 0
        # Windows start at this and so many steps; a cut moves it, so that no frame falls between.
        self._origin_s = 0.0
        self._was_cut = False
        self._now_s = -math.inf
        self.num_let_go = self.held_bytes = 0

    def add(self, frame: StreamFrame) -> list[Window]:
        """Take the next frame in, and return the windows that are complete with it.

        Args:
            frame: its pts_s is more than that of the frame before.
        """
        if self._was_cut:
            self._was_cut = False
            self._origin_s += min(0.0, frame.pts_s - self._start_s(self._next))
        done = self.advance(frame.pts_s)
        self._frames.append(frame)
        self.held_bytes += frame.picture.nbytes
        while self.held_bytes > self._settings.most_bytes and len(self._frames) > 1:
            oldest = self._pop()
            if oldest.pts_s >= self._start_s(self._next):
                self._let_go_s.append(oldest.pts_s)
                self.num_let_go += 1
        return done

    def note(self, mark: Mark) -> None:
        """Keep what befell the stream, for the window that is complete next."""
        self._marks.append(mark)

    def cut(self) -> list[Window]:
        """Return every window with a frame as it is: nobody knows when the next one comes.

        The next window begins with the next frame where that comes before the next step.
        """
        if not self._frames:
            return []
        done = self.advance(self._frames[-1].pts_s + self._settings.length_s)
        self._was_cut = True
        return done

    def advance(self, now_s: float) -> list[Window]:
        """Return the windows that are over by now; a stream that is silent completes its own so.

        Args:
            now_s: on the stream's clock; earlier than before says nothing.
        """
        self._now_s = max(self._now_s, now_s)
        length_s = self._settings.length_s
        done: list[Window] = []
        while (start_s := self._start_s(self._next)) + length_s <= self._now_s:
            window = self._cut(start_s, start_s + length_s)
            if window is not None:
                done.append(window)
                self._next += 1
            else:
                self._skip()
        self._forget()
        return done

    def recent(self, seconds: float, until_s: float = math.inf) -> tuple[StreamFrame, ...]:
        """Return the frames that are held of the time before a moment, as evidence.

        Args:
            seconds: how long before; what is older than `before_s` may be gone.
            until_s: the moment, on the stream's clock, itself included; inf is the last frame.
        """
        if not self._frames:
            return ()
        until_s = min(until_s, self._frames[-1].pts_s)
        return tuple(f for f in self._frames if until_s - seconds <= f.pts_s <= until_s)

    def _cut(self, start_s: float, end_s: float) -> Window | None:
        frames = tuple(frame for frame in self._frames if start_s <= frame.pts_s < end_s)
        if not frames:
            return None
        marks = tuple(self._marks)
        self._marks.clear()
        num_let_go = sum(start_s <= pts_s < end_s for pts_s in self._let_go_s)
        return Window(
            idx=self._next,
            start_s=start_s,
            end_s=end_s,
            frames=frames,
            marks=marks,
            num_let_go=num_let_go,
        )

    def _skip(self) -> None:
        """Go to the next window that may hold a frame, over an hour's hole in one step."""
        length_s, step_s = self._settings.length_s, self._settings.step_s
        start_s = self._start_s(self._next)
        ahead = next((f.pts_s for f in self._frames if f.pts_s >= start_s), self._now_s)
        # The first window that ends behind that moment.
        behind = math.floor((ahead - self._origin_s - length_s) / step_s) + 1
        self._next = max(self._next + 1, behind)

    def _forget(self) -> None:
        """Let go what neither a window to come nor the time before an event wants."""
        wanted_s = min(self._start_s(self._next), self._now_s - self._held_s)
        wanted_s = max(wanted_s, self._now_s - self._held_s)
        while len(self._frames) > 1 and self._frames[0].pts_s < wanted_s:
            self._pop()
        while self._let_go_s and self._let_go_s[0] < self._start_s(self._next):
            self._let_go_s.popleft()

    def _start_s(self, idx: int) -> float:
        return self._origin_s + idx * self._settings.step_s

    def _pop(self) -> StreamFrame:
        frame = self._frames.popleft()
        self.held_bytes -= frame.picture.nbytes
        return frame
