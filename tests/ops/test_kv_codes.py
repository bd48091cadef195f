"""The conversions inside kernels: the instructions' own meaning, computed by hand for every byte.

No interpreter runs inline instructions, so the few that are used are spelled out here and applied
to all 256 bytes; a GPU runs them in the tests of the kernels.
"""

import ast
import inspect
import re

import numpy as np
import torch
from kernels import interpreted

from llava_video.ops import kv_codes
from llava_video.ops.dispatch import tl, triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def assembly_of(kernel) -> str:
    """Return the inline instructions in a kernel's source."""
    tree = ast.parse(inspect.getsource(kernel.fn))
    texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
    return next(text for text in texts if isinstance(text, str) and "prmt" in text)


def permuted(a: int, b: int, selector: int) -> int:
    """Return PTX's prmt: each byte of the result is one of the eight bytes of b:a."""
    octets = [(a >> 8 * i) & 255 for i in range(4)] + [(b >> 8 * i) & 255 for i in range(4)]
    return sum(octets[(selector >> 4 * i) & 7] << 8 * i for i in range(4))


def halves(register: int) -> np.ndarray:
    return np.array([register], dtype=np.uint32).view(np.float16)


def subtracted(a: int, b: int) -> int:
    return int((halves(a) - halves(b)).view(np.uint32)[0])


OPERATIONS = {
    "xor.b32": lambda a, b: a ^ b,
    "and.b32": lambda a, b: a & b,
    "shr.b32": lambda a, b: a >> b,
    "mov.b32": lambda a: a,
    "prmt.b32": permuted,
    "sub.f16x2": subtracted,
}


def run(assembly: str, register: int, num_outputs: int) -> np.ndarray:
    """Run the instructions on one register of four bytes; the float16 numbers that come out."""
    values = {f"${num_outputs}": register}
    for line in re.findall(r"^\s*(\w+\.\w+) (.*);", assembly, re.MULTILINE):
        name, (target, *arguments) = line[0], line[1].split(", ")
        values[target] = OPERATIONS[name](
            *(values[a] if a in values else int(a, 16) for a in arguments)
        )
    return np.concatenate([halves(values[f"${i}"]) for i in range(num_outputs)])


REGISTERS = np.arange(256, dtype=np.uint8).reshape(64, 4)


def test_every_signed_byte():
    assembly = assembly_of(kv_codes.int8_codes)
    for octets in REGISTERS:
        out = run(assembly, int(octets.view(np.uint32)[0]), 2)
        assert out.tolist() == octets.view(np.int8).tolist()


def test_every_pair_of_nibbles():
    assembly = assembly_of(kv_codes.int4_codes)
    for octets in REGISTERS:
        out = run(assembly, int(octets.view(np.uint32)[0]), 4)
        assert out.tolist() == [*(octets & 15).tolist(), *(octets >> 4).tolist()]


def test_a_wrong_instruction_would_be_seen():
    assembly = assembly_of(kv_codes.int8_codes).replace("0x4342", "0x4341")
    assert run(assembly, 0x04030201, 2).tolist() == [1, 2, 2, 4]
    assembly = assembly_of(kv_codes.int8_codes).replace("0x64806480", "0x64006400")
    assert run(assembly, 0x04030201, 2).tolist() == [129, 130, 131, 132]


@triton.jit
def _unpack_kernel(pairs_ptr, codes_ptr, out_ptr, WIDE: tl.constexpr):
    places = tl.arange(0, 16)
    step, low = kv_codes.load_int4_scales(pairs_ptr + places, places < 15)
    first, second = kv_codes.int4_codes(tl.load(codes_ptr + places), WIDE)
    signed = kv_codes.int8_codes(tl.load(codes_ptr + places).to(tl.int8, bitcast=True), WIDE)
    tl.store(out_ptr + places, step)
    tl.store(out_ptr + 16 + places, low)
    tl.store(out_ptr + 32 + places, first.to(tl.float32))
    tl.store(out_ptr + 48 + places, second.to(tl.float32))
    tl.store(out_ptr + 64 + places, signed.to(tl.float32))


@interpreted
def test_pairs_and_codes_inside_a_kernel():
    pairs = torch.tensor([[0.5, -3.0], [6e-8, 65504.0]], dtype=torch.float16).repeat(8, 1)
    codes = torch.arange(7, 256, 16, dtype=torch.uint8)
    out = torch.empty(5, 16, device=DEVICE)
    _unpack_kernel[(1,)](
        pairs.to(DEVICE).view(torch.int32), codes.to(DEVICE), out, WIDE=DEVICE == "cpu"
    )
    steps, lows = pairs.float().unbind(dim=1)
    steps[15], lows[15] = 0, 0  # masked
    expected = torch.stack(
        (steps, lows, (codes & 15).float(), (codes >> 4).float(), codes.view(torch.int8).float())
    )
    assert torch.equal(out.cpu(), expected)
