"""How much a scanned video changes from look to look → its shots, and frames spread over them.

A shot is known by the frames that were looked at: what lies between the last look at one shot and
the first look at the next may be either, and is never chosen. Pure arithmetic; knows no pixel.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llava_video.planning.moments import Indices
from llava_video.values import Scan, VideoInfo

# In mean grey levels between thumbnails half a second apart. Seen in real videos: people and
# animals that move up to 10, a camera shaken or a hand thrust at it 25, exposure 8; cuts between
# unrelated videos 52 to 97, between two skies 29.
LEAST_CUT = 20.0
SURE_CUT = 50.0
# What moves all the time is no cut: a cut stands out from its neighbours, of which half may be cuts
# before the median is one.
TIMES_MEDIAN = 3.0
NEIGHBOURS_PER_SIDE = 4


@dataclass(frozen=True, slots=True)
class Shot:
    """A stretch of a video without a cut.

    Attributes:
        first_idx: the first frame that was looked at in it.
        stop_idx: one past the last frame that was looked at in it.
        duration_s: until the first look at the next shot, or the end of the span.
    """

    first_idx: int
    stop_idx: int
    duration_s: float

    @property
    def num_frames(self) -> int:
        """Frames that are surely of this shot."""
        return self.stop_idx - self.first_idx


def is_cut(changes: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Say of each look whether a cut lies between it and the look before.

    A cut changes at least `LEAST_CUT` levels, and either `SURE_CUT` or `TIMES_MEDIAN` times the
    median of the up to eight changes around it (four to each side, itself left out).

    Args:
        changes: (N,) mean absolute difference from the look before; the first is not read.

    Returns:
        (N,) bool; the first is False.

    >>> is_cut(np.array([np.inf, 2, 2, 30, 2, 2])).tolist()  # 30 against a median of 2
    [False, False, False, True, False, False]
    >>> is_cut(np.array([np.inf, 22, 25, 30, 24, 23])).tolist()  # all of it moves
    [False, False, False, False, False, False]
    """
    cuts = np.zeros(len(changes), dtype=np.bool_)
    for i in range(1, len(changes)):
        if changes[i] < LEAST_CUT:
            continue
        before = changes[max(1, i - NEIGHBOURS_PER_SIDE) : i]
        around = np.concatenate((before, changes[i + 1 : i + 1 + NEIGHBOURS_PER_SIDE]))
        usual = float(np.median(around)) if len(around) else 0.0
        cuts[i] = changes[i] >= min(SURE_CUT, TIMES_MEDIAN * usual)
    return cuts


def cut_words(scan: Scan) -> tuple[str, ...]:
    """Say how much the picture changes beside what makes a cut; nothing of a single look."""
    if len(scan.changes) < 2:
        return ()
    return (
        f"From look to look the picture changes by up to {scan.changes[1:].max():.0f} grey levels; "
        f"{LEAST_CUT:g} that stand out, or {SURE_CUT:g}, are a cut.",
    )


def find_shots(info: VideoInfo, scan: Scan, end_s: float) -> tuple[Shot, ...]:
    """Cut a scanned span into shots; the first begins with the first look.

    Args:
        info: the probed video.
        scan: changes from look to look.
        end_s: where the span ends, s.
    """
    starts = [0, *np.flatnonzero(is_cut(scan.changes)).tolist()]
    stops = [*starts[1:], len(scan.frame_idxs)]
    firsts = scan.frame_idxs[starts]
    ends_s = [*info.pts_s[firsts[1:]].tolist(), end_s]
    return tuple(
        Shot(
            first_idx=int(first),
            stop_idx=int(scan.frame_idxs[stop - 1]) + 1,
            duration_s=shot_end_s - float(info.pts_s[first]),
        )
        for first, stop, shot_end_s in zip(firsts, stops, ends_s, strict=True)
    )


def frames_per_shot(shots: Sequence[Shot], num_frames: int) -> list[int]:
    """Share frames out to shots, by their duration.

    One frame each first, the longest shots before shorter ones. Each further frame goes to the shot
    with the most seconds per frame it would then have; of equals, to the earliest. No shot gets
    more than it has, and none gets fewer when there are more to share out.

    Args:
        shots: in order of time.
        num_frames: >= 1.

    Returns:
        One number per shot; 0 only where there are fewer frames than shots.

    >>> frames_per_shot([Shot(0, 100, 4.0), Shot(100, 300, 10.0), Shot(300, 310, 1.0)], 6)
    [1, 4, 1]
    """
    counts = [0] * len(shots)
    for idx in sorted(range(len(shots)), key=lambda i: -shots[i].duration_s)[:num_frames]:
        counts[idx] = 1
    left = num_frames - sum(counts)
    # A shot's place in the queue: its seconds per frame, if it had one more.
    queue = [(-shot.duration_s / 2, idx) for idx, shot in enumerate(shots)]
    heapq.heapify(queue)
    while left and queue:
        _, idx = heapq.heappop(queue)
        if counts[idx] >= shots[idx].num_frames:
            continue  # it has no more, and leaves the queue
        counts[idx] += 1
        left -= 1
        heapq.heappush(queue, (-shots[idx].duration_s / (counts[idx] + 1), idx))
    return counts


def frames_of_shots(info: VideoInfo, shots: Sequence[Shot], num_frames: int) -> Indices:
    """Return frames spread over shots, evenly in time within each.

    Of n frames of a shot, one is in the middle of each n-th of what was seen of it, by pts: a
    single one in the middle of the shot.

    Args:
        info: the probed video.
        shots: in order of time.
        num_frames: >= 1; all frames of all shots where they have fewer.
    """
    counts = frames_per_shot(shots, num_frames)
    chosen = [_spread_in(info, shot, count) for shot, count in zip(shots, counts, strict=True)]
    return np.concatenate(chosen)


def _spread_in(info: VideoInfo, shot: Shot, count: int) -> Indices:
    """Return so many distinct frames of a shot; where time gives one twice, its neighbour."""
    first_s, last_s = info.pts_s[shot.first_idx], info.pts_s[shot.stop_idx - 1]
    times_s = first_s + (np.arange(count) + 0.5) / max(count, 1) * (last_s - first_s)
    steps = np.arange(count)
    # Distinct means that idx - rank does not fall, and room must be left for those that follow.
    slack = info.frame_idxs_at(times_s).clip(shot.first_idx, shot.stop_idx - 1) - steps
    rising = np.maximum.accumulate(slack).clip(shot.first_idx, shot.stop_idx - max(count, 1))
    return (rising + steps).astype(np.int64)
