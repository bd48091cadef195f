"""Generated ids → whether the model is caught in a loop.

The rule: an answer loops when, for some period p of at most 128 tokens, its last max(64, 4 p)
tokens repeat with period p, that is, the same p tokens stand back to back at least four times and
over at least 64 tokens. Counters break a loop (1. …, 2. …, or 00:01 …, 00:02 …), so enumerations
pass. Knows no text and no model.
"""

from collections import deque

import numpy as np
import numpy.typing as npt

# A sentence is 10 to 40 tokens and a paragraph about 100; longer loops end at max_new_tokens.
MAX_PERIOD_TOKENS = 128
# Rules of dashes and tables of zeros repeat one or two tokens; 64 of them are no longer an answer.
LEAST_LOOP_TOKENS = 64
# The same sentence three times can be a chorus or a quotation.
LEAST_REPEATS = 4

_PERIODS = np.arange(1, MAX_PERIOD_TOKENS + 1)
_NEEDED = np.maximum(LEAST_LOOP_TOKENS, LEAST_REPEATS * _PERIODS)


class LoopGuard:
    """Watches one answer's ids; costs a few microseconds a token.

    Example:
        >>> guard = LoopGuard()
        >>> [guard.push(idx % 3) for idx in range(70)].index(True)  # 64 tokens of period 3
        63
    """

    def __init__(self) -> None:
        self._last_ids: deque[int] = deque(maxlen=MAX_PERIOD_TOKENS)  # newest first
        # How many of the last tokens in a row equal the one p before, for p = 1, 2, …
        self._num_equal: npt.NDArray[np.int64] = np.zeros(MAX_PERIOD_TOKENS, dtype=np.int64)

    def push(self, token_id: int) -> bool:
        """Take the next id; return whether the answer now loops."""
        num_past = len(self._last_ids)
        past_ids = np.fromiter(self._last_ids, dtype=np.int64, count=num_past)
        equal = self._num_equal[:num_past]
        self._num_equal[:num_past] = np.where(past_ids == token_id, equal + 1, 0)
        self._last_ids.appendleft(token_id)
        # n equal neighbours at distance p are n + p tokens of period p.
        loops = (self._num_equal > 0) & (self._num_equal + _PERIODS >= _NEEDED)
        return bool(loops.any())
