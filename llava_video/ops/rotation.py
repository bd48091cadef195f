"""Token indices and position scales -> how far each token is rotated, in 64-bit fixed point.

Formula, for channel pair j < d/2 of a head of d channels and the token of index i at scale s (its
position is i / s):
    F_j = round(theta^(-2j/d) / (2 pi s) 2^64)          turns per index, as integers
    phase = F_j i mod 2^64                              turns, of which whole ones have wrapped
    cos, sin of 2 pi phase / 2^64
An integer product wraps without an error, so what is left is the rounding of F_j: at index
4,000,000 at most 2^-43 of a turn. A float32 frequency is off by 2^-25 of itself, and that error
grows with the index: 6e-2 in the cosine at 1,000,000.
Where a checkpoint has frequency bands (Llama 3), theta^(-2j/d) is changed by theirs first.
Source: Su et al. 2021 (arXiv 2104.09864), section 3.4.2; Chen et al. 2023 (arXiv 2306.15595) for
the linear scaling of positions.

`compat` is the arithmetic of the reference code instead, float32 throughout, for parity runs.
Knows no heads and no cache.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Final, Literal

import torch

from llava_video.ops.dispatch import uses_triton
from llava_video.ops.frequency_bands import FrequencyBands

RotationMode = Literal["exact", "compat"]

_DIGITS: Final = 40
_PI: Final = Decimal("3.1415926535897932384626433832795028841971693993751")
_TURN: Final = 2**64


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """How far the heads of some tokens are rotated; the same in every layer.

    Attributes:
        idxs: (L,) int64, the tokens' places in their sequences.
        scale_idxs: (L,) int32, each token's row of `frequencies`.
        frequencies: (S, d / 2) int64, of `frequencies`, one row per scale.
        cos: (L, 1, d / 2) float32; None where a kernel makes it out of the three above. A kernel
            that is given tables reads them.
        sin: the same.
        radians: (S, d / 2) float32, radians per index by the reference's arithmetic; None where
            the rotation is exact.
    """

    idxs: torch.Tensor
    scale_idxs: torch.Tensor
    frequencies: torch.Tensor
    radians: torch.Tensor | None = None
    cos: torch.Tensor | None = None
    sin: torch.Tensor | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens it is for."""
        return self.idxs.shape[0]

    @property
    def head_dim(self) -> int:
        """Channels of one head."""
        return 2 * self.frequencies.shape[1]

    def part(self, start: int, stop: int) -> "Rotation":
        """Return the rotation of the tokens [start, stop), as views."""
        cut = slice(start, stop)
        return dataclasses.replace(
            self,
            idxs=self.idxs[cut],
            scale_idxs=self.scale_idxs[cut],
            cos=None if self.cos is None else self.cos[cut],
            sin=None if self.sin is None else self.sin[cut],
        )

    def to(self, device: torch.device) -> "Rotation":
        """Return it on a device, with tables where torch needs them; itself where it is there."""
        if self.idxs.device == device:
            return self
        moved = {name: x.to(device) for name, x in self._tensors().items()}
        return _with_tables(Rotation(**moved))

    def tables(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cosines and sines (L, 1, d / 2) float32, those it has or new ones."""
        if self.cos is not None and self.sin is not None:
            return self.cos, self.sin
        return self._new_tables()

    def copy_(self, other: "Rotation") -> None:
        """Overwrite these tensors by another's, in the memory that a CUDA graph reads.

        Raises:
            ValueError: when the other has more or fewer tokens or scales, or only one has tables.
        """
        own, new = self._tensors(), other._tensors()
        shapes, others = ({n: tuple(x.shape) for n, x in each.items()} for each in (own, new))
        if shapes != others:
            raise ValueError(f"a rotation of {others} over one of {shapes}.")
        for name, x in own.items():
            x.copy_(new[name], non_blocking=True)

    def advance_(self) -> None:
        """Go on to the tokens after these, in the same memory; a CUDA graph may capture it."""
        self.idxs.add_(1)
        if self.cos is not None and self.sin is not None:
            cos, sin = self._new_tables()
            self.cos.copy_(cos)
            self.sin.copy_(sin)

    def _new_tables(self) -> tuple[torch.Tensor, torch.Tensor]:
        rows = self.scale_idxs.long()
        if self.radians is not None:
            angles = self.idxs.float()[:, None] * self.radians[rows]
            return angles.cos()[:, None], angles.sin()[:, None]
        phases = self.frequencies[rows] * self.idxs[:, None]  # wraps, as it should
        exact = phases.double() * (2 * math.pi / _TURN)
        return exact.cos().float()[:, None], exact.sin().float()[:, None]

    def _tensors(self) -> dict[str, torch.Tensor]:
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: x for name, x in found.items() if x is not None}


def make_rotation(
    idxs: torch.Tensor,
    scales: Sequence[float],
    scale_idxs: torch.Tensor | None = None,
    *,
    head_dim: int,
    theta: float,
    device: torch.device,
    mode: RotationMode = "exact",
    bands: FrequencyBands | None = None,
) -> Rotation:
    """Return the rotation of some tokens, with tables unless a kernel makes its own.

    Args:
        idxs: (L,) integers, the tokens' places in their sequences.
        scales: position = index / scale, S of them; each a request's position scale times the
            checkpoint's.
        scale_idxs: (L,) integers, which scale each token has; None when there is one.
        head_dim: channels of one head, even.
        theta: the base of the checkpoint.
        device: where the result stands.
        mode: "compat" for the reference's float32 tables.
        bands: Llama 3's change of the frequencies, or None.

    Raises:
        ValueError: for an odd head, a scale that is not above 0, or tokens without a scale.
    """
    if scale_idxs is None:
        if len(scales) != 1:
            raise ValueError(f"{len(scales)} scales, and nothing says whose they are.")
        scale_idxs = torch.zeros(idxs.shape[0], dtype=torch.int32)
    if scale_idxs.shape != idxs.shape or idxs.dim() != 1:
        shapes = f"{tuple(scale_idxs.shape)} scales for {tuple(idxs.shape)} indices"
        raise ValueError(f"{shapes}; one for each is needed.")
    idxs = idxs.to(device, torch.int64)
    scale_idxs = scale_idxs.to(device, torch.int32)
    turns = torch.stack([frequencies(head_dim, theta, scale, bands) for scale in scales])
    turns = turns.to(device)
    radians = None
    if mode == "compat":
        radians = _reference_radians(scales, head_dim, theta, bands).to(device)
    return _with_tables(
        Rotation(idxs=idxs, scale_idxs=scale_idxs, frequencies=turns, radians=radians)
    )


@functools.lru_cache(maxsize=256)
def frequencies(
    head_dim: int, theta: float, scale: float, bands: FrequencyBands | None = None
) -> torch.Tensor:
    """Return the turns per index of every channel pair, as 64-bit fixed-point numbers.

    Args:
        head_dim: channels of one head, even.
        theta: the base.
        scale: position = index / scale.
        bands: Llama 3's change, or None.

    Returns:
        (head_dim / 2,) int64 on the CPU, shared between calls: read only. At scale 1 the first is
        2^64 / (2 pi), one radian.

    Raises:
        ValueError: for an odd head, or a base or a scale that is not above 0.
    """
    if head_dim < 2 or head_dim % 2:
        raise ValueError(f"a head of {head_dim} channels has no channel pairs.")
    if not (scale > 0 and theta > 0 and math.isfinite(scale) and math.isfinite(theta)):
        raise ValueError(f"theta {theta} and scale {scale} must be above 0.")
    with localcontext() as context:
        context.prec = _DIGITS
        turns = [
            Decimal(theta) ** (Decimal(-j) / head_dim) / (2 * _PI) for j in range(0, head_dim, 2)
        ]
        if bands is not None:
            turns = [each * bands.multiplier(each) for each in turns]
        whole = [int((each * _TURN / Decimal(scale)).to_integral_value()) for each in turns]
    return torch.tensor([_wrapped(turn) for turn in whole], dtype=torch.int64)


def _with_tables(rotation: Rotation) -> Rotation:
    """Return it with tables, unless a kernel makes its own; the reference's are always made."""
    has_tables = rotation.cos is not None and rotation.sin is not None
    if has_tables or (rotation.radians is None and uses_triton(rotation.idxs)):
        return rotation
    cos, sin = rotation.tables()
    return dataclasses.replace(rotation, cos=cos, sin=sin)


def _reference_radians(
    scales: Sequence[float], head_dim: int, theta: float, bands: FrequencyBands | None
) -> torch.Tensor:
    """Return (S, head_dim / 2) float32 radians per index, frequency / scale as the reference does.

    Source: transformers, `_compute_linear_scaling_rope_parameters`, `_compute_llama3_parameters`
    and `Qwen2RotaryEmbedding`.
    """
    inverse = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    if bands is not None:
        inverse = _reference_banded(inverse, bands)
    return torch.stack([inverse / scale for scale in scales])


def _reference_banded(inverse: torch.Tensor, bands: FrequencyBands) -> torch.Tensor:
    """Return (d / 2,) float32 frequencies after the change, in the reference's own steps."""
    low, high = bands.low_factor, bands.high_factor
    wave = 2 * math.pi / inverse
    share = (bands.positions / wave - low) / (high - low)
    is_long, is_short = wave > bands.positions / low, wave < bands.positions / high
    stretched = torch.where(is_long, inverse / bands.factor, inverse)
    mixed = (1 - share) * stretched / bands.factor + share * stretched
    return torch.where(is_long | is_short, stretched, mixed)


def _wrapped(turn: int) -> int:
    """Return the signed 64-bit integer of the same phase."""
    return (turn + _TURN // 2) % _TURN - _TURN // 2
