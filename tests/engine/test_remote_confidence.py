"""A choice's probability by hand, whatever tokens it was cut into."""

import math

import pytest

from llava_video.engine.remote_confidence import confidence_of


def entry(token: str, **shares: float) -> dict:
    """Return a token with its alternatives' probabilities; `_` in a name is a blank."""
    named = {name.replace("_", " "): share for name, share in shares.items()}
    top = [{"token": name, "logprob": math.log(share)} for name, share in named.items()]
    return {"token": token, "logprob": math.log(named[token]), "top_logprobs": top}


@pytest.mark.parametrize(
    ("tokens", "endings", "expected"),
    [
        # 0.6 of yes against 0.2 of no; what is no choice does not count.
        ([entry("yes", yes=0.6, no=0.2, maybe=0.2)], ("yes", "no"), 0.75),
        # "y" and "yes" both become yes; " no" is no.
        ([entry("y", y=0.3, yes=0.3, _no=0.2)], ("yes", "no"), 0.75),
        # car or cat is decided by the second token alone; red by the first.
        ([entry("ca", ca=0.5, red=0.5), entry("r", r=0.1, t=0.3)], ("car", "cat", "red"), 0.125),
        # Nothing but the answer is listed.
        ([entry("B", B=0.9)], ("A", "B"), 1.0),
        # A token that says more than the choice.
        ([entry("A.", **{"A.": 0.2, "B.": 0.3})], ("A", "B"), 0.4),
        # A JSON object: what opens it leads to every choice.
        (
            [
                entry('{"', **{'{"': 0.5, "{": 0.5}),
                entry('a":"', **{'a":"': 1.0}),
                entry("x", x=0.2, y=0.6),
            ],
            ('{"a":"x"', '{"a":"y"'),
            0.25,
        ),
    ],
)
def test_by_hand(tokens: list[dict], endings: tuple[str, ...], expected: float) -> None:
    assert confidence_of(tokens, endings) == pytest.approx(expected)


@pytest.mark.parametrize(
    "tokens",
    [
        [],
        [None],
        [{}],
        [{"token": "yes"}],
        [{"token": "yes", "logprob": "high"}],
        [{"token": "zebra", "logprob": -0.1, "top_logprobs": None}],
    ],
)
def test_what_is_no_list_of_this_answer_gives_nothing(tokens: list) -> None:
    assert confidence_of(tokens, ("yes", "no")) is None
