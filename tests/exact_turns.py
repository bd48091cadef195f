"""Cosines and sines of rotary phases that owe nothing to floating point, for the tests of them."""

import functools
import math
import random
from decimal import Decimal, localcontext
from fractions import Fraction

import torch

from llava_video.ops.frequency_bands import FrequencyBands

FAR = 4_000_000
SCALES = (1.0, 2.5, 7.3, 23.0, 64.0, *(random.Random(3).uniform(1, 64) for _ in range(5)))
THETAS = (1e4, 1e6)
# Far more places than 64 bits have.
DIGITS = 90


@functools.cache
def pi() -> Fraction:
    """Machin: pi / 4 = 4 arctan(1/5) - arctan(1/239), in integers."""
    one = 10**DIGITS

    def arctan_of_inverse(n: int) -> int:
        term, total, k = one // n, 0, 0
        while term:
            total += (-1) ** k * (term // (2 * k + 1))
            term, k = term // (n * n), k + 1
        return total

    return Fraction(4 * (4 * arctan_of_inverse(5) - arctan_of_inverse(239)), one)


@functools.cache
def turns_per_index(head_dim: int, theta: float, scale: float) -> tuple[Fraction, ...]:
    """theta^(-2j/d) / (2 pi scale), as theta^(-2j/d) = e^(-2j/d ln theta) with 90 digits."""
    with localcontext() as context:
        context.prec = DIGITS
        powers = [
            (Decimal(theta).ln() * Decimal(-2 * j) / head_dim).exp() for j in range(head_dim // 2)
        ]
    return tuple(Fraction(power) / (2 * pi() * Fraction(scale)) for power in powers)


def banded_turns(
    head_dim: int, theta: float, scale: float, bands: FrequencyBands
) -> tuple[Fraction, ...]:
    """`turns_per_index` after Llama 3's change, case by case."""
    factor, low, high = (Fraction(x) for x in (bands.factor, bands.low_factor, bands.high_factor))
    found = []
    for turns in turns_per_index(head_dim, theta, 1.0):
        over_all = turns * bands.positions
        share = (over_all - low) / (high - low)
        mixed = (1 - share) * turns / factor + share * turns
        found.append(turns if over_all > high else turns / factor if over_all < low else mixed)
    return tuple(turns / Fraction(scale) for turns in found)


def exact_tables(idx: int, head_dim: int, theta: float, scale: float) -> torch.Tensor:
    """Cosines and sines (2, d/2) float64 of a token."""
    return tables_of(turns_per_index(head_dim, theta, scale), idx)


def tables_of(turns_per_index: tuple[Fraction, ...], idx: int) -> torch.Tensor:
    """Cosines and sines (2, d/2) float64: whole turns are taken off before anything is rounded."""
    angles = [2 * math.pi * float(turns * idx - round(turns * idx)) for turns in turns_per_index]
    both = [[f(angle) for angle in angles] for f in (math.cos, math.sin)]
    return torch.tensor(both, dtype=torch.float64)
