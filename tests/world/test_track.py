import pytest

from llava_video.world.track import Track


@pytest.mark.parametrize(
    ("time_s", "value"),
    [(-1.0, 2.0), (0.0, 2.0), (1.0, 2.0), (2.0, 4.0), (2.5, 5.0), (3.0, 6.0), (9.0, 6.0)],
)
def test_rest_line_rest(time_s: float, value: float) -> None:
    # By hand: from 2 at 1 s to 6 at 3 s is 2 a second.
    assert Track((0.0, 1.0, 3.0), (2.0, 2.0, 6.0)).at(time_s) == value


def test_a_jump_shows_what_comes_after() -> None:
    jump = Track((0.0, 1.0, 1.0), (1.0, 1.0, 5.0))
    assert [jump.at(t) for t in (0.999, 1.0, 1.001)] == [1.0, 5.0, 5.0]


def test_one_moment_is_a_constant() -> None:
    assert [Track((0.0,), (3.0,)).at(t) for t in (-1.0, 0.0, 1.0)] == [3.0, 3.0, 3.0]
