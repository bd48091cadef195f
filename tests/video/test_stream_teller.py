"""The teller: one clock over all connections, every change of the picture told once."""

from typing import Any

import numpy as np
import pytest

from llava_video.video.settings import StreamSettings
from llava_video.video.stream_events import Mark, StreamFrame
from llava_video.video.stream_process import News
from llava_video.video.stream_queue import StreamQueue
from llava_video.video.stream_teller import Teller

PLAIN = {"lag_s": 0.0, "is_same": False, "odd": [], "unroomed": 0}


class Told:
    """A teller and what it told."""

    def __init__(self, **changes: Any) -> None:
        self.queue = StreamQueue(1000, 2**30)
        settings = StreamSettings(**changes)
        self.teller = Teller(settings, self.queue, lambda values, _: values["wall_s"])
        self.teller.begin()

    def frame(self, pts_s: float, now_s: float, *, side_px: int = 4, **more: Any) -> None:
        picture = np.zeros((side_px, side_px, 3), dtype=np.uint8)
        values = {**PLAIN, "pts_s": pts_s, "now_s": now_s, "wall_s": 1000 + now_s, **more}
        self.teller.tell(News(kind="frame", values=values, picture=picture))

    def events(self) -> list[Any]:
        found: list[Any] = []
        while (event := self.queue.take(0)) is not None:
            if isinstance(event, StreamFrame):
                found.append((event.idx, round(event.pts_s, 6)))
            else:
                found.append(event)
        return found

    def kinds(self) -> list[Any]:
        return [event.kind if isinstance(event, Mark) else event for event in self.events()]


def test_one_clock_over_connections() -> None:
    told = Told()
    told.frame(0.0, 50.0)
    told.frame(1.0, 51.0)
    told.teller.begin()
    told.frame(0.0, 61.5)
    told.frame(0.5, 62.0)
    assert told.kinds() == ["opened", (0, 0.0), (1, 1.0), "reconnected", (2, 11.5), (3, 12.0)]
    assert told.teller.num_connections == 2


def test_a_connection_that_brings_nothing_is_none() -> None:
    told = Told()
    told.frame(0.0, 0.0)
    told.teller.begin()
    told.teller.begin()
    told.frame(0.0, 0.0)  # at the same moment: still later
    assert told.kinds() == ["opened", (0, 0.0), "reconnected", (1, 0.001)]


def test_sizes_holes_and_jumps() -> None:
    told = Told()
    told.frame(0.0, 0.0)
    told.frame(1.0, 1.0, side_px=8)
    told.frame(9.0, 9.0, side_px=8, odd=[["gap", 7.0], ["jumped", -3.0], ["nonsense", 1.0]])
    found = told.events()
    assert [e.kind for e in found if isinstance(e, Mark)] == ["opened", "resized", "gap", "jumped"]
    assert [e.text for e in found if isinstance(e, Mark)][1:] == [
        "its pictures were 4x4 and are 8x8 px.",
        "7.0 s are missing in its own time.",
        "its clock was set by -3.0 s; times go on evenly.",
    ]


def test_a_clock_that_stands_still_is_told_as_one() -> None:
    told = Told()
    told.frame(0.0, 0.0, odd=[["jumped", 0.0]])
    assert "its clock stands still; times go on by the wall clock." in [
        event.text for event in told.events() if isinstance(event, Mark)
    ]


def test_a_frozen_picture_is_told_once_and_so_is_its_end() -> None:
    told = Told(frozen_s=3.0)
    told.frame(0.0, 0.0)
    for second in range(1, 8):
        told.frame(second, second, is_same=True)
    told.frame(8.0, 8.0)
    told.frame(9.0, 9.0, is_same=True)
    found = told.events()
    marks = [(e.kind, e.seconds) for e in found if isinstance(e, Mark)]
    assert marks == [("opened", 0.0), ("frozen", 3.0), ("moving", 8.0)]
    assert found.index((2, 2.0)) < [getattr(e, "kind", "") for e in found].index("frozen")


def test_nobody_asks_for_frozen_pictures() -> None:
    told = Told(frozen_s=None)
    for second in range(100):
        told.frame(second, second, is_same=second > 0)
    assert [kind for kind in told.kinds() if isinstance(kind, str)] == ["opened"]


def test_damage_is_told_now_and_then_with_all_there_was() -> None:
    told = Told()
    told.frame(0.0, 0.0, damaged=2)
    told.frame(1.0, 1.0, damaged=5)
    told.frame(12.0, 12.0, damaged=5)
    told.teller.count({"damaged": 6}, 1013.0, is_last=True)
    told.teller.begin()
    told.teller.count({"damaged": 1}, 1014.0, is_last=True)
    damage = [e.num_frames for e in told.events() if isinstance(e, Mark) and e.kind == "damaged"]
    assert damage == [2, 3, 1, 1]
    assert told.teller.counts(0, 0).damaged == 7


def test_pictures_that_found_no_room_are_dropped_ones() -> None:
    told = Told()
    told.frame(0.0, 0.0)
    told.frame(5.0, 5.0, unroomed=4)
    assert told.kinds() == ["opened", (0, 0.0), "dropped", (5, 5.0)]
    counts = told.teller.counts(failed_tries=3, killed=1)
    assert (counts.taken, counts.dropped, counts.delivered) == (6, 4, 2)
    assert (counts.failed_tries, counts.killed) == (3, 1)


@pytest.mark.parametrize("last", [{"unroomed": 5}, {}])
def test_pictures_that_found_no_room_before_the_end_are_counted_with_it(
    last: dict[str, int],
) -> None:
    told = Told()
    told.frame(0.0, 0.0, unroomed=1)
    told.teller.count({"unroomed": 5}, 1001.0)  # it tells now and then, and may die without a word
    told.teller.count(last, 1002.0, is_last=True)
    told.teller.begin()
    told.frame(0.0, 5.0, unroomed=2)
    found = told.events()
    marks = [(e.num_frames, e.wall_s) for e in found if isinstance(e, Mark) and e.kind == "dropped"]
    assert marks == [(1, 1000.0), (4, 1002.0), (2, 1005.0)]
    assert [event for event in found if not isinstance(event, Mark)] == [(1, 0.0), (8, 5.0)]
    counts = told.teller.counts(0, 0)
    assert (counts.taken, counts.dropped, counts.delivered) == (9, 7, 2)


def test_pictures_that_never_found_room_stand_nowhere() -> None:
    told = Told()
    told.teller.count({"unroomed": 3}, 1002.0, is_last=True)
    (mark,) = told.events()
    assert (mark.kind, mark.num_frames, np.isnan(mark.pts_s)) == ("dropped", 3, True)


def test_counts_go_on_over_connections() -> None:
    told = Told()
    told.frame(0.0, 0.0, decoded=10, repeated=1)
    told.teller.begin()
    told.frame(0.0, 5.0, decoded=3)
    counts = told.teller.counts(0, 0)
    assert (counts.decoded, counts.repeated, counts.connections) == (13, 1, 2)


@pytest.mark.parametrize("values", [{"pts_s": float("nan")}, {"pts_s": "soon"}, {"odd": None}])
def test_nonsense_is_refused(values: dict[str, Any]) -> None:
    told = Told()
    with pytest.raises((ValueError, TypeError)):
        told.frame(**{"pts_s": 0.0, "now_s": 0.0, **values})
