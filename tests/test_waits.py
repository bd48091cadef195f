"""Waits grow to their bound, and chance takes no more than half of one."""

from hypothesis import given
from hypothesis import strategies as st

from llava_video.waits import growing_wait_s


@given(st.integers(1, 10**6), st.floats(0.001, 10), st.floats(1, 1000), st.floats(0, 1))
def test_waits_grow_to_their_most_and_are_at_least_half(
    tries: int, first_s: float, times: float, share: float
) -> None:
    most_s = first_s * times
    wait_s = growing_wait_s(tries, first_s, most_s, share)
    assert first_s / 2 <= wait_s <= most_s
    assert wait_s <= growing_wait_s(tries + 1, first_s, most_s, share)
    assert growing_wait_s(tries, first_s, most_s, 0.0) <= wait_s
