"""The reliability table is the one counted by hand."""

import pytest

from llava_video.errors import ConfigError
from llava_video.eval.calibration import reliability


def test_a_table_counted_by_hand() -> None:
    """Bin (0.5, 1]: said (0.9 + 0.7 + 0.8)/3 = 0.8, right 2/3. Bin [0, 0.5]: said 0.5, right 1.

    ECE = 3/4 · |2/3 - 0.8| + 1/4 · |1 - 0.5| = 0.1 + 0.125 = 0.225.
    """
    table = reliability([0.9, 0.7, 0.8, 0.5], [True, False, True, True], num_bins=2)
    low, high = table.bins
    assert (low.num_examples, low.said, low.right) == (1, 0.5, 1.0)
    assert high.num_examples == 3
    assert (high.said, high.right) == (pytest.approx(0.8), pytest.approx(2 / 3))
    assert table.error == pytest.approx(0.225)
    # The mean over bins without weights would be 0.3167, gaps that cancel out 0.025, and each
    # answer for itself 0.375.
    for wrong in ((2 / 15 + 0.5) / 2, abs(0.75 - 0.725), (0.1 + 0.7 + 0.2 + 0.5) / 4):
        assert abs(table.error - wrong) > 0.01


@pytest.mark.parametrize(
    ("confidence", "number"), [(0.0, 0), (0.1, 0), (0.1001, 1), (0.7, 6), (0.70001, 7), (1.0, 9)]
)
def test_an_edge_belongs_to_the_bin_below(confidence: float, number: int) -> None:
    table = reliability([confidence], [True])
    assert [b.num_examples for b in table.bins] == [int(i == number) for i in range(10)]
    assert all(b.said is None and b.right is None for b in table.bins if not b.num_examples)


def test_certain_and_right_is_calibrated() -> None:
    assert reliability([1.0] * 5, [True] * 5).error == 0.0
    assert reliability([1.0] * 5, [False] * 5).error == 1.0


@pytest.mark.parametrize(
    ("confidences", "outcomes", "num_bins"),
    [([], [], 10), ([0.5], [], 10), ([1.1], [True], 10), ([0.5], [True], 0)],
)
def test_nonsense_is_refused(confidences, outcomes, num_bins) -> None:
    with pytest.raises(ConfigError):
        reliability(confidences, outcomes, num_bins)
