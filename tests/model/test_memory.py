"""A refused allocation is told from every other failure."""

import pytest
import torch

from llava_video.model.memory import is_out_of_memory


@pytest.mark.parametrize(
    ("error", "is_refusal"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to …"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to …"), True),
        (RuntimeError("device-side assert triggered"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_a_refusal_is_told_from_other_failures(error: Exception, is_refusal: bool):
    assert is_out_of_memory(error) is is_refusal


def test_what_the_cpu_allocator_really_says_is_known():
    # 2**58 bytes: no address space holds them, so nothing is taken from anybody.
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
