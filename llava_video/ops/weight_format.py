"""Weights of linear layers as they are stored: 8-bit or 4-bit integers with bfloat16 scales.

Formulas, w a row of N x K weights, codes rounded to the nearest integer, half to even:
    int8: s = max|w| / 127 per row;         code = round(w / s) within -127..127;  w' = s code
    int4: per row and group of 128 inputs (64, 32 or the whole row where 128 does not divide it)
          s = (max w - min w) / 15, z = min w + 8 s;  code = round((w - z) / s) + 8 within 0..15
          w' = s (code - 8) + z
Codes are computed with the rounded scale and zero, so that what is read is the nearest there is: an
error of one weight is uniform within half a step, s / sqrt(12) on average (root mean square). An
int4 byte holds input i of its group in its low half and input i + 64 (half a group) in its high
half, so that a group is 64 neighbouring bytes. Source: weight-only quantisation as in torch's
`_weight_int8pack_mm` and `_weight_int4pack_mm`, whose scales and zeros these are.

3584 x 3584 bfloat16 weights take 25.7 MB; int8 12.9 MB, int4 6.8 MB. Knows no layer.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import torch

QuantisedFormat = Literal["int8", "int4"]

GROUPS_INPUTS: Final = (128, 64, 32)
INT8_MOST: Final = 127
INT4_MOST: Final = 15
_MIDDLE: Final = 8
# Quantising works on this many weights at a time, in float32.
_CPU_PIECE_NUMBERS: Final = 2**20
_GPU_PIECE_NUMBERS: Final = 9 * 2**20
# On a CPU the memory for a piece is asked for in this size, above 32 MiB, and only its start is
# touched: what is smaller, glibc's malloc keeps and cannot use for codes, which are aligned. A load
# then held half as much again as its codes.
_CPU_SCRATCH_NUMBERS: Final = 9 * 2**20


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """N x K weights as they stand in memory.

    Attributes:
        codes: int8 (N, K) int8; int4 (N, K / 2) uint8.
        scales: int8 (N,) bfloat16; int4 (K / group, N, 2), a scale and the zero, which is the
            weight that code 8 stands for. Neighbouring outputs are neighbours.
    """

    codes: torch.Tensor
    scales: torch.Tensor

    @property
    def weight_format(self) -> QuantisedFormat:
        """Which of the two."""
        return "int8" if self.scales.dim() == 1 else "int4"

    @property
    def num_outputs(self) -> int:
        """N."""
        return self.codes.shape[0]

    @property
    def num_inputs(self) -> int:
        """K."""
        return self.codes.shape[1] * (1 if self.weight_format == "int8" else 2)

    @property
    def group_inputs(self) -> int:
        """How many inputs share a scale."""
        is_row = self.weight_format == "int8"
        return self.num_inputs if is_row else self.num_inputs // self.scales.shape[0]

    @property
    def num_bytes(self) -> int:
        """Bytes of codes and scales."""
        return sum(part.numel() * part.itemsize for part in (self.codes, self.scales))

    def part(self, start: int, stop: int) -> "StoredWeight":
        """Return the outputs [start, stop) as views."""
        cut = slice(start, stop)
        is_row = self.weight_format == "int8"
        return StoredWeight(self.codes[cut], self.scales[cut] if is_row else self.scales[:, cut])

    def plain(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the weights (N, K) that the codes stand for; exact but for the last rounding."""
        wide = torch.promote_types(dtype, torch.float32)
        if self.weight_format == "int8":
            return (self.codes.to(wide) * self.scales.to(wide)[:, None]).to(dtype)
        scales, zeros = self.scales.to(wide).transpose(0, 1)[:, :, None].unbind(dim=-1)
        codes = unpacked(self.codes, self.group_inputs).to(wide)
        return ((codes - _MIDDLE) * scales + zeros).view(self.num_outputs, -1).to(dtype)


def empty_weight(
    num_outputs: int,
    num_inputs: int,
    weight_format: QuantisedFormat,
    device: str | torch.device | None = None,
) -> StoredWeight:
    """Return memory for weights, not filled.

    Args:
        num_outputs: N.
        num_inputs: K.
        weight_format: how they are stored.
        device: where; None for torch's current device.

    Raises:
        ValueError: when int4 is asked of an odd number of inputs, which do not fill their bytes.
    """

    def empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    if weight_format == "int8":
        return StoredWeight(empty(num_outputs, num_inputs, dtype=torch.int8), empty(num_outputs))
    if num_inputs % 2:
        raise ValueError(f"int4 stores two inputs in a byte, and there are {num_inputs}.")
    num_groups = num_inputs // group_inputs(num_inputs)
    codes = empty(num_outputs, num_inputs // 2, dtype=torch.uint8)
    return StoredWeight(codes, empty(num_groups, num_outputs, 2))


def group_inputs(num_inputs: int) -> int:
    """Return how many inputs share an int4 scale: 128, 64, 32, or the whole row."""
    return next((inputs for inputs in GROUPS_INPUTS if num_inputs % inputs == 0), num_inputs)


def quantise_weight(weight: torch.Tensor, weight_format: QuantisedFormat) -> StoredWeight:
    """Return weights as integers, on their device, beside one piece of them in float32.

    Args:
        weight: (N, K) of any float dtype, left as it is.
        weight_format: how to store them.

    Raises:
        ValueError: a weight is not finite, or int4 of an odd number of inputs.
    """
    num_outputs, num_inputs = weight.shape
    stored = empty_weight(num_outputs, num_inputs, weight_format, weight.device)
    quantise_piece = _quantise_int8 if weight_format == "int8" else _quantise_int4
    for start, piece in _pieces(weight):
        quantise_piece(piece, stored.part(start, start + piece.shape[0]))
    # A scale is made of the extremes of its row or group: one that is not finite shows in it.
    if not bool(stored.scales.isfinite().all()):
        raise ValueError(f"of {num_outputs} x {num_inputs} weights not all are finite.")
    return stored


def _quantise_int8(weight: torch.Tensor, stored: StoredWeight) -> None:
    """Fill `stored` from float32 weights, which are overwritten."""
    low, high = weight.aminmax(dim=1)
    stored.scales.copy_(torch.maximum(-low, high) / INT8_MOST)
    codes = weight.div_(_divisor(stored.scales)[:, None]).round_()
    stored.codes.copy_(codes.clamp_(-INT8_MOST, INT8_MOST))


def _quantise_int4(weight: torch.Tensor, stored: StoredWeight) -> None:
    """Fill `stored` from float32 weights, which are overwritten."""
    groups = weight.view(weight.shape[0], -1, stored.group_inputs)  # (n, G, group)
    low, high = groups.aminmax(dim=-1)
    scales, zeros = stored.scales.transpose(0, 1).unbind(dim=-1)  # (n, G), views
    scales.copy_((high - low) / INT4_MOST)
    zeros.copy_(low + _MIDDLE * scales.float())
    groups.sub_(zeros.float()[..., None]).div_(_divisor(scales)[..., None])
    first, second = groups.round_().add_(_MIDDLE).clamp_(0, INT4_MOST).chunk(2, dim=-1)
    packed = first.add_(second, alpha=INT4_MOST + 1)  # whole numbers up to 255, exact
    stored.codes.view(packed.shape).copy_(packed)


def unpacked(codes: torch.Tensor, group: int) -> torch.Tensor:
    """Return the codes 0..15 of packed bytes (N, K / 2) as (N, K / group, group)."""
    groups = codes.view(codes.shape[0], -1, group // 2)
    return torch.cat((groups & INT4_MOST, groups >> 4), dim=-1)


def _divisor(scales: torch.Tensor) -> torch.Tensor:
    """Return the scales in float32, 1 where they are 0: every weight there is the same."""
    wide = scales.float()
    return torch.where(wide == 0, 1.0, wide)


def _pieces(weight: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield (first output, float32 weights to be overwritten) of some outputs at a time."""
    num_outputs, num_inputs = weight.shape
    on_cpu = weight.device.type == "cpu"
    most = _CPU_PIECE_NUMBERS if on_cpu else _GPU_PIECE_NUMBERS
    step = max(1, most // max(1, num_inputs))
    numbers = max(step * num_inputs, _CPU_SCRATCH_NUMBERS if on_cpu else 0)
    scratch = torch.empty(numbers, dtype=torch.float32, device=weight.device)
    for start in range(0, num_outputs, step):
        plain = weight[start : start + step]
        piece = scratch[: plain.numel()].view(plain.shape)
        yield start, piece.copy_(plain)
