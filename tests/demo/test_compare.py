"""Every line of a timed caption is judged by itself, and what is left out is told."""

import pytest

from llava_video.demo.compare import MarkedLine, compare_timed

TRUTH = "0.0 s: a red ring, a blue cross and a pink square.\n2.0 s: the ring stops.\n4.5 s: it ends"


def marks(said: str, truth: str = TRUTH) -> list[str]:
    return [line.mark for line in compare_timed(said, truth)]


def test_the_truth_is_right() -> None:
    right = tuple(MarkedLine("right", line) for line in TRUTH.splitlines())
    assert compare_timed(TRUTH, TRUTH) == right
    assert marks("Nothing happens.", "Nothing happens.") == ["right"]


@pytest.mark.parametrize(
    ("line", "mark"),
    [
        ("1.5 s: the ring stops.", "right"),  # half a second early
        ("2.5 s: The ring stops", "right"),
        ("2.6 s: the ring stops.", "wrong"),
        ("0.5 s: the ring stops.", "wrong"),
        ("2.0 s: the ring grows.", "wrong"),
        ("0.0 s: a pink square, a red ring and a blue cross.", "right"),  # another order
        ("0.0 s: a pink square and a red ring.", "wrong"),
        ("the ring stops.", "wrong"),  # no time
        ("Nothing happens.", "wrong"),
    ],
)
def test_a_line(line: str, mark: str) -> None:
    first, *others = compare_timed(line, TRUTH)
    assert first == MarkedLine(mark, line)
    assert [other.mark for other in others] == ["missed"] * (2 if mark == "right" else 3)


def test_a_line_is_right_once() -> None:
    said = "2.0 s: the ring stops.\n2.0 s: the ring stops."
    assert marks(said) == ["right", "wrong", "missed", "missed"]
    assert marks("") == ["missed"] * 3
