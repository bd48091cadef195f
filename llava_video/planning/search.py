"""A question that turns from no to yes along the whole numbers → where it turns.

Knows nothing of what is asked.
"""

from collections.abc import Callable


def least(low: int, high: int, fits: Callable[[int], bool]) -> int | None:
    """Return the least number in (low, high] that fits, None when `high` does not.

    Args:
        low: does not fit; not asked.
        high: the largest that is asked.
        fits: no below some number and yes from it on.

    >>> least(0, 100, lambda number: number * number >= 50)
    8
    """
    if high <= low or not fits(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high
