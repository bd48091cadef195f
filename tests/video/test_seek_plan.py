"""A plan's packets are enough, none of them twice, and no more than they must be."""

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_video.video.probe import TrackInfo
from llava_video.video.seek_plan import Run, plan_runs
from llava_video.video.track_times import PacketTable, track_times


def video(gops: list[int], num_b: int = 0, **changes: Any) -> TrackInfo:
    """Return a video of closed groups; in file order each reference comes before its B-frames."""
    table, first = PacketTable(), 0
    for length in gops:
        # 0, then (num_b + 1, 1 ... num_b), and so on: the order an encoder writes.
        order, shown = [0], 1
        while shown < length:
            ahead = min(shown + num_b, length - 1)
            order += [ahead, *range(shown, ahead)]
            shown = ahead + 1
        for place in order:
            table.add(first + place, len(table.dts), 1, is_key=place == 0)
        first += length
    times = track_times(table, tick=Fraction(1, 30), rate_hz=None)
    facts: dict[str, Any] = {
        "duration_s": None,
        "num_frames": first,
        "frame_rate_hz": None,
        "height_px": 9,
        "width_px": 9,
        "codec": "h264",
        "container": "mov",
        "pts_s": times.ticks / 30,
        "tick_s": 1 / 30,
        "keyframe_idxs": times.keyframe_idxs,
        "key_ticks": times.key_ticks,
        "packet_idxs": times.packet_idxs,
    }
    return TrackInfo(**(facts | changes))


def test_by_hand() -> None:
    # Two groups of six, one B-frame: shown 0 1 2 3 4 5 | 6 ..., in the file 0 2 1 4 3 5 | 6 8 7 ...
    info = video([6, 6], num_b=1)
    assert info.packet_idxs.tolist() == [0, 2, 1, 4, 3, 5, 6, 8, 7, 10, 9, 11]
    assert plan_runs(info, [0]) == (Run((0,), 0, 0, 1),)
    assert plan_runs(info, [1]) == (Run((1,), 0, 0, 3),)  # 0, 2, 1
    assert plan_runs(info, [2]) == (Run((2,), 0, 0, 2),)  # 0, 2
    assert plan_runs(info, [1, 2, 7]) == (Run((1, 2), 0, 0, 3), Run((7,), 1, 6, 3))
    # Between packet 2 and packet 6 lie three: decoding on is taken for three, not for two.
    assert plan_runs(info, [1, 7], join_packets=3) == (Run((1, 7), 0, 0, 9),)
    assert len(plan_runs(info, [1, 7], join_packets=2)) == 2
    assert plan_runs(info, [7], keys_back=1) == (Run((7,), 0, 0, 9),)
    assert plan_runs(info, [1], keys_back=1) == (Run((1,), None, 0, 3),)
    assert plan_runs(info, []) == ()


def test_without_seeking_there_is_one_run_from_the_start() -> None:
    info = video([6, 6, 6], key_ticks=())
    assert plan_runs(info, [2, 13]) == (Run((2, 13), None, 0, 14),)


def test_leading_pictures_belong_to_the_group_before_their_keyframe() -> None:
    # Shown 0 1 2 3 K=4; in the file 0 1 4 2 3: the last two come after the keyframe.
    info = video([5], keyframe_idxs=(0, 4), key_ticks=(0, 4), packet_idxs=np.array([0, 1, 3, 4, 2]))
    assert plan_runs(info, [3]) == (Run((3,), 0, 0, 5),)
    assert plan_runs(info, [4]) == (Run((4,), 1, 2, 1),)


@st.composite
def requests(draw: st.DrawFn) -> tuple[TrackInfo, list[int], int]:
    gops = draw(st.lists(st.integers(1, 20), min_size=1, max_size=12))
    info = video(gops, num_b=draw(st.integers(0, 3)))
    idxs = draw(st.sets(st.integers(0, info.num_frames - 1), min_size=1, max_size=30))
    return info, sorted(idxs), draw(st.integers(-1, 25))


def needs(info: TrackInfo, idx: int) -> set[int]:
    """Return the packets of the keyframe before a frame, of the frame, and all between."""
    key = max(k for k in info.keyframe_idxs if k <= idx)
    return set(range(info.packet_idxs[key], info.packet_idxs[idx] + 1))


@given(requests())
def test_planned_packets_suffice(request: tuple[TrackInfo, list[int], int]) -> None:
    info, idxs, join_packets = request
    runs = plan_runs(info, idxs, join_packets=join_packets)
    assert [idx for run in runs for idx in run.idxs] == idxs
    end = 0
    for run in runs:
        packets = set(range(run.first_packet, run.first_packet + run.num_packets))
        assert all(needs(info, idx) <= packets for idx in run.idxs)
        assert run.first_packet >= end  # none is decoded twice
        assert run.first_packet in info.packet_idxs[list(info.keyframe_idxs)]
        end = run.first_packet + run.num_packets


@given(requests())
def test_no_packet_is_planned_without_need(request: tuple[TrackInfo, list[int], int]) -> None:
    info, idxs, _ = request
    needed = set().union(*(needs(info, idx) for idx in idxs))
    assert sum(run.num_packets for run in plan_runs(info, idxs)) == len(needed)


@given(requests())
def test_decoding_on_costs_at_most_what_was_allowed(
    request: tuple[TrackInfo, list[int], int],
) -> None:
    info, idxs, join_packets = request
    apart, joined = plan_runs(info, idxs), plan_runs(info, idxs, join_packets=join_packets)
    extra = sum(run.num_packets for run in joined) - sum(run.num_packets for run in apart)
    assert extra <= max(0, join_packets) * (len(apart) - len(joined))
    assert all(
        later.first_packet - run.first_packet - run.num_packets > join_packets
        for run, later in itertools.pairwise(joined)
    )


@pytest.mark.parametrize("num_frames", [108_000])
def test_an_hour_is_planned_at_once(num_frames: int) -> None:
    info = video([250] * (num_frames // 250), num_b=2)
    idxs = np.linspace(0, num_frames - 1, 64).astype(int).tolist()
    runs = plan_runs(info, idxs)
    # On average half a group for each frame: 64 x 125 of 108,000 packets.
    assert 6_000 < sum(run.num_packets for run in runs) < 10_000
