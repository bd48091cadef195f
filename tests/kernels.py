"""What every kernel's tests share: the interpreter, the tolerance, and compiling without a GPU.

Kernels run in Triton's interpreter in the test process; they are compiled for real GPUs in another
process, because a process decides for one of the two when a kernel is decorated.
"""

import functools
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest
import torch

COMPILER = Path(__file__).with_name("kernel_compiler.py")
# The cards people own: A100, RTX 30xx and A10, RTX 40xx and L4, H100 and H200.
TARGETS = (80, 86, 89, 90)

interpreted = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1" and not torch.cuda.is_available(),
    reason="needs Triton's interpreter (TRITON_INTERPRET=1) or a GPU",
)


@dataclass(frozen=True, kw_only=True)
class KernelSpec:
    """One way of compiling a kernel.

    Attributes:
        module: where it is.
        name: what it is called there.
        types: Triton's type of every argument that is not constant: "*bf16", "i32", "fp32".
        constants: the compile-time arguments.
        aligned: arguments divisible by 16: pointers, and strides.
        num_warps: warps of a program.
        num_stages: stages of software pipelining.
    """

    module: str
    name: str
    types: dict[str, str]
    constants: dict[str, object]
    aligned: tuple[str, ...]
    num_warps: int = 4
    num_stages: int = 2


@dataclass(frozen=True)
class Compiled:
    """What a GPU's assembler made of a kernel.

    Attributes:
        target: 89 for sm_89.
        registers: per thread.
        stack_bytes: per thread; spilled registers stand there.
        spills: load and store instructions to local memory.
        shared_bytes: of one program.
        global_loads: how many global loads there are of each width in bits.
        global_stores: the same of stores.
        instructions: names of the matrix instructions found: "HMMA", "HGMMA", "IMMA".
    """

    target: int
    registers: int
    stack_bytes: int
    spills: int
    shared_bytes: int
    global_loads: dict[str, int] = field(default_factory=dict)
    global_stores: dict[str, int] = field(default_factory=dict)
    instructions: tuple[str, ...] = ()


def compile_for(spec: KernelSpec, targets: tuple[int, ...] = TARGETS) -> list[Compiled]:
    """Compile one kernel for some GPUs, in a process without the interpreter."""
    return [_compiled(json.dumps(asdict(spec), sort_keys=True), targets)[t] for t in targets]


@functools.cache
def _compiled(spec: str, targets: tuple[int, ...]) -> dict[int, Compiled]:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    asked = json.dumps({"spec": json.loads(spec), "targets": targets})
    done = subprocess.run(
        [sys.executable, str(COMPILER)],
        input=asked,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = [Compiled(**values) for values in json.loads(done.stdout.splitlines()[-1])]
    return {compiled.target: compiled for compiled in found}


def check_compiled(compiled: Compiled, *, most_registers: int = 128) -> None:
    """Assert what every kernel must be on every card: no spills, wide accesses, little memory."""
    check_lean(compiled, most_registers=most_registers)
    assert compiled.global_loads.get("128", 0) > 0, compiled


def check_lean(compiled: Compiled, *, most_registers: int = 128) -> None:
    """Assert the same of a kernel that reads bytes from where they happen to lie."""
    assert compiled.spills == 0, compiled
    assert compiled.stack_bytes == 0, compiled
    assert compiled.registers <= most_registers, compiled
    assert compiled.shared_bytes <= 99 * 1024, compiled


def limit_of(reference32: torch.Tensor, reference: torch.Tensor) -> float:
    """Return the house tolerance: twice the error that the dtype alone makes, plus 1e-6.

    Args:
        reference32: the reference on float32 casts of the inputs.
        reference: the reference in the tested dtype.
    """
    return 2 * (reference.float() - reference32.float()).abs().max().item() + 1e-6


def error_of(out: torch.Tensor, reference32: torch.Tensor) -> float:
    """Return the largest absolute error."""
    return (out.float() - reference32.float()).abs().max().item()
