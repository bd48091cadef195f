"""Expected times are written by hand: a packet is (pts, dts, flags)."""

from collections.abc import Sequence
from fractions import Fraction

import hypothesis
import numpy as np
from hypothesis import strategies

from llava_video.video.track_times import PacketTable, TrackTimes, track_times

TICK = Fraction(1, 100)


def _table(packets: Sequence[tuple[int | None, int | None, str]], duration: int = 0) -> PacketTable:
    """Flags: k keyframe, h hidden by the edit list, d damaged."""
    table = PacketTable()
    for pts, dts, flags in packets:
        table.add(
            pts,
            dts,
            duration,
            is_key="k" in flags,
            is_hidden="h" in flags,
            is_damaged="d" in flags,
        )
    return table


def _times(packets: Sequence[tuple[int | None, int | None, str]], **options: object) -> TrackTimes:
    duration = options.pop("duration", 0)
    arguments = {"tick": TICK, "rate_hz": None} | options
    return track_times(_table(packets, duration), **arguments)  # type: ignore[arg-type]


def test_reordered_packets() -> None:
    times = _times([(10, 0, "k"), (40, 10, ""), (20, 20, ""), (30, 30, ""), (50, 40, "k")])
    assert times.ticks.tolist() == [10, 20, 30, 40, 50]
    assert times.keyframe_idxs == (0, 4)
    assert times.key_ticks == (0, 40)
    assert times.last_ticks == 10  # the usual gap, as no duration is stated
    assert (times.by_order, times.num_hidden, times.faults) == (False, 0, ())


def test_the_last_frame_shown_says_how_long_it_is_shown() -> None:
    table = _table([(0, 0, "k"), (30, 1, ""), (10, 2, ""), (20, 3, "")], duration=10)
    table.durations[1] = 99
    assert track_times(table, tick=TICK, rate_hz=None).last_ticks == 99


def test_packets_outside_the_edit_list_are_not_shown() -> None:
    times = _times([(-20, -20, "kh"), (-10, -10, "h"), (0, 0, ""), (10, 10, "k")])
    assert times.ticks.tolist() == [0, 10]
    assert (times.keyframe_idxs, times.num_hidden) == ((1,), 2)


def test_frames_that_share_a_time() -> None:
    times = _times([(0, 0, "k"), (10, 10, ""), (10, 11, ""), (20, 20, "")])
    assert times.ticks.tolist() == [0, 10, 20]
    assert times.faults == ("1 frames share their time with another one and are left out.",)


def test_without_presentation_times_decode_times_are_sorted() -> None:
    times = _times([(None, 0, "k"), (None, 10, ""), (None, 20, "k")])
    assert times.ticks.tolist() == [0, 10, 20]
    assert times.by_order
    assert times.keyframe_idxs == (0,)


def test_without_any_times_the_rate_spaces_the_frames() -> None:
    packets = [(None, None, "k"), (None, None, ""), (None, None, "")]
    times = _times(packets, rate_hz=Fraction(50), duration=48000)
    assert (times.ticks * float(times.tick)).tolist() == [0.0, 0.02, 0.04]
    assert (times.last_ticks, times.by_order) == (1, True)
    assert "50 frames per second are assumed" in times.faults[0]
    assert _times(packets).tick == Fraction(1, 25)


def test_decode_times_called_presentation_times() -> None:
    times = _times([(1, 0, "k"), (2, 1, ""), (2, 2, ""), (3, 3, "")], untimed=True)
    # One frame for every packet, whatever their times say.
    assert times.ticks.tolist() == [1, 2, 3, 4]
    assert times.by_order


def test_a_clock_that_starts_over_is_counted_on() -> None:
    first = [(i * 4, i * 4, "k") for i in range(100)]
    times = _times(first + first)
    assert times.ticks.tolist() == [i * 4 for i in range(200)]
    assert times.by_order
    assert "starts over" in times.faults[0]


def test_a_small_step_back_is_no_new_recording() -> None:
    times = _times([(0, 0, "k"), (50, 50, ""), (30, 30, ""), (80, 80, "")])
    assert times.ticks.tolist() == [0, 30, 50, 80]
    assert not times.by_order


def test_frames_before_the_first_that_decodes_are_left_out() -> None:
    packets = [(30, 0, "k"), (10, 10, ""), (20, 20, ""), (40, 30, "")]
    times = _times(packets, first_shown=30)
    assert times.ticks.tolist() == [30, 40]
    assert times.faults == ("the first 2 frames cannot be decoded and are left out.",)
    assert times.keyframe_idxs == (0,)


def test_a_packet_cut_short_by_the_end_of_the_file_is_no_frame() -> None:
    times = _times([(0, 0, "k"), (10, 10, "d"), (20, 20, ""), (30, 30, "d")])
    assert times.ticks.tolist() == [0, 10, 20]
    assert times.faults == ("1 of 3 packets are marked as damaged.",)


def test_one_frame() -> None:
    times = _times([(7, 7, "k")])
    assert (times.ticks.tolist(), times.last_ticks, times.keyframe_idxs) == ([7], 0, (0,))


def test_everything_hidden() -> None:
    times = _times([(0, 0, "kh"), (10, 10, "h")])
    assert (len(times.ticks), times.last_ticks, times.keyframe_idxs) == (0, 0, ())


@hypothesis.given(
    strategies.lists(
        strategies.tuples(
            strategies.none() | strategies.integers(-500, 500),
            strategies.none() | strategies.integers(-500, 500),
            strategies.sampled_from(["", "k", "h", "d", "kh"]),
        ),
        min_size=1,
        max_size=30,
    ),
    strategies.booleans(),
)
def test_whatever_is_demuxed(
    packets: list[tuple[int | None, int | None, str]], untimed: bool
) -> None:
    times = _times(packets, untimed=untimed)
    assert (np.diff(times.ticks) > 0).all()
    assert len(times.ticks) <= len(packets)
    assert len(times.key_ticks) == len(times.keyframe_idxs)
    assert all(0 <= idx < len(times.ticks) for idx in times.keyframe_idxs)
    assert times.last_ticks >= 0
    if times.by_order:  # one frame for every packet that is shown and whole
        end = len(packets)
        while end > 1 and "d" in packets[end - 1][2]:
            end -= 1
        assert len(times.ticks) == sum("h" not in flags for _, _, flags in packets[:end])


def test_a_clock_that_goes_back_a_little_is_told() -> None:
    def faults(*dts: int | None) -> tuple[str, ...]:
        table = PacketTable()
        for pts, tick in enumerate(dts):
            table.add(pts, tick, 1, is_key=True)
        return track_times(table, tick=Fraction(1, 25), rate_hz=None).faults

    assert faults(0, 1, 2, 3) == ()
    assert faults(None, 1, 1, 3) == ()
    assert faults(0, 2, 1, 3) == ("its clock goes back once, by less than 1 s.",)
    assert faults(3, 2, 2, None, 1) == ("its clock goes back 2 times, by less than 1 s.",)
    assert "starts over" in faults(30, 31, 0, 1)[0]  # 31 ticks are more than a second
    assert len(faults(30, 31, 0, 1)) == 1
