"""Confidences and right or wrong → a reliability table: is 0.9 right nine times in ten?

    ECE = Σ_b (n_b / n) |right_b - said_b|

over bins of equal width, n_b of n answers in bin b, right_b the share of them that is right, said_b
their mean confidence: expected calibration error, Naeini et al. (AAAI 2015) as Guo et al. use it
(arXiv 1706.04599, eq. 3). A confidence on an edge belongs to the bin below it. Knows no model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from llava_video.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """The answers whose confidence lies in (low, high]; the first bin holds 0 too.

    Attributes:
        low: lower edge.
        high: upper edge.
        num_examples: answers in it.
        said: their mean confidence; None of an empty bin.
        right: share of them that is right; None of an empty bin.
    """

    low: float
    high: float
    num_examples: int
    said: float | None
    right: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """A reliability table.

    Attributes:
        bins: from 0 to 1, of equal width.
        num_examples: answers with a confidence.
        error: ECE, 0..1; 0 is calibrated.
    """

    bins: tuple[Bin, ...]
    num_examples: int
    error: float


def reliability(
    confidences: Sequence[float], outcomes: Sequence[bool], num_bins: int = 10
) -> Reliability:
    """Compare what was said with what came true.

    Args:
        confidences: 0..1 each, at least one.
        outcomes: whether each answer was right.
        num_bins: of equal width.

    Raises:
        ConfigError: nothing to compare, not as many outcomes, a confidence outside 0..1, no bins.
    """
    if not confidences or len(confidences) != len(outcomes):
        raise ConfigError(
            f"{len(confidences)} confidences and {len(outcomes)} outcomes.", "one for each."
        )
    if num_bins < 1:
        raise ConfigError(f"num_bins = {num_bins}.", "at least 1.")
    members: list[list[int]] = [[] for _ in range(num_bins)]
    for idx, confidence in enumerate(confidences):
        if not 0 <= confidence <= 1:
            raise ConfigError(f"a confidence is {confidence!r}.", "0 to 1.")
        # Rounded: 0.7 · 10 is a little above 7, and stands on the edge all the same.
        members[max(0, ceil(round(confidence * num_bins, 9)) - 1)].append(idx)
    bins = tuple(
        _bin(number, num_bins, [confidences[i] for i in idxs], [outcomes[i] for i in idxs])
        for number, idxs in enumerate(members)
    )
    gaps = (
        b.num_examples * abs(b.right - b.said)
        for b in bins
        if b.right is not None and b.said is not None
    )
    return Reliability(bins=bins, num_examples=len(outcomes), error=sum(gaps) / len(outcomes))


def _bin(number: int, num_bins: int, said: Sequence[float], right: Sequence[bool]) -> Bin:
    count = len(said)
    return Bin(
        low=number / num_bins,
        high=(number + 1) / num_bins,
        num_examples=count,
        said=sum(said) / count if count else None,
        right=sum(right) / count if count else None,
    )
