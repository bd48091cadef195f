"""Llama 3's change of the rotary frequencies, as a value and as a formula on plain numbers.

Formula, for a frequency that makes t turns over the positions the model was made for:
    s = (t - low) / (high - low), held between 0 and 1
    frequency -> frequency (s + (1 - s) / factor)
so waves of more than `high` turns stay, those of less than `low` are stretched by the factor, and
between the two it is a smooth mixture.
Source: transformers, `_compute_llama3_parameters`, where the three cases are three branches.

Imports no torch, so that sizes and plans can carry it.
"""

from dataclasses import dataclass
from decimal import Decimal

from llava_video.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class FrequencyBands:
    """Llama 3's change of the rotary frequencies: long waves are stretched, short ones are not.

    Attributes:
        factor: what waves longer than `positions / low_factor` are stretched by, > 0.
        low_factor: see `factor`, > 0.
        high_factor: waves shorter than `positions / high_factor` stay; between, a smooth mixture;
            > `low_factor`.
        positions: what the model was made for before the change, >= 1.
    """

    factor: float
    low_factor: float
    high_factor: float
    positions: int

    def __post_init__(self) -> None:
        """Refuse numbers that leave no mixture between the bands."""
        is_ordered = 0 < self.low_factor < self.high_factor
        if not (is_ordered and self.factor > 0 and self.positions > 0):
            raise ConfigError(
                f"frequency bands of factor {self.factor}, low_factor {self.low_factor}, "
                f"high_factor {self.high_factor}, positions {self.positions}.",
                "all above 0, and high_factor above low_factor.",
            )

    def multiplier(self, turns: Decimal) -> Decimal:
        """Return what the frequency of a wave is multiplied by, in the context's precision.

        Args:
            turns: of the wave from one position to the next, >= 0.

        >>> bands = FrequencyBands(factor=8, low_factor=1, high_factor=4, positions=8192)
        >>> bands.multiplier(Decimal(5) / 8192), bands.multiplier(Decimal("0.5") / 8192)
        (Decimal('1'), Decimal('0.125'))
        """
        low, high = Decimal(self.low_factor), Decimal(self.high_factor)
        own = (turns * self.positions - low) / (high - low)
        share = min(max(own, Decimal(0)), Decimal(1))
        return share + (1 - share) / Decimal(self.factor)
