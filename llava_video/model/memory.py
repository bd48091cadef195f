"""An error of PyTorch → whether it says that memory is not there.

Knows no device and no model.
"""

import torch

# The CPU allocator reports a refused allocation as a plain RuntimeError: "can't allocate memory",
# on Windows "not enough memory".
_REFUSALS = ("allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error is a refused allocation, on an accelerator or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _REFUSALS)
