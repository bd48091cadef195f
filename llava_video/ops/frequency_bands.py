"""Llama 3's change of the rotary frequencies, as a value and as a formula on plain numbers.

Imports no torch, so that sizes and plans can carry it.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FrequencyBands:
    """Llama 3's change of the rotary frequencies: long waves are stretched, short ones are not.

    Attributes:
        factor: what waves longer than `positions / low_factor` are stretched by.
        low_factor: see `factor`.
        high_factor: waves shorter than `positions / high_factor` stay; between, a smooth mixture.
        positions: what the model was made for before the change.
    """

    factor: float
    low_factor: float
    high_factor: float
    positions: int
