import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llava_video.engine.stop import StopText


def stream(text, stop, cuts):
    """Push the text cut at the given places; return the pieces shown and whether it stopped."""
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    shown = StopText(stop)
    pieces = [shown.push(text[a:b]) for a, b in itertools.pairwise(places)]
    return [*pieces, shown.finish()], shown.stopped


def expected_text(text, stop):
    """Cut character by character at the first stop string that is complete, then strip."""
    for end in range(1, len(text) + 1):
        ended = [s for s in stop if text[:end].endswith(s)]
        if ended:
            return text[: end - max(map(len, ended))].strip(), True
    return text.strip(), False


letters = st.text(alphabet="ab \n", max_size=24)


@settings(deadline=None)
@given(
    letters,
    st.lists(st.text(alphabet="ab \n", min_size=1, max_size=4), max_size=3),
    st.lists(st.integers(0, 24), max_size=6),
)
@example("ab", ["b", "ab"], [])  # both complete at once: the longest goes
@example("  \n a", [" a"], [1, 2, 3, 4])  # the stop string begins in white space that is dropped
@example("aab", ["ab"], [2])
def test_pieces_join_to_the_stripped_text_before_the_first_stop(text, stop, cuts):
    pieces, stopped = stream(text, stop, cuts)
    assert ("".join(pieces), stopped) == expected_text(text, stop)


def test_a_stop_string_over_token_borders_never_leaks():
    pieces, stopped = stream("Blue.<END> and more", ["<END>"], range(30))
    assert "".join(pieces) == "Blue."
    assert stopped
    assert not any("<" in piece for piece in pieces)


def test_white_space_waits_until_a_word_follows():
    shown = StopText()
    assert [shown.push(piece) for piece in ("\n ", "a", " ", "\n", "b", " ")] == [
        "", "a", "", "", " \nb", "",
    ]  # fmt: skip
    assert shown.finish() == ""


def test_text_is_shown_at_once_when_nothing_is_unsure():
    shown = StopText(["STOP"])
    assert shown.push("SO") == "SO"
    assert shown.push("S") == ""
    assert shown.push("TO") == ""
    assert shown.push("N") == "STON"


@pytest.mark.parametrize("piece", ["x", "END"])
def test_nothing_is_shown_after_the_end(piece):
    shown = StopText(["END"])
    shown.push("aEND")
    assert shown.push(piece) == ""
    assert shown.finish() == ""
