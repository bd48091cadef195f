"""Frames asked for and a video's index → the runs of packets that are decoded for them.

Pure arithmetic on positions in the file: a frame needs the packets from the last keyframe shown
before it to its own. Knows no container library; how a run is decoded is up to `decode_pass.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from llava_video.video.probe import TrackInfo


@dataclass(frozen=True, slots=True)
class Run:
    """Frames that come out of one stretch of packets, decoded from its first on.

    Attributes:
        idxs: the frames asked for, ascending.
        key: which of the video's keyframes it starts at; None: the start of the file.
        first_packet: the keyframe's packet, counted in file order.
        num_packets: from there to the last packet that holds a frame asked for.
    """

    idxs: tuple[int, ...] = field(repr=False)
    key: int | None
    first_packet: int
    num_packets: int


def plan_runs(
    info: TrackInfo, idxs: Sequence[int], *, join_packets: int = -1, keys_back: int = 0
) -> tuple[Run, ...]:
    """Return the runs that give these frames, in order; no packet is in two of them.

    Args:
        info: times, keyframes and packets of the video.
        idxs: frames, ascending and distinct.
        join_packets: decode on to the next run rather than seek to it where this many packets or
            fewer lie between the two; -1 never does.
        keys_back: start so many keyframes earlier, for pictures that refer to before their
            keyframe.
    """
    if not len(idxs):
        return ()
    # A video that cannot be sought in is one run from its start.
    keyframe_idxs = info.keyframe_idxs if info.key_ticks else ()
    keys = np.searchsorted(np.array(keyframe_idxs), idxs, side="right") - 1 - keys_back
    cuts = np.flatnonzero(np.diff(keys)) + 1
    runs: list[Run] = []
    for some in np.split(np.asarray(idxs, dtype=np.int64), cuts):
        run = _run(info, tuple(some.tolist()), int(keys[np.searchsorted(idxs, some[0])]))
        if runs and run.first_packet - _end(runs[-1]) <= join_packets:
            run = _joined(runs.pop(), run)
        runs.append(run)
    return tuple(runs)


def _run(info: TrackInfo, idxs: tuple[int, ...], key: int) -> Run:
    starts_file = key < 0
    first = 0 if starts_file else int(info.packet_idxs[info.keyframe_idxs[key]])
    last = int(info.packet_idxs[list(idxs)].max())
    return Run(idxs, None if starts_file else key, first, max(last - first, 0) + 1)


def _joined(one: Run, other: Run) -> Run:
    end = max(_end(one), _end(other))
    return Run(one.idxs + other.idxs, one.key, one.first_packet, end - one.first_packet)


def _end(run: Run) -> int:
    return run.first_packet + run.num_packets
