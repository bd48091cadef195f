"""A stored int4 weight -> the tensor of torchao whose product runs torch's tensor-core kernel.

For GPUs where Triton is not to be had, and to compare with. The codes, scales and zeros are ours:
what a weight means does not change, only the order of summation. The kernel takes inputs in
multiples of 1024 and outputs in multiples of 8, so the tensor is larger where they are not (14 %
for 3584 inputs), and it works in tiles of 16 rows, each reading all codes, so many rows gain
nothing. Source: `torchao.quantization.Int4TilePackedTo4dTensor`, torchao 0.14 to 0.18. Not run yet:
the kernel needs a GPU.
"""

from typing import Final

import torch
import torch.nn.functional as F

from llava_video import backends
from llava_video.ops.weight_format import GROUPS_INPUTS, StoredWeight, unpacked

_INPUTS_MULTIPLE: Final = 1024
_OUTPUTS_MULTIPLE: Final = 8
_INNER_TILES: Final = 8


def suits_torchao(weight: StoredWeight, dtype: torch.dtype) -> bool:
    """Say whether torchao's kernel can take a weight: int4, bfloat16 rows, a GPU.

    Args:
        weight: as stored, on its device.
        dtype: of the rows.
    """
    return (
        weight.weight_format == "int4"
        and weight.group_inputs in GROUPS_INPUTS
        and weight.codes.is_cuda
        and dtype is torch.bfloat16
    )


def torchao_weight(weight: StoredWeight) -> torch.Tensor:
    """Return a weight as torchao's tensor; `F.linear` takes it, and bfloat16 rows.

    Args:
        weight: int4, on a GPU.

    Raises:
        BackendMissingError: without the package.
    """
    backends.require("torchao")
    from torchao.quantization import Int4TilePackedTo4dTensor

    packed, scales_and_zeros = rearranged(weight)
    tensor: torch.Tensor = Int4TilePackedTo4dTensor(
        torch.ops.aten._convert_weight_to_int4pack(packed, _INNER_TILES),
        scales_and_zeros,
        [1, weight.group_inputs],
        torch.Size((weight.num_outputs, weight.num_inputs)),
    )
    return tensor


def rearranged(weight: StoredWeight) -> tuple[torch.Tensor, torch.Tensor]:
    """Return codes and scales in the order that torch's packing takes, padded with zero weights.

    Args:
        weight: int4.

    Returns:
        (N', K' / 2) uint8, an even input in the high half and the next one in the low half; and
        (K' / group, N', 2) bfloat16, scale before zero.
    """
    if weight.weight_format == "int8":
        raise ValueError("int8 weights are not packed.")
    group = weight.group_inputs
    more_inputs = -weight.num_inputs % _INPUTS_MULTIPLE
    more_outputs = -weight.num_outputs % _OUTPUTS_MULTIPLE
    codes = unpacked(weight.codes, group).view(weight.num_outputs, -1)
    codes = F.pad(codes, (0, more_inputs, 0, more_outputs))
    scales = F.pad(weight.scales, (0, 0, 0, more_outputs, 0, more_inputs // group))
    return (codes[:, ::2] << 4) | codes[:, 1::2], scales.contiguous()
