"""Which implementation of an op runs, asked per call; and Triton, or a stand-in for it.

A kernel runs on tensors of a GPU where Triton is installed; everywhere else the op's torch code
runs and gives the same answer. Knows no op.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from llava_video import backends
from llava_video.errors import BackendMissingError
from llava_video.ops.choice import choice as _choice

try:
    import triton
    import triton.language as tl
except ImportError:
    IS_TRITON_HERE = False
else:
    IS_TRITON_HERE = True

__all__ = ["IS_TRITON_HERE", "device_of", "tl", "triton", "uses_triton"]


class _AbsentKernel:
    """What `@triton.jit` makes where there is no Triton."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn

    def __getitem__(self, _grid: object) -> Callable[..., Any]:
        def launch(*_: object, **__: object) -> None:
            backends.require("triton")
            raise BackendMissingError("Triton is not usable here.", 'pip install "triton"')

        return launch


class _AbsentTriton:
    """Enough of the module for kernels to be defined, and refused when launched."""

    def jit(self, fn: Callable[..., Any] | None = None, **_: object) -> Any:
        return _AbsentKernel if fn is None else _AbsentKernel(fn)

    def cdiv(self, a: int, b: int) -> int:
        return -(-a // b)

    def next_power_of_2(self, n: int) -> int:
        return 1 << (n - 1).bit_length()


class _AbsentLanguage:
    """`triton.language` for annotations in kernels that never run."""

    constexpr = object()


if not IS_TRITON_HERE:
    triton = _AbsentTriton()
    tl = _AbsentLanguage()


def uses_triton(tensor: torch.Tensor) -> bool:
    """Say whether an op on this tensor runs its Triton kernel.

    `LLAVA_VIDEO_OPS=reference` and `native` keep kernels off, `triton` puts them on whatever the
    device (a CPU tensor then needs Triton's interpreter, `TRITON_INTERPRET=1`); for debugging.

    Raises:
        ConfigError: the variable holds something else.
    """
    choice = _choice()
    if choice == "triton":
        return True
    return choice == "auto" and tensor.is_cuda and IS_TRITON_HERE


def device_of(tensor: torch.Tensor) -> AbstractContextManager[object]:
    """Return a context in which kernels are launched on a tensor's GPU, not on the current one."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
