"""What a stream's process says of its pictures → frames and marks, each mark once.

Joins the clocks of one connection after the other into one that only grows, and notices what
changed from picture to picture. Knows no process and waits for nothing.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from llava_video.video.settings import StreamSettings
from llava_video.video.stream_events import Mark, MarkKind, StreamCounts, StreamFrame
from llava_video.video.stream_process import News
from llava_video.video.stream_queue import StreamQueue

# A picture's least distance from the one before it, over a reconnection.
_LEAST_STEP_S = 1e-3
# Damage comes in showers: it is told once in a while, with how much there was.
_DAMAGE_EVERY_S = 10.0
_ODD_WORDS: dict[MarkKind, str] = {
    "gap": "{:.1f} s are missing in its own time.",
    "jumped": "its clock was set by {:+.1f} s; times go on evenly.",
    "late": "pictures come {:.1f} s late.",
}
_STOOD_WORDS = "its clock stands still; times go on by the wall clock."
_COUNTED = ("decoded", "damaged", "repeated")


class Teller:
    """Makes events of what the process says, and puts them into a queue.

    Args:
        settings: from when on something is told.
        queue: takes them.
        wall_of: (news' values, pts_s) -> seconds since 1970 that its frame gets.

    Attributes:
        frame: where the last frame stands: (pts_s, wall_s, seconds on a clock nobody sets); None
            before the first.
        lag_s: how late it was.
        size_px: (height, width) of it.
        num_taken: frames so far.
        num_connections: connections that brought one.
    """

    def __init__(
        self,
        settings: StreamSettings,
        queue: StreamQueue,
        wall_of: Callable[[Mapping[str, Any], float], float],
    ) -> None:
        self._settings, self._queue, self._wall_of = settings, queue, wall_of
        self.frame: tuple[float, float, float] | None = None
        self.lag_s = 0.0
        self.size_px = (0, 0)
        self.num_taken = self.num_connections = 0
        self._base_s: float | None = None
        self._is_new = False
        self._same_since_s = 0.0
        self._is_frozen = False
        self._total, self._seen = dict.fromkeys(_COUNTED, 0), dict.fromkeys(_COUNTED, 0)
        # Of the connection: pictures that its process had no room for, and those told of.
        self._num_unroomed = self._unroomed_told = 0
        self._damage_told = 0
        self._damage_told_s = -math.inf

    def begin(self) -> None:
        """Say that a new connection begins: its clock and its counts start anew."""
        self._base_s = None
        self._seen = dict.fromkeys(_COUNTED, 0)
        self._num_unroomed = self._unroomed_told = 0

    def mark(self, kind: MarkKind, wall_s: float, text: str, **more: Any) -> None:
        """Put a mark where the stream stands."""
        pts_s = math.nan if self.frame is None else self.frame[0]
        self._queue.put(Mark(kind=kind, wall_s=wall_s, pts_s=pts_s, text=text, **more))

    def count(self, values: Mapping[str, Any], wall_s: float, *, is_last: bool = False) -> None:
        """Take the counts that stand in a message; tell of damage now and then.

        Pictures that found no room are told of before the next one, or here when none comes.

        Args:
            values: of the message.
            wall_s: now.
            is_last: nothing more comes of this connection.
        """
        for name in _COUNTED:
            now = int(values.get(name, self._seen[name]))
            self._total[name] += now - self._seen[name]
            self._seen[name] = now
        self._num_unroomed = int(values.get("unroomed", self._num_unroomed))
        num_new = self._total["damaged"] - self._damage_told
        if num_new and (is_last or wall_s - self._damage_told_s >= _DAMAGE_EVERY_S):
            self._damage_told, self._damage_told_s = self._total["damaged"], wall_s
            text = f"{num_new} pieces of it could not be decoded."
            self.mark("damaged", wall_s, text, num_frames=num_new)
        if is_last:
            self._tell_unroomed(wall_s, math.nan if self.frame is None else self.frame[0])

    def tell(self, news: News) -> None:
        """Put a picture into the queue, and before it what befell the stream since the last one.

        Raises:
            KeyError, TypeError, ValueError: the message does not make sense.
        """
        values, picture = news.values, news.picture
        if picture is None:
            raise ValueError("a frame without a picture")
        pts_s, now_s = self._placed(values), float(values["now_s"])
        wall_s = self._wall_of(values, pts_s)
        self._tell_connection(values, wall_s, now_s)
        size_px = (picture.shape[0], picture.shape[1])
        if self.frame is not None and size_px != self.size_px:
            text = "its pictures were {1}x{0} and are {3}x{2} px.".format(*self.size_px, *size_px)
            self.mark("resized", wall_s, text)
        for kind, seconds in values["odd"]:
            if kind in _ODD_WORDS:
                stood = kind == "jumped" and seconds == 0
                text = _STOOD_WORDS if stood else _ODD_WORDS[kind].format(seconds)
                self.mark(kind, wall_s, text, seconds=float(seconds))
        self._tell_frozen(bool(values["is_same"]), pts_s, wall_s)
        self.count(values, wall_s)
        self._tell_unroomed(wall_s, pts_s)
        self.frame, self.size_px = (pts_s, wall_s, now_s), size_px
        self.lag_s = float(values["lag_s"])
        idx, self.num_taken = self.num_taken, self.num_taken + 1
        self._queue.put(StreamFrame(idx=idx, picture=picture, pts_s=pts_s, wall_s=wall_s))

    def counts(self, failed_tries: int, killed: int) -> StreamCounts:
        """Return what became of the pictures so far."""
        return StreamCounts(
            taken=self.num_taken,
            delivered=self._queue.num_delivered,
            dropped=self._queue.num_dropped,
            connections=self.num_connections,
            failed_tries=failed_tries,
            killed=killed,
            **self._total,
        )

    def _placed(self, values: Mapping[str, Any]) -> float:
        """Return where a picture stands on the clock of all connections."""
        own_s = float(values["pts_s"])
        if not math.isfinite(own_s):
            raise ValueError("a picture without a time")
        if self._base_s is None:
            if self.frame is None:
                self._base_s = -own_s
            else:
                passed_s = float(values["now_s"]) - self.frame[2]
                self._base_s = self.frame[0] + max(passed_s, _LEAST_STEP_S) - own_s
            self._is_new = True
        return self._base_s + own_s

    def _tell_connection(self, values: Mapping[str, Any], wall_s: float, now_s: float) -> None:
        if not self._is_new:
            return
        self._is_new = False
        self.num_connections += 1
        if self.frame is None:
            self.mark("opened", wall_s, "its first picture is here.")
        else:
            away_s = now_s - self.frame[2]
            text = f"pictures come again, after {away_s:.1f} s."
            self.mark("reconnected", wall_s, text, seconds=away_s)

    def _tell_unroomed(self, wall_s: float, pts_s: float) -> None:
        num_new = self._num_unroomed - self._unroomed_told
        if num_new > 0:
            self._unroomed_told = self._num_unroomed
            self._queue.count_dropped(num_new, wall_s, pts_s)
            self.num_taken += num_new

    def _tell_frozen(self, is_same: bool, pts_s: float, wall_s: float) -> None:
        if not is_same:
            if self._is_frozen:
                for_s = pts_s - self._same_since_s
                text = f"its picture moves again, after {for_s:.1f} s."
                self.mark("moving", wall_s, text, seconds=for_s)
            self._is_frozen, self._same_since_s = False, pts_s
            return
        for_s, most_s = pts_s - self._same_since_s, self._settings.frozen_s
        if most_s is not None and for_s >= most_s and not self._is_frozen:
            self._is_frozen = True
            text = f"its picture has not changed by a pixel for {for_s:.1f} s."
            self.mark("frozen", wall_s, text, seconds=for_s)
