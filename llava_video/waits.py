"""Failures in a row → how long to wait before the next try.

Waits double up to a longest one, and each is shortened by chance: a hundred who fail in one moment
do not all come back in one. Knows no clock and no dice.
"""

# 2.0 ** 1024 is too large for a float.
_MOST_DOUBLINGS = 64


def growing_wait_s(tries: int, first_s: float, most_s: float, share: float) -> float:
    """Return how long to wait after a number of failures in a row, s.

    min(most, first * 2^(tries - 1)), of which between half and all, by the share.

    Args:
        tries: failures so far, >= 1.
        first_s: wait after the first, s.
        most_s: longest wait, s.
        share: 0 to 1, drawn at random.

    >>> [growing_wait_s(tries, 1.0, 5.0, 1.0) for tries in (1, 2, 3, 4, 5000)]
    [1.0, 2.0, 4.0, 5.0, 5.0]
    """
    wait_s = min(most_s, first_s * 2.0 ** min(tries - 1, _MOST_DOUBLINGS))
    return wait_s * (0.5 + 0.5 * share)
