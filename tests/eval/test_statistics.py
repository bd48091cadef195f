"""The interval is the one counted by hand, and holds the truth as often as it says."""

import random

import pytest

from llava_video.errors import ConfigError
from llava_video.eval.statistics import clustered_variance, proportion

# Four videos of two questions: two are answered right throughout, two wrong throughout.
OUTCOMES = [True, True, True, True, False, False, False, False]
CLUSTERS = ["a", "a", "b", "b", "c", "c", "d", "d"]


def test_a_case_counted_by_hand() -> None:
    """Of p = 1/2, each video's sum is 2 · (±1/2) = ±1, so SE² = 4/3 · 4/64 = 1/12.

    The design effect is d = (1/12)/(1/32) = 8/3 and m = 8 · 3/8 = 3. With z = 1.959964 and
    z² = 3.841459 the half-width is
    1.959964 · √(0.25/3 + 3.841459/36) / (1 + 3.841459/3) = 0.854419 / 2.280486 = 0.374666.
    """
    found = proportion(OUTCOMES, CLUSTERS)
    assert clustered_variance(OUTCOMES, CLUSTERS) == pytest.approx(1 / 12)
    assert found.effective == pytest.approx(3.0)
    assert (found.num_examples, found.num_clusters, found.value) == (8, 4, 0.5)
    half = 1.959964 * (0.25 / 3 + 3.841459 / 36) ** 0.5 / (1 + 3.841459 / 3)
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-6)
    # Each question for itself would be Wilson's interval at 8, without the factor for few videos
    # m would be 4, and with G - 1 over G it would be 16/3.
    for wrong in (8, 4, 16 / 3):
        wrong_half = 1.959964 * (0.25 / wrong + 3.841459 / 4 / wrong**2) ** 0.5
        assert abs(half - wrong_half / (1 + 3.841459 / wrong)) > 0.02


def test_clusters_of_one_are_independent_questions() -> None:
    outcomes = [True] * 7 + [False] * 3
    alone = proportion(outcomes, [str(i) for i in range(10)])
    # Of 0/1 outcomes in clusters of one, SE² = p (1 - p) / (n - 1): m = 9, Wilson's at 9.
    assert alone.effective == pytest.approx(9.0)


def test_right_throughout_is_not_certain() -> None:
    found = proportion([True] * 20, ["a"] * 10 + ["b"] * 10)
    assert (found.value, found.high, found.effective) == (1.0, 1.0, 2.0)
    # Wilson's lower end at p = 1 is m / (m + z²); the normal interval would say 1 to 1.
    assert found.low == pytest.approx(2 / (2 + 3.841459), abs=1e-6)
    one = proportion([True, False, True], ["a"] * 3)
    assert one.effective == 1.0
    assert one.high - one.low > 0.7


def test_questions_that_differ_within_videos_gain_nothing() -> None:
    # One right and one wrong in each: the videos' sums are 0, and the design effect is held at 1.
    found = proportion([True, False] * 5, [str(i // 2) for i in range(10)])
    assert found.effective == 10.0


def test_the_interval_holds_the_truth_and_the_unclustered_does_not() -> None:
    draw = random.Random(4)
    held = held_alone = 0
    truth, num_rounds = 0.7, 400
    for _ in range(num_rounds):
        outcomes: list[bool] = []
        clusters: list[str] = []
        for video in range(40):
            # A video is easy or hard: 0.95 or 0.45, so that their mean is 0.7.
            chance = draw.choice([0.95, 0.45])
            outcomes += [draw.random() < chance for _ in range(12)]
            clusters += [str(video)] * 12
        found = proportion(outcomes, clusters)
        held += found.low <= truth <= found.high
        alone = proportion(outcomes, [str(i) for i in range(len(outcomes))])
        held_alone += alone.low <= truth <= alone.high
    assert 0.92 <= held / num_rounds <= 0.98
    assert held_alone / num_rounds < 0.85


@pytest.mark.parametrize(
    ("outcomes", "clusters", "level"),
    [([], [], 0.95), ([True], [], 0.95), ([True], ["a"], 1.0), ([True], ["a"], 0.0)],
)
def test_nonsense_is_refused(outcomes, clusters, level) -> None:
    with pytest.raises(ConfigError):
        proportion(outcomes, clusters, level)
