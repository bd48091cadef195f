"""Scores of hand-made cases, and of curves over thresholds."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from monitor_cases import person, said

from llava_video.monitor.labels import Label
from llava_video.monitor.scoring import (
    Alert,
    Score,
    alerts_of,
    best_point,
    score_alerts,
    threshold_curve,
    total,
)


def alerts(*times_s: float, rule: str = "person", camera: str = "gate") -> list[Alert]:
    return [Alert(rule=rule, camera=camera, at_s=at_s) for at_s in times_s]


def labels(*spans: tuple[float, float], rule: str = "person", camera: str = "") -> list[Label]:
    return [Label(start_s=a, end_s=b, rule=rule, camera=camera) for a, b in spans]


def test_the_worked_example() -> None:
    score = score_alerts(alerts(12, 15, 21, 50), labels((10, 20), (30, 40)), slack_s=2)[""]
    assert score == Score(found=1, missed=1, false=1, repeats=2, delays_s=(2.0,))
    assert (score.precision, score.recall, score.f1) == (0.5, 0.5, 0.5)
    assert (score.delay_s, score.most_delay_s) == (2.0, 2.0)


@pytest.mark.parametrize(
    ("times_s", "spans", "slack_s", "expected"),
    [
        ((), (), 0, (0, 0, 0, 0)),
        ((), ((0, 1),), 0, (0, 1, 0, 0)),
        ((1,), (), 0, (0, 0, 1, 0)),
        ((0, 1), ((0, 1),), 0, (1, 0, 0, 1)),
        ((2,), ((0, 1),), 1, (1, 0, 0, 0)),
        ((2.01,), ((0, 1),), 1, (0, 1, 1, 0)),
        # The first alert leaves the longer label to the second, which comes after the shorter one.
        ((5, 15), ((0, 20), (4, 6)), 0, (2, 0, 0, 0)),
        ((5, 5), ((0, 20), (4, 6)), 0, (2, 0, 0, 0)),
        # An event of one moment.
        ((7,), ((7, 7),), 0, (1, 0, 0, 0)),
    ],
)
def test_alerts_take_labels(
    times_s: tuple, spans: tuple, slack_s: float, expected: tuple[int, ...]
) -> None:
    score = score_alerts(alerts(*times_s), labels(*spans), slack_s=slack_s)[""]
    assert (score.found, score.missed, score.false, score.repeats) == expected


def test_nothing_is_no_share() -> None:
    score = Score()
    assert (score.precision, score.recall, score.f1, score.delay_s, score.most_delay_s) == (
        None, None, None, None, None,
    )  # fmt: skip


def test_rules_and_cameras_are_scored_apart() -> None:
    told = [*alerts(5), *alerts(5, rule="dog"), *alerts(5, camera="yard")]
    there = [*labels((0, 9), camera="gate"), *labels((0, 9), rule="cat")]
    scores = score_alerts(told, there)
    assert list(scores) == ["", "cat", "dog", "person"]
    assert scores["person"] == Score(found=1, false=1, delays_s=(5.0,))
    assert scores["dog"] == Score(false=1)
    assert scores["cat"] == Score(missed=1)
    assert scores[""] == total([scores[name] for name in ("cat", "dog", "person")])
    assert scores[""] == Score(found=1, missed=1, false=2, delays_s=(5.0,))


@given(
    st.lists(st.integers(0, 12), max_size=5),
    st.lists(st.tuples(st.integers(0, 10), st.integers(0, 5)), max_size=4),
)
def test_no_other_choice_of_labels_finds_more(times_s: list[int], spans: list) -> None:
    there = labels(*[(start, start + length) for start, length in spans])
    score = score_alerts(alerts(*times_s), there)[""]
    most = 0
    for chosen in itertools.permutations([*times_s, *[-1] * len(there)], len(there)):
        hits = [la.start_s <= t <= la.end_s for t, la in zip(chosen, there, strict=True)]
        most = max(most, sum(hits))
    assert score.found == most
    assert score.found + score.missed == len(there)
    assert score.found + score.repeats + score.false == len(times_s)


# Windows of 2 s; a person is there from 4 to 8 s. Surely seen at 6 and 8, a ghost at 12.
SEEN = {
    "gate": [
        said(2, "no", 0.9), said(4, "no", 0.9), said(6, "yes", 0.95), said(8, "yes", 0.9),
        said(10, "no", 0.9), said(12, "yes", 0.7), said(14, "no", 0.9),
    ]
}  # fmt: skip
THERE = labels((4, 8), camera="gate")


def test_alerts_of_what_was_seen() -> None:
    assert alerts_of(person(), SEEN) == alerts(6, 12)
    assert alerts_of(person(hits=2), SEEN) == alerts(8)


def test_a_curve_shows_what_a_threshold_and_hits_are_worth() -> None:
    points = threshold_curve(
        person(), SEEN, THERE, [0.5, 0.8, 0.97], needed=[(1, 1), (2, 3)], slack_s=2
    )
    found = {
        (point.confidence, point.hits): (point.score.precision, point.score.recall)
        for point in points
    }
    assert found == {
        (0.5, 1): (0.5, 1.0), (0.8, 1): (1.0, 1.0), (0.97, 1): (None, 0.0),
        (0.5, 2): (1.0, 1.0), (0.8, 2): (1.0, 1.0), (0.97, 2): (None, 0.0),
    }  # fmt: skip
    best = best_point(points)
    assert best is not None
    assert (best.confidence, best.hits) == (0.5, 2)
    assert best_point([]) is None
