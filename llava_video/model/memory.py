"""Memory on a device: whether an error says that it is not there, and how much of it is free.

Knows no model.
"""

import os

import torch

# The CPU allocator reports a refused allocation as a plain RuntimeError: "can't allocate memory",
# on Windows "not enough memory".
_REFUSALS = ("allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error is a refused allocation, on an accelerator or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _REFUSALS)


def free_words(device: torch.device) -> str:
    """Say how much memory a device has free for this process.

    On a GPU that is what the driver has, or what a limit set for the process leaves, and what the
    allocator keeps without using it.
    """
    if device.type == "cuda":
        free_bytes, total_bytes = torch.cuda.mem_get_info(device)
        reserved_bytes = torch.cuda.memory_reserved(device)
        limit_bytes = int(torch.cuda.get_per_process_memory_fraction(device) * total_bytes)
        free_bytes = min(free_bytes, max(0, limit_bytes - reserved_bytes))
        free_bytes += reserved_bytes - torch.cuda.memory_allocated(device)
    elif hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        free_bytes = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        return "how much is free is not known here"
    return f"{free_bytes / 2**20:,.0f} MiB free"
