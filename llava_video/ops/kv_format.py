"""Keys and values as a cache stores them: plain, as 8-bit integers, or as 4-bit integers.

Formulas, per token and head of d channels, x the channels, scales stored as float16:
    int8: s = max|x| / 127;               code = floor(x / s + 1/2) within -127..127;  x' = s code
    int4: per group of 64 channels (the whole head where 64 does not divide it)
          z = min x, s = (max x - z) / 15;  code = floor((x - z) / s + 1/2) within 0..15
          x' = s code + z
Codes are computed with the rounded scale and offset, so that what is read is the nearest there is.
An int4 byte holds channel j in its low half and channel j + d/2 in its high half: the two that the
rotary embedding pairs. Bytes of one token and layer at 4 heads of 128: plain 2,048 (bfloat16), int8
1,040, int4 576. Knows no cache and no attention.
"""

from dataclasses import dataclass

import torch

from llava_video.values import KvFormat

GROUP_CHANNELS = 64
INT8_MOST = 127
INT4_MOST = 15


@dataclass(frozen=True, slots=True)
class StoredKv:
    """Keys and values of some consecutive tokens of one layer, as they stand in memory.

    Attributes:
        k: (n, Hkv, d) in the plain dtype, (n, Hkv, d) int8, or (n, Hkv, d / 2) uint8.
        v: the same.
        k_scales: None; (n, Hkv) float16; or (n, Hkv, groups, 2) float16, scale before offset.
        v_scales: the same.
        kv_format: which of the three.
    """

    k: torch.Tensor
    v: torch.Tensor
    k_scales: torch.Tensor | None = None
    v_scales: torch.Tensor | None = None
    kv_format: KvFormat = "plain"

    @property
    def num_tokens(self) -> int:
        """Token places."""
        return self.k.shape[0]

    @property
    def num_heads(self) -> int:
        """Key and value heads."""
        return self.k.shape[1]

    @property
    def head_dim(self) -> int:
        """Channels of one head."""
        return self.k.shape[2] * (2 if self.kv_format == "int4" else 1)

    def part(self, start: int, stop: int) -> "StoredKv":
        """Return the tokens [start, stop) as views."""
        cut = slice(start, stop)
        return StoredKv(
            self.k[cut],
            self.v[cut],
            None if self.k_scales is None else self.k_scales[cut],
            None if self.v_scales is None else self.v_scales[cut],
            self.kv_format,
        )

    def plain(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values (n, Hkv, d) in a dtype; views where they are stored so."""
        return (
            dequantise(self.k, self.k_scales, self.kv_format, dtype),
            dequantise(self.v, self.v_scales, self.kv_format, dtype),
        )

    def write(self, slots: torch.Tensor | slice, k: torch.Tensor, v: torch.Tensor) -> None:
        """Store keys and values, quantised first where the format is.

        Args:
            slots: n token places, int64 or a slice.
            k: (n, Hkv, d), rotated.
            v: (n, Hkv, d).
        """
        for codes, scales, x in ((self.k, self.k_scales, k), (self.v, self.v_scales, v)):
            new_codes, new_scales = quantise(x, self.kv_format)
            codes[slots] = new_codes.to(codes.dtype)
            if scales is not None and new_scales is not None:
                scales[slots] = new_scales


def empty_stored(
    num_tokens: int,
    num_heads: int,
    head_dim: int,
    *,
    kv_format: KvFormat,
    dtype: torch.dtype,
    device: torch.device,
) -> StoredKv:
    """Return memory for keys and values of so many tokens of one layer, not filled.

    Raises:
        ValueError: when int4 is asked of an odd head.
    """
    shape = (num_tokens, num_heads, head_dim)
    if kv_format == "plain":
        k, v = (torch.empty(shape, dtype=dtype, device=device) for _ in range(2))
        return StoredKv(k, v)
    if kv_format == "int8":
        k, v = (torch.empty(shape, dtype=torch.int8, device=device) for _ in range(2))
        scales_shape: tuple[int, ...] = (num_tokens, num_heads)
    else:
        if head_dim % 2:
            raise ValueError(f"int4 pairs channels, and a head has {head_dim} of them.")
        half = (num_tokens, num_heads, head_dim // 2)
        k, v = (torch.empty(half, dtype=torch.uint8, device=device) for _ in range(2))
        scales_shape = (num_tokens, num_heads, head_dim // group_channels(head_dim), 2)
    ks, vs = (torch.empty(scales_shape, dtype=torch.float16, device=device) for _ in range(2))
    return StoredKv(k, v, ks, vs, kv_format)


def group_channels(head_dim: int) -> int:
    """Return how many channels share an int4 scale: 64, or the whole head."""
    return GROUP_CHANNELS if head_dim % GROUP_CHANNELS == 0 else head_dim


def quantise(x: torch.Tensor, kv_format: KvFormat) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the codes and scales of some keys or values.

    Args:
        x: (n, H, d) floating point.
        kv_format: "plain" gives x back.

    Returns:
        Codes and scales of the shapes `StoredKv` names.
    """
    if kv_format == "plain":
        return x, None
    x = x.float()
    if kv_format == "int8":
        scales = (x.abs().amax(dim=-1) / INT8_MOST).half()
        codes = torch.floor(x / _divisor(scales)[..., None] + 0.5)
        return codes.clamp(-INT8_MOST, INT8_MOST).to(torch.int8), scales
    num_tokens, num_heads, head_dim = x.shape
    groups = x.view(num_tokens, num_heads, -1, group_channels(head_dim))
    low, high = groups.amin(dim=-1).half(), groups.amax(dim=-1)
    steps = ((high - low.float()) / INT4_MOST).half()
    codes = torch.floor((groups - low.float()[..., None]) / _divisor(steps)[..., None] + 0.5)
    nibbles = codes.clamp(0, INT4_MOST).to(torch.uint8).view(num_tokens, num_heads, head_dim)
    first, second = nibbles.chunk(2, dim=-1)
    return first | (second << 4), torch.stack((steps, low), dim=-1)


def dequantise(
    codes: torch.Tensor, scales: torch.Tensor | None, kv_format: KvFormat, dtype: torch.dtype
) -> torch.Tensor:
    """Return the values that codes and scales stand for.

    Args:
        codes: as `StoredKv.k`.
        scales: as `StoredKv.k_scales`.
        kv_format: how they are stored.
        dtype: of the result.

    Returns:
        (n, H, d); the codes themselves when they are plain and of this dtype.
    """
    if scales is None:
        return codes.to(dtype)
    if kv_format == "int8":
        return (codes.float() * scales.float()[..., None]).to(dtype)
    nibbles = torch.cat((codes & 15, codes >> 4), dim=-1).float()
    num_tokens, num_heads, head_dim = nibbles.shape
    groups = nibbles.view(num_tokens, num_heads, -1, group_channels(head_dim))
    steps, low = scales.float().unbind(dim=-1)
    values = groups * steps[..., None] + low[..., None]
    return values.view(num_tokens, num_heads, head_dim).to(dtype)


def _divisor(scales: torch.Tensor) -> torch.Tensor:
    """Return the scales in float32, 1 where they are 0: all codes are 0 there whatever divides."""
    wide = scales.float()
    return torch.where(wide == 0, 1.0, wide)
