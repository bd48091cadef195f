"""Codes become the same numbers by the kernel as by the definition, to the last bit in float32."""

import pytest
import torch
from kernels import KernelSpec, check_compiled, compile_for, interpreted
from kv_cases import random_stored

from llava_video.ops import dequantise as module
from llava_video.ops.dequantise import dequantise_into, dequantise_into_reference
from llava_video.ops.kv_format import StoredKv
from llava_video.values import KvFormat

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [
    (70, 4, 128),  # a 7B's heads, more than one program
    (37, 2, 64),  # a 0.5B's: one scale for both halves of a byte
    (5, 3, 24),  # one group for the whole head
    (3, 2, 192),  # three groups: the second stands in both halves
    (1, 1, 2),
]


def empty_pair(store: StoredKv, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (store.num_tokens, store.num_heads, store.head_dim)
    return torch.empty(shape, dtype=dtype), torch.empty(shape, dtype=dtype)


@pytest.mark.parametrize("kv_format", ["plain", "int8", "int4"])
def test_the_reference_is_what_a_cache_says(kv_format: KvFormat, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_PIECE_TOKENS", 4)
    store = random_stored(11, 2, 16, kv_format)
    k, v = empty_pair(store, torch.bfloat16)
    dequantise_into(store, k, v)
    plain = store.plain(torch.bfloat16)
    assert torch.equal(k, plain[0])
    assert torch.equal(v, plain[1])


@interpreted
@pytest.mark.parametrize("kv_format", ["int8", "int4"])
@pytest.mark.parametrize("shape", SHAPES)
def test_kernel_equals_the_reference(shape: tuple[int, int, int], kv_format: KvFormat):
    store = random_stored(*shape, kv_format, device=DEVICE)
    k, v = (x.to(DEVICE) for x in empty_pair(store, torch.float32))
    module._dequantise_into_triton(store, k, v)
    plain = store.plain(torch.float32)
    assert torch.equal(k, plain[0])
    assert torch.equal(v, plain[1])


@interpreted
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_kernel_rounds_once(dtype: torch.dtype):
    """One rounding is off by an ulp at most: the interpreter cuts off where a GPU rounds."""
    store = random_stored(9, 2, 64, "int4", device=DEVICE)
    k, v = (x.to(DEVICE) for x in empty_pair(store, dtype))
    module._dequantise_into_triton(store, k, v)
    for out, exact in zip((k, v), store.plain(torch.float32), strict=True):
        ulp = exact.abs() * torch.finfo(dtype).eps + 1e-7
        assert ((out.float() - exact).abs() <= ulp).all()


@interpreted
def test_only_the_parts_rows_are_read_and_written():
    store = random_stored(20, 2, 16, "int8", device=DEVICE)
    k, v = torch.full((2, 8, 2, 16), 7.0, device=DEVICE)
    module._dequantise_into_triton(store.part(5, 10), k[:5], v[:5])
    plain = store.part(5, 10).plain(torch.float32)
    assert torch.equal(k[:5], plain[0])
    assert torch.equal(v[:5], plain[1])
    assert (k[5:] == 7).all()
    assert (v[5:] == 7).all()


@interpreted
@pytest.mark.parametrize("mutant", ["halves swapped", "offset ignored", "groups swapped"])
def test_wrong_codes_are_rejected(mutant: str):
    store = random_stored(4, 2, 128, "int4", device=DEVICE)
    codes, scales = store.k, store.k_scales
    assert scales is not None
    if mutant == "halves swapped":
        codes = (codes << 4) | (codes >> 4)
    elif mutant == "offset ignored":
        scales = torch.stack((scales[..., 0], torch.zeros_like(scales[..., 1])), dim=-1)
    else:
        scales = scales.flip(2)
    wrong = StoredKv(codes, store.v, scales.contiguous(), store.v_scales, "int4")
    k, v = (x.to(DEVICE) for x in empty_pair(store, torch.float32))
    module._dequantise_into_triton(wrong, k, v)
    assert (k - store.plain(torch.float32)[0]).abs().max() > 0.05


def test_shapes_that_do_not_fit_are_refused():
    store = random_stored(4, 2, 16, "int8")
    k, v = empty_pair(store, torch.float32)
    with pytest.raises(ValueError, match=r"\(4, 2, 16\) values do not go into \(3, 2, 16\)"):
        module._dequantise_into_triton(store, k[:3], v)
    with pytest.raises(ValueError, match="have gaps"):
        module._dequantise_into_triton(store, k.transpose(0, 1).contiguous().transpose(0, 1), v)
    with pytest.raises(ValueError, match="no codes"):
        module._dequantise_into_triton(random_stored(4, 2, 16), k, v)


@pytest.mark.gpu
@pytest.mark.parametrize("kv_format", ["int8", "int4"])
def test_a_gpu_runs_the_kernel(kv_format: KvFormat):
    store = random_stored(5000, 4, 128, kv_format, device="cuda")
    k, v = (x.cuda() for x in empty_pair(store, torch.bfloat16))
    expected_k, expected_v = torch.empty_like(k), torch.empty_like(v)
    dequantise_into(store, k, v)
    dequantise_into_reference(store, expected_k, expected_v)
    assert torch.equal(k, expected_k)
    assert torch.equal(v, expected_v)


def spec_of(kv_format: KvFormat, out: str = "bf16", head_dim: int = 128) -> KernelSpec:
    is_int4 = kv_format == "int4"
    block_cols = head_dim // 2 if is_int4 else head_dim
    return KernelSpec(
        module="llava_video.ops.dequantise",
        name="_dequantise_kernel",
        types={
            "codes_ptr": "*u8" if is_int4 else "*i8",
            "scales_ptr": "*fp16",
            "out_ptr": f"*{out}",
            "num_rows": "i32",
        },
        constants={
            "HEAD_DIM": head_dim,
            "GROUP_CHANNELS": 64,
            "IS_INT4": is_int4,
            "BLOCK_ROWS": 2048 // block_cols,
            "BLOCK_COLS": block_cols,
        },
        aligned=("codes_ptr", "scales_ptr", "out_ptr"),
    )


def check(spec: KernelSpec, targets: tuple[int, ...] = (80, 86, 89, 90)) -> None:
    for compiled in compile_for(spec, targets):
        check_compiled(compiled)
        assert set(compiled.global_loads) <= {"128", "16", "32"}, compiled  # 16: scales
        assert set(compiled.global_stores) == {"128"}, compiled


def test_compiles_for_real_gpus():
    check(spec_of("int4"), (80, 90))


@pytest.mark.slow
@pytest.mark.parametrize(("out", "head_dim"), [("bf16", 128), ("fp16", 64), ("fp32", 64)])
@pytest.mark.parametrize("kv_format", ["int8", "int4"])
def test_compiles_in_every_kind(kv_format: KvFormat, out: str, head_dim: int):
    check(spec_of(kv_format, out, head_dim))
