r"""Right and wrong answers, by video → accuracy, with an interval for answers that hang together.

Questions about one video are answered alike: what the model did not see is wrong for all of them.
An interval that counts questions as if each had a video of its own is too narrow.

    SE² = G / (G - 1) · 1/n² · Σ_g (Σ_{i in g} (s_i - p))²     clustered standard error of the mean
    d   = max(1, SE² / (p (1 - p) / n))                         design effect
    m   = n / d                                                  effective number of examples
    (p + z²/2m ± z √(p (1 - p)/m + z²/4m²)) / (1 + z²/m)         Wilson's interval at m

n examples in G clusters, p their mean, z the normal quantile. Sources: the clustered error is Liang
and Zeger's (Biometrika 73, 1986) as Miller writes it for evaluations (arXiv 2411.00640, clustered
standard errors), with the usual factor for few clusters; Wilson's interval at the effective size is
among those that Dean and Pagano examine for clustered samples (J. Surv. Stat. Methodol. 3, 2015).
Unlike the normal interval it says something when every answer is right: m is then G, as if each
cluster had answered once. Knows no model.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

from llava_video.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Proportion:
    """A share of right answers, and how sure it is.

    Attributes:
        value: right answers over examples, 0..1.
        num_examples: n.
        num_clusters: G, videos.
        low: lower end of the interval.
        high: upper end.
        level: of the interval, 0.95.
        effective: m, as many independent examples would be as sure.
    """

    value: float
    num_examples: int
    num_clusters: int
    low: float
    high: float
    level: float
    effective: float


def proportion(
    outcomes: Sequence[bool], clusters: Sequence[str], level: float = 0.95
) -> Proportion:
    """Return the share of right answers with an interval clustered by video.

    Args:
        outcomes: whether each answer was right, at least one.
        clusters: the video of each.
        level: how often such an interval holds the truth.

    Raises:
        ConfigError: no outcomes, not as many clusters, or a level outside 0..1.

    >>> found = proportion([True, True, False, False], ["a", "a", "b", "b"])
    >>> round(found.effective, 6), found.num_clusters
    (1.0, 2)
    """
    if not outcomes or len(outcomes) != len(clusters):
        raise ConfigError(
            f"{len(outcomes)} outcomes and {len(clusters)} clusters.", "one cluster for each."
        )
    if not 0 < level < 1:
        raise ConfigError(f"level = {level!r}.", "above 0, below 1.")
    num_examples, num_clusters = len(outcomes), len(set(clusters))
    mean = sum(outcomes) / num_examples
    effective = _effective(outcomes, clusters, mean)
    low, high = _wilson(mean, effective, NormalDist().inv_cdf((1 + level) / 2))
    return Proportion(
        value=mean,
        num_examples=num_examples,
        num_clusters=num_clusters,
        low=low,
        high=high,
        level=level,
        effective=effective,
    )


def clustered_variance(outcomes: Sequence[bool], clusters: Sequence[str]) -> float:
    """Return SE², the variance of the mean of outcomes that come in clusters; G >= 2."""
    num_examples = len(outcomes)
    mean = sum(outcomes) / num_examples
    sums: defaultdict[str, float] = defaultdict(float)
    for outcome, cluster in zip(outcomes, clusters, strict=True):
        sums[cluster] += outcome - mean
    squares = sum(value**2 for value in sums.values())
    return len(sums) / (len(sums) - 1) * squares / num_examples**2


def _effective(outcomes: Sequence[bool], clusters: Sequence[str], mean: float) -> float:
    num_examples, num_clusters = len(outcomes), len(set(clusters))
    independent = mean * (1 - mean) / num_examples
    if num_clusters == 1 or independent == 0:
        # One video tells nothing of others; nor do answers that are all right, or all wrong.
        return float(num_clusters)
    design = clustered_variance(outcomes, clusters) / independent
    return num_examples / max(1.0, design)


def _wilson(mean: float, effective: float, z: float) -> tuple[float, float]:
    centre = mean + z**2 / (2 * effective)
    half = z * sqrt(mean * (1 - mean) / effective + z**2 / (4 * effective**2))
    scale = 1 + z**2 / effective
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
