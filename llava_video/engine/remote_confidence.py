"""Log-probabilities of an answer's tokens → the probability of the choice that it is.

At each token, those of the server's alternatives count that could go on to one of the choices; the
product of the shares that went where the answer went is how probable it was. That is the
distribution that a server samples from when it allows the choices alone. Alternatives that it does
not list count as zero.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def confidence_of(tokens: Iterable[Any], endings: Sequence[str]) -> float | None:
    """Return the probability of the answer among the texts it could have been, 0..1.

    Args:
        tokens: as a server lists them: {"token", "logprob", "top_logprobs": [the same, ...]}.
        endings: the whole texts that were allowed, the answer's own among them.

    Returns:
        None where the server's list is missing, or no list of this answer.

    Example:
        >>> yes, no = {"token": "yes", "logprob": -0.105}, {"token": "no", "logprob": -2.303}
        >>> round(confidence_of([{**yes, "top_logprobs": [yes, no]}], ["yes", "no"]), 2)
        0.9
    """
    said, confidence, is_known = "", 1.0, False
    for entry in tokens:
        shares = dict(_shares(entry))
        token = entry.get("token") if isinstance(entry, Mapping) else None
        if token not in shares:
            return None
        leads_to = {text: _left(said + text, endings) for text in shares}
        if not leads_to[token]:
            return None
        # "yes" and " yes" are one way to go on.
        alike = sum(share for text, share in shares.items() if leads_to[text] == leads_to[token])
        total = sum(share for text, share in shares.items() if leads_to[text])
        confidence *= alike / total if total > 0 else 1.0
        said, is_known = said + token, True
        if len(leads_to[token]) == 1:
            break
    return confidence if is_known else None


def _shares(entry: Any) -> Iterable[tuple[str, float]]:
    """Yield the texts of alternatives with their probabilities; the taken one is last."""
    if not isinstance(entry, Mapping):
        return
    for one in [*(entry.get("top_logprobs") or ()), entry]:
        if isinstance(one, Mapping) and isinstance(one.get("logprob"), int | float):
            yield str(one.get("token")), math.exp(min(0.0, one["logprob"]))


def _left(text: str, endings: Sequence[str]) -> tuple[str, ...]:
    """Return the endings that a text begins, or that it is with something behind."""
    bare = text.lstrip()
    return tuple(one for one in endings if one.startswith(bare) or bare.startswith(one))
