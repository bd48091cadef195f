"""Rotary embedding at real-valued positions, half-split ("rotate half") convention.

Formula, for channel pair j < d/2 of a head with d channels, at position p:
    angle = p theta^(-2j/d)
    y[j] = x[j] cos(angle) - x[j + d/2] sin(angle)
    y[j + d/2] = x[j + d/2] cos(angle) + x[j] sin(angle)
Linear scaling is part of the position: p = index / scale. Angles are computed in float64 and the
rotation in float32: at position 1,000,000 a float32 angle is wrong by 6e-2 rad, here by 1e-10.
Source: Su et al. 2021 (arXiv 2104.09864), section 3.4.2, in the half-split order of the GPT-NeoX
and Llama code. The gain of a fused kernel is not measured yet.
"""

import torch


def rope_tables(
    positions: torch.Tensor, head_dim: int, theta: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the cosines and sines of every position and channel pair.

    Args:
        positions: (L,) any dtype, real-valued.
        head_dim: channels of one head, even.
        theta: the base.

    Returns:
        Two (L, 1, head_dim / 2) float32 tensors on the positions' device; the 1 is for the heads.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float64, device=positions.device)
    frequencies = torch.pow(theta, exponents / -head_dim)
    angles = positions.to(torch.float64)[:, None, None] * frequencies
    return angles.cos().float(), angles.sin().float()


def rotate_reference(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Return the rotated heads.

    Args:
        x: (L, H, d).
        cos: (L, 1, d / 2) float32, of `rope_tables`.
        sin: the same.

    Returns:
        (L, H, d) in x's dtype.
    """
    first, second = x.float().chunk(2, dim=-1)
    rotated = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return rotated.to(x.dtype)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Return the rotated heads, with as few passes and tensors as torch allows.

    Args:
        x: (L, H, d).
        cos: (L, 1, d / 2) float32, of `rope_tables`.
        sin: the same.

    Returns:
        (L, H, d) in x's dtype, contiguous.

    Raises:
        ValueError: when the tables are not of x's length and head width.
    """
    length, _, head_dim = x.shape
    if cos.shape != (length, 1, head_dim // 2) or sin.shape != cos.shape:
        shapes = f"{tuple(cos.shape)} and {tuple(sin.shape)}"
        raise ValueError(f"tables {shapes} for x {tuple(x.shape)}.")
    if x.dtype is not torch.float32 or torch.is_grad_enabled():
        return rotate_reference(x, cos, sin)
    half = head_dim // 2
    first, second = x[..., :half], x[..., half:]
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    torch.mul(first, cos, out=y[..., :half]).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=y[..., half:]).addcmul_(first, sin)
    return y
