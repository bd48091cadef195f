"""The packets of one track, as demuxed → the times its frames are shown at, and what is odd.

Pure arithmetic on arrays; knows no container library and no pixels.
"""

from array import array
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]

# Stands for a time the container does not state.
_NO_TIME = -(2**63)
# Decode times that fall back further than this are a new recording, not an untidy muxer.
_RESTART_S = 1.0
# FFmpeg's own assumption for streams that state neither times nor a rate.
_FALLBACK_RATE_HZ = Fraction(25)


def _ticks() -> "array[int]":
    return array("q")


@dataclass(frozen=True, slots=True)
class PacketTable:
    """What was read of every packet, one entry each in file order; times in ticks.

    Arrays of numbers: as lists of objects the packets of two hours are 40 MB.
    """

    pts: "array[int]" = field(default_factory=_ticks)
    dts: "array[int]" = field(default_factory=_ticks)
    durations: "array[int]" = field(default_factory=_ticks)
    is_key: bytearray = field(default_factory=bytearray)
    # Outside the edit list: decoded for the sake of others, never shown.
    is_hidden: bytearray = field(default_factory=bytearray)
    is_damaged: bytearray = field(default_factory=bytearray)

    def add(
        self,
        pts: int | None,
        dts: int | None,
        duration: int,
        *,
        is_key: bool,
        is_hidden: bool = False,
        is_damaged: bool = False,
    ) -> None:
        """Enter the next packet; a time of None is one that the container does not state."""
        self.pts.append(_NO_TIME if pts is None else pts)
        self.dts.append(_NO_TIME if dts is None else dts)
        self.durations.append(duration)
        self.is_key.append(is_key)
        self.is_hidden.append(is_hidden)
        self.is_damaged.append(is_damaged)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackTimes:
    """When the frames of a track are shown.

    Attributes:
        ticks: (num_frames,) ascending, without repeats, as the container counts them.
        tick: one unit, s.
        last_ticks: how long the last frame is shown, ticks; 0 when unknown.
        keyframe_idxs: indices into `ticks` of the frames decoding can start at.
        key_ticks: when those are decoded, as the container counts it.
        packet_idxs: (num_frames,) for each of `ticks`, which packet of the track holds it, in file
            order; of frames told by their order, the n-th shown one.
        by_order: frames cannot be told by their times: the n-th shown is the n-th of `ticks`.
        num_hidden: packets outside the edit list.
        faults: one sentence each.
    """

    ticks: Int64s
    tick: Fraction
    last_ticks: int
    keyframe_idxs: tuple[int, ...]
    key_ticks: tuple[int, ...]
    packet_idxs: Int64s
    by_order: bool
    num_hidden: int
    faults: tuple[str, ...]


class _Clock(NamedTuple):
    """The packets' times and durations, ticks; whether frames carry the times too."""

    pts: Int64s
    dts: Int64s
    durations: Int64s
    tick: Fraction
    by_order: bool


def track_times(
    table: PacketTable,
    *,
    tick: Fraction,
    rate_hz: Fraction | None,
    untimed: bool = False,
    first_shown: int | None = None,
) -> TrackTimes:
    """Sort a track's packets into the order they are shown in.

    Args:
        table: every packet, in file order.
        tick: unit of its times, s.
        rate_hz: frames per second, used only when the container states no times at all.
        untimed: the container's times are decode times (AVI), whatever they are called.
        first_shown: pts of the first frame that decodes; earlier ones never come out. None when
            not known.
    """
    faults: list[str] = []
    num_packets = _num_whole(table)
    hidden = np.frombuffer(table.is_hidden, dtype=bool)[:num_packets]
    is_key = np.frombuffer(table.is_key, dtype=bool)[:num_packets]
    num_damaged = sum(table.is_damaged[:num_packets])
    if num_damaged:
        faults.append(f"{num_damaged} of {num_packets} packets are marked as damaged.")
    clock = _clock(table, num_packets, tick, rate_hz, faults)
    faults += _disorder(clock.dts, tick)
    by_order = untimed or clock.by_order
    shown = ~hidden
    if first_shown is not None and not by_order:
        late = clock.pts >= first_shown
        if (shown & ~late).any():
            num_early = int((shown & ~late).sum())
            faults.append(f"the first {num_early} frames cannot be decoded and are left out.")
        shown &= late
    ticks = _frame_ticks(clock.pts[shown], by_order, faults)
    keyframe_idxs, key_ticks = _keyframes(clock, is_key & shown, ticks, by_order)
    return TrackTimes(
        ticks=ticks,
        tick=clock.tick,
        last_ticks=_last_ticks(clock, shown, ticks),
        keyframe_idxs=keyframe_idxs,
        key_ticks=key_ticks,
        packet_idxs=_packet_idxs(clock.pts, shown, by_order),
        by_order=by_order,
        num_hidden=int(hidden.sum()),
        faults=tuple(faults),
    )


def _num_whole(table: PacketTable) -> int:
    """Return the packets before the end of the file cut one short."""
    end = len(table.is_damaged)
    while end > 1 and table.is_damaged[end - 1]:
        end -= 1
    return end


def _clock(
    table: PacketTable,
    num_packets: int,
    tick: Fraction,
    rate_hz: Fraction | None,
    faults: list[str],
) -> _Clock:
    pts, dts, durations = (
        np.frombuffer(column, dtype=np.int64)[:num_packets]
        for column in (table.pts, table.dts, table.durations)
    )
    if not (pts == _NO_TIME).any():
        offsets = _offsets(dts, tick)
        if offsets is None:
            return _Clock(pts, dts, durations, tick, by_order=False)
        faults.append("its clock starts over (joined recordings); the times are counted on.")
        return _Clock(pts + offsets, dts, durations, tick, by_order=True)
    if not (dts == _NO_TIME).any():
        # Sorted and taken from the first, decode times of a constant rate are presentation times.
        return _Clock(dts, dts, durations, tick, by_order=True)
    rate_hz = rate_hz or _FALLBACK_RATE_HZ
    faults.append(f"the file states no times; {float(rate_hz):g} frames per second are assumed.")
    counts = np.arange(num_packets, dtype=np.int64)
    return _Clock(counts, counts, np.ones_like(counts), 1 / rate_hz, by_order=True)


def _offsets(dts: Int64s, tick: Fraction) -> Int64s | None:
    """Return what makes a clock that starts over run on; None when it never does."""
    # Only decode times run evenly: presentation times fall back wherever frames are reordered, by
    # seconds in a sparse recording.
    timed = np.flatnonzero(dts != _NO_TIME)
    steps = np.diff(dts[timed])
    restarts = steps < -(_RESTART_S / float(tick))
    if not restarts.any():
        return None
    usual = int(np.median(steps[steps > 0])) if (steps > 0).any() else 1
    offsets = np.concatenate([[0], np.cumsum(np.where(restarts, usual - steps, 0))])
    # A packet without a decode time belongs to the recording of the last one that has it.
    latest = np.searchsorted(timed, np.arange(len(dts)), side="right") - 1
    return offsets[np.maximum(latest, 0)]


def _disorder(dts: Int64s, tick: Fraction) -> list[str]:
    """Say so when packets do not lie in the order they are decoded in."""
    steps = np.diff(dts[dts != _NO_TIME])
    num_back = int(((steps < 0) & (steps >= -(_RESTART_S / float(tick)))).sum())
    if not num_back:
        return []
    often = "once" if num_back == 1 else f"{num_back} times"
    return [f"its clock goes back {often}, by less than {_RESTART_S:g} s."]


def _frame_ticks(pts: Int64s, by_order: bool, faults: list[str]) -> Int64s:
    ticks, counts = np.unique(pts, return_counts=True)
    if len(ticks) == len(pts):
        return ticks
    if by_order:  # each packet is a frame of its own: move repeats on by one tick
        steps = np.arange(len(pts))
        return np.maximum.accumulate(np.sort(pts) - steps) + steps
    repeats = int((counts - 1).sum())
    faults.append(f"{repeats} frames share their time with another one and are left out.")
    return ticks


def _packet_idxs(pts: Int64s, shown: npt.NDArray[np.bool_], by_order: bool) -> Int64s:
    in_file = np.flatnonzero(shown)
    return in_file if by_order else in_file[np.unique(pts[shown], return_index=True)[1]]


def _last_ticks(clock: _Clock, shown: npt.NDArray[np.bool_], ticks: Int64s) -> int:
    if not len(ticks):
        return 0
    last = int(clock.durations[np.where(shown, clock.pts, _NO_TIME).argmax()])
    if last > 0:
        return last
    return int(np.median(np.diff(ticks))) if len(ticks) > 1 else 0


def _keyframes(
    clock: _Clock, is_key: npt.NDArray[np.bool_], ticks: Int64s, by_order: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the keyframes' indices and when they are decoded."""
    if by_order:  # decoding always starts at the first frame
        return ((0,), (int(ticks[0]),)) if len(ticks) else ((), ())
    pts = clock.pts[is_key]
    dts = np.where(clock.dts[is_key] == _NO_TIME, pts, clock.dts[is_key])
    idxs, firsts = np.unique(np.searchsorted(ticks, pts), return_index=True)
    return tuple(idxs.tolist()), tuple(dts[firsts].tolist())
