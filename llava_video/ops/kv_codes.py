"""Inside kernels: codes of a quantised cache -> the small integers they are, as floating point.

Four codes of a register at once: a byte u under the exponent of 1024 is the float16 number 1024 + u
(0x6400 + u), so that its value is one subtraction away; int8 codes are made unsigned first. Plain
casts take twice as many instructions, and stand here for the interpreter and for float32. The
inline code is not "pure", for the compiler would move it behind shared memory, where matrices of
8-bit numbers cannot be transposed. Layouts of the codes: `kv_format`.
"""

# ruff: noqa: ANN001, ANN201  # a kernel's arguments have no Python types
# mypy: disable-error-code="no-untyped-def, untyped-decorator, attr-defined"

from llava_video.ops.dispatch import tl, triton


@triton.jit
def int8_codes(codes, IS_WIDE: tl.constexpr):
    """Return int8 codes as float16, or as float32 where products are wide."""
    if IS_WIDE:
        floats = codes.to(tl.float32)
    else:
        floats = tl.inline_asm_elementwise(
            """{
            .reg .b32 u, m;
            xor.b32 u, $2, 0x80808080;
            mov.b32 m, 0x64806480;
            prmt.b32 $0, u, 0x64646464, 0x4140;
            prmt.b32 $1, u, 0x64646464, 0x4342;
            sub.f16x2 $0, $0, m;
            sub.f16x2 $1, $1, m;
            }""",
            "=&r,=&r,r",
            [codes],
            dtype=tl.float16,
            is_pure=False,
            pack=4,
        )
    return floats


@triton.jit
def int4_codes(codes, IS_WIDE: tl.constexpr):
    """Return the low and the high half of each byte as float16, or as float32."""
    if IS_WIDE:
        low, high = (codes & 15).to(tl.float32), (codes >> 4).to(tl.float32)
    else:
        low, high = tl.inline_asm_elementwise(
            """{
            .reg .b32 u, w, m;
            and.b32 u, $4, 0x0f0f0f0f;
            shr.b32 w, $4, 4;
            and.b32 w, w, 0x0f0f0f0f;
            mov.b32 m, 0x64006400;
            prmt.b32 $0, u, 0x64646464, 0x4140;
            prmt.b32 $1, u, 0x64646464, 0x4342;
            prmt.b32 $2, w, 0x64646464, 0x4140;
            prmt.b32 $3, w, 0x64646464, 0x4342;
            sub.f16x2 $0, $0, m;
            sub.f16x2 $1, $1, m;
            sub.f16x2 $2, $2, m;
            sub.f16x2 $3, $3, m;
            }""",
            "=&r,=&r,=&r,=&r,r",
            [codes],
            dtype=(tl.float16, tl.float16),
            is_pure=False,
            pack=4,
        )
    return low, high


@triton.jit
def load_int4_scales(places, is_token):
    """Load scales and offsets, two float16 numbers that stand as one of 32 bits; float32."""
    pair = tl.load(places, mask=is_token, other=0)
    step = (pair & 0xFFFF).to(tl.uint16).to(tl.float16, bitcast=True)
    low = ((pair >> 16) & 0xFFFF).to(tl.uint16).to(tl.float16, bitcast=True)
    return step.to(tl.float32), low.to(tl.float32)
