"""Wrong readings of a stored weight, by name: what a test of weights must be able to see."""

import torch

from llava_video.ops.weight_format import StoredWeight


def mutants(stored: StoredWeight) -> dict[str, StoredWeight]:
    """Return what a wrong formula would make of the codes; only those that would be seen.

    An output without neighbours cannot get a neighbour's scale, nor a group without others theirs.
    """
    codes, scales = stored.codes, stored.scales
    found: dict[str, StoredWeight] = {}
    if stored.weight_format == "int8":
        found["codes without a sign"] = StoredWeight(codes.abs(), scales)
        found["steps 3 % too large"] = StoredWeight(codes, scales * 1.03)
        if stored.num_outputs > 1:
            found["the next output's scale"] = StoredWeight(codes, scales.roll(1))
        return found
    swapped = (codes & 15) << 4 | codes >> 4
    found["the other nibble"] = StoredWeight(swapped, scales)
    found["zero ignored"] = StoredWeight(codes, scales * torch.tensor([1, 0]).to(scales))
    found["scale and zero swapped"] = StoredWeight(codes, scales.flip(-1))
    found["zero at code 7"] = StoredWeight(codes, moved_zero(scales, 1))
    found["zero at code 0"] = StoredWeight(codes, moved_zero(scales, 8))
    if stored.num_outputs > 1:
        found["the next output's scale"] = StoredWeight(codes, scales.roll(1, 1))
    if scales.shape[0] > 1:
        found["the next group's scale"] = StoredWeight(codes, scales.roll(1, 0))
    return found


def moved_zero(scales: torch.Tensor, num_codes: int) -> torch.Tensor:
    """Return int4 scales whose zero stands for another code."""
    moved = scales.clone()
    moved[..., 1] += num_codes * moved[..., 0]
    return moved
