"""A refused allocation is told from every other failure."""

import pytest
import torch

from llava_video.model.memory import free_words, is_out_of_memory


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


@pytest.mark.parametrize(
    ("fraction", "free"),
    [
        (1.0, "3,072 MiB free"),  # 2 GiB of the driver's and 1 GiB that the allocator keeps unused
        (0.5, "2,048 MiB free"),  # 12 of 24 GiB allowed, 11 taken, 10 of them in use
    ],
)
def test_free_is_what_this_process_may_still_take(monkeypatch, fraction: float, free: str):
    answers = {
        "mem_get_info": (2 * 2**30, 24 * 2**30),
        "memory_reserved": 11 * 2**30,
        "memory_allocated": 10 * 2**30,
        "get_per_process_memory_fraction": fraction,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, answer=answer: answer)
    assert free_words(torch.device("cuda", 0)) == free


def test_free_memory_of_the_host_is_said():
    assert free_words(torch.device("cpu")).endswith(("MiB free", "not known here"))
