"""What comes out of a stream: frames, marks of what befell it, and where it stands now.

Values alone; knows no connection. No text in them holds a password.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

MarkKind = Literal[
    "opened",
    "unreachable",
    "lost",
    "stalled",
    "reconnected",
    "resumed",
    "gap",
    "jumped",
    "late",
    "resized",
    "frozen",
    "moving",
    "damaged",
    "dropped",
    "ended",
]
StreamState = Literal["connecting", "live", "stalled", "waiting", "ended"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StreamFrame:
    """One picture of a stream.

    Attributes:
        idx: its number among the pictures taken of this stream; a number that is missing was
            dropped.
        picture: (H, W, 3) uint8 RGB, upright, the reader's own.
        pts_s: seconds on the stream's own clock since its first picture; it only grows, over jumps
            and reconnections too.
        wall_s: seconds since 1970 when it came; of a recording that is read fast, when it was
            recorded.
    """

    idx: int
    picture: npt.NDArray[np.uint8] = field(repr=False)
    pts_s: float
    wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Something that befell a stream between two of its frames, told once.

    Attributes:
        kind: "opened", its first picture is here; "unreachable", a try to open it failed, others
            follow; "lost", the connection ended; "stalled", nothing comes; "reconnected", a new
            connection brings pictures; "resumed", the old one does again; "gap", its own clock
            leaves time out; "jumped", its clock was set or stands still, and the times given go on
            evenly; "late", pictures come long after they should; "resized"; "frozen", pictures have
            been equal for long; "moving", they are no more; "damaged", pictures could not be
            decoded; "dropped", nobody took them in time; "ended", no more will come.
        wall_s: when, in seconds since 1970, as frames count it.
        pts_s: where on the stream's clock; nan before its first picture.
        text: what happened, a sentence.
        num_frames: how many pictures it speaks of, for "damaged" and "dropped".
        seconds: how long, for "reconnected", "resumed", "gap", "jumped", "late" and "frozen".
    """

    kind: MarkKind
    wall_s: float
    pts_s: float = math.nan
    text: str = ""
    num_frames: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamCounts:
    """What became of a stream's pictures; each is a count since the beginning.

    Attributes:
        decoded: pictures that came out of the decoder.
        taken: those taken at the rate asked for: delivered, dropped or waiting.
        delivered: those the reader was given.
        dropped: those nobody took in time.
        damaged: packets and pictures that could not be decoded.
        repeated: pictures that a new connection brought again, left out.
        connections: times that pictures began to come.
        failed_tries: tries to connect that failed.
        killed: times the process that reads hung and was ended.
    """

    decoded: int = 0
    taken: int = 0
    delivered: int = 0
    dropped: int = 0
    damaged: int = 0
    repeated: int = 0
    connections: int = 0
    failed_tries: int = 0
    killed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStatus:
    """Where a stream stands now.

    Attributes:
        name: its address, without secrets.
        state: "connecting", "live", "stalled", "waiting" for the next try, or "ended".
        counts: what became of its pictures.
        queue_depth: frames that wait to be taken.
        reason: the last thing that went wrong, or "".
        last_frame_wall_s: when the last picture came; None before the first.
        last_frame_pts_s: where it is on the stream's clock; None before the first.
        lag_s: how late it was, against the quickest.
        height_px: of the last picture; 0 before the first.
        width_px: of the last picture; 0 before the first.
        codec: FFmpeg's name of it, or "".
    """

    name: str
    state: StreamState
    counts: StreamCounts
    queue_depth: int = 0
    reason: str = ""
    last_frame_wall_s: float | None = None
    last_frame_pts_s: float | None = None
    lag_s: float = 0.0
    height_px: int = 0
    width_px: int = 0
    codec: str = ""
