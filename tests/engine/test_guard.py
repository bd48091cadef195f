import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_video.engine.guard import LoopGuard


def fired_after(ids):
    """Return how many tokens were pushed when the guard fired, or None."""
    guard = LoopGuard()
    for num, token_id in enumerate(ids, start=1):
        if guard.push(token_id):
            return num
    return None


def is_loop(ids):
    """The documented rule, spelled out slowly."""
    for period in range(1, 129):
        length = max(64, 4 * period)
        tail = ids[-length:]
        if len(tail) == length and all(tail[i] == tail[i - period] for i in range(period, length)):
            return True
    return False


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 2), max_size=30),
    st.lists(st.integers(0, 3), min_size=1, max_size=20),
    st.integers(1, 40),
    st.lists(st.integers(0, 2), max_size=5),
)
def test_the_guard_follows_its_rule(head, block, repeats, tail):
    ids = head + block * repeats + tail
    expected = next((n for n in range(1, len(ids) + 1) if is_loop(ids[:n])), None)
    assert fired_after(ids) == expected


@pytest.mark.parametrize("period", [1, 2, 10, 16, 17, 40, 128])
def test_a_sentence_said_again_and_again_is_a_loop(period):
    # Four times, and at least 64 tokens; hand count: 10 tokens -> 64, 17 -> 68, 128 -> 512.
    sentence = list(range(period))
    assert fired_after([900, 901, 902] + sentence * 64) == 3 + max(64, 4 * period)


def test_a_paragraph_beyond_the_longest_period_is_left_to_max_new_tokens():
    assert fired_after(list(range(129)) * 10) is None


def test_enumerations_are_no_loops():
    numbered = [token for idx in range(200) for token in (*range(1000, 1012), idx)]
    assert fired_after(numbered) is None  # "... frame 17 shows a red car."
    clock = [t for s in range(600) for t in (s // 600, 50, s // 60, 50, s % 60, 60, 61, 62, 63)]
    assert fired_after(clock) is None  # "00:07 the same car. 00:08 the same car."
    thrice = list(range(40)) * 3
    assert fired_after([*thrice, 7, 8, 9, *thrice]) is None  # a chorus


def test_a_table_rule_and_a_pause_are_no_loops():
    assert fired_after([5, 6] * 20 + [9] + [5, 6] * 20) is None  # |---| twenty columns wide
    assert fired_after([4] * 63 + [5] + [4] * 63) is None


def test_random_text_does_not_fire():
    rng = random.Random(0)
    assert fired_after([rng.randrange(50) for _ in range(5000)]) is None
