"""The decode kernels: equal to their definition, wrong ones rejected, compiled for real GPUs."""

from dataclasses import replace

import pytest
import torch
from kernels import KernelSpec, check_compiled, compile_for, interpreted
from kv_cases import FORMATS, random_stored, seeded

from llava_video.ops.decode_attention import decode_attention_reference
from llava_video.ops.decode_kernels import attend_items, merge_items
from llava_video.ops.decode_work import DecodeWork, plan_decode
from llava_video.ops.kv_format import StoredKv
from llava_video.values import KvFormat

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HALF = [torch.bfloat16, torch.float16]
# Query heads, kv heads, head size; spans of each row.
SHAPES = [
    ((14, 2, 64), [[(0, 61), (64, 130)]]),  # of the 0.5B model
    ((28, 4, 128), [[(3, 52)]]),  # of the 7B model
    ((3, 3, 24), [[(1, 18)], [(0, 3), (5, 7)]]),  # no grouping, odd sizes
    ((6, 2, 192), [[(0, 37)]]),  # three int4 groups: one stands in both halves
    ((4, 1, 256), [[(2, 35)]]),
    ((40, 2, 8), [[(0, 9)]]),  # more queries a head than 16
    ((1, 1, 2), [[(4, 5)]]),  # one element
]


def case(
    heads: tuple[int, int, int],
    spans: list[list[tuple[int, int]]],
    kv_format: KvFormat,
    dtype: torch.dtype = torch.float32,
) -> tuple[torch.Tensor, StoredKv, DecodeWork, float]:
    num_heads, num_kv_heads, head_dim = heads
    num_tokens = max(stop for row in spans for _, stop in row) + 2
    store = random_stored(num_tokens, num_kv_heads, head_dim, kv_format, dtype=dtype, device=DEVICE)
    q = seeded(len(spans), num_heads, head_dim, dtype=dtype, device=DEVICE) * 2
    work = plan_decode(spans, split_tokens=32, device=DEVICE)
    return q, store, work, head_dim**-0.5


def run(q: torch.Tensor, store: StoredKv, work: DecodeWork, scale: float) -> torch.Tensor:
    return merge_items(*attend_items(q, store, work, scale), work, q.dtype)


def errors(arguments, out: torch.Tensor) -> tuple[float, float]:
    """Return the error against the float64 definition, and the house tolerance."""
    q, store, work, scale = arguments
    exact = decode_attention_reference(q.double(), store, work, scale)
    rounded = decode_attention_reference(q, store, work, scale).double()
    limit = 2 * (rounded - exact).abs().max().item() + 1e-6
    if q.is_cuda and q.dtype is not torch.float32:
        # Products of 16-bit numbers: weights are rounded too, which the definition does not.
        limit += torch.finfo(q.dtype).eps * store.plain(torch.float32)[1].abs().max().item()
    if not q.is_cuda and q.dtype is torch.bfloat16:
        # The interpreter cuts off what a GPU rounds: one ulp.
        limit += torch.finfo(q.dtype).eps * exact.abs().max().item()
    return (out.double() - exact).abs().max().item(), limit


@interpreted
@pytest.mark.parametrize("kv_format", FORMATS)
@pytest.mark.parametrize(("heads", "spans"), SHAPES)
def test_equals_the_definition(heads, spans, kv_format: KvFormat):
    arguments = case(heads, spans, kv_format)
    error, limit = errors(arguments, run(*arguments))
    assert error <= limit


@interpreted
@pytest.mark.parametrize("kv_format", FORMATS)
@pytest.mark.parametrize("dtype", HALF)
def test_half_precision(dtype: torch.dtype, kv_format: KvFormat):
    arguments = case((6, 2, 32), [[(0, 40)], [(3, 4)]], kv_format, dtype)
    out = run(*arguments)
    error, limit = errors(arguments, out)
    assert out.dtype is dtype
    assert error <= limit


@interpreted
@pytest.mark.parametrize("kv_format", FORMATS)
def test_empty_items_rows_without_tokens_and_gaps_between_queries(kv_format: KvFormat):
    q, store, _, scale = case((6, 2, 16), [[(0, 50)]], kv_format)
    spans = [[(0, 40)], [], [(45, 45), (7, 9)]]
    work = plan_decode(spans, split_tokens=16, num_items=8, device=DEVICE)
    wide = seeded(3, 12, 16, device=DEVICE)
    q = wide[:, :6]
    partial, lse = attend_items(q, store, work, scale)
    assert not partial[4:].any()
    assert (lse[4:] == -torch.inf).all()
    out = run(q, store, work, scale)
    error, limit = errors((q, store, work, scale), out)
    assert error <= limit
    assert not out[1].any()


@interpreted
def test_items_in_the_midst_of_a_row_may_be_empty():
    """A graph's fixed items: those a short row does not need stand among those of others."""
    q, store, _, scale = case((2, 1, 16), [[(0, 50)], [(0, 9)]], "plain")
    items = torch.tensor([[0, 0, 0], [0, 0, 32], [0, 32, 50], [1, 5, 5], [1, 0, 9]])
    work = DecodeWork(
        items=items.int().to(DEVICE),
        row_items=torch.tensor([0, 3, 5], dtype=torch.int32, device=DEVICE),
    )
    error, limit = errors((q, store, work, scale), run(q, store, work, scale))
    assert error <= limit


@interpreted
def test_scores_far_from_zero():
    """Log-sum-exps of hundreds: a merge that does not take the largest off would overflow."""
    q, store, work, scale = case((2, 1, 16), [[(0, 50)]], "plain")
    q = q * 200
    partial, lse = attend_items(q, store, work, scale)
    assert lse.abs().max() > 200
    error, limit = errors((q, store, work, scale), merge_items(partial, lse, work, q.dtype))
    # Scores of hundreds carry float32 errors of 1e-5 into the weights.
    assert error <= max(limit, 1e-4)
    weights = lse.exp()
    naive = (partial * weights[..., None]).sum(0) / weights.sum(0)[..., None]
    assert not naive.isfinite().all()


def mutants(q, store: StoredKv, work: DecodeWork, scale: float) -> dict[str, torch.Tensor]:
    """What wrong kernels would give, by name: right ones on inputs that are wrong in that way."""
    partial, lse = attend_items(q, store, work, scale)
    num_rows, _, head_dim = q.shape
    # Query head h with kv head h % Hkv instead of h // group.
    mixed = q.view(num_rows, -1, store.num_heads, head_dim).transpose(1, 2).flatten(1, 2)
    out = run(mixed.contiguous(), store, work, scale)
    unmixed = out.view(num_rows, store.num_heads, -1, head_dim).transpose(1, 2).flatten(1, 2)
    found = {
        "group mapping": unmixed,
        "items weigh the same": merge_items(partial, torch.zeros_like(lse), work, q.dtype),
        "scores not scaled": run(q, store, work, 1.0),
    }
    k, v, ks, vs = store.k, store.v, store.k_scales, store.v_scales
    if store.kv_format == "int8":
        ones = torch.ones_like(ks)
        found["scale of keys missing"] = run(q, replace(store, k_scales=ones), work, scale)
        found["scale of values missing"] = run(q, replace(store, v_scales=ones), work, scale)
    if store.kv_format == "int4":
        no_k, no_v = (torch.stack((s[..., 0], s[..., 1] * 0), dim=-1) for s in (ks, vs))
        swapped = replace(store, k=(k << 4) | (k >> 4), v=(v << 4) | (v >> 4))
        found["offset of keys ignored"] = run(q, replace(store, k_scales=no_k), work, scale)
        found["offset of values ignored"] = run(q, replace(store, v_scales=no_v), work, scale)
        found["nibbles swapped"] = run(q, swapped, work, scale)
        if ks.shape[2] > 1:
            flipped = replace(store, k_scales=ks.flip(2).contiguous())
            found["groups swapped"] = run(q, flipped, work, scale)
    return found


@interpreted
@pytest.mark.parametrize("kv_format", FORMATS)
def test_wrong_kernels_are_rejected(kv_format: KvFormat):
    arguments = case((8, 2, 128), [[(0, 45)]], kv_format)
    _, limit = errors(arguments, run(*arguments))
    found = mutants(*arguments)
    assert len(found) == {"plain": 3, "int8": 5, "int4": 7}[kv_format]
    for name, out in found.items():
        assert errors(arguments, out)[0] > 100 * limit, name


@interpreted
def test_what_a_kernel_cannot_read_is_refused():
    q, store, work, scale = case((4, 2, 16), [[(0, 9)]], "int8")
    with pytest.raises(ValueError, match="heads of 320 channels, at most 256"):
        attend_items(seeded(1, 2, 320), random_stored(3, 1, 320), work, scale)
    with pytest.raises(ValueError, match=r"queries \(1, 4, 16\) have strides"):
        attend_items(q.transpose(1, 2).contiguous().transpose(1, 2), store, work, scale)
    apart = replace(store, v=store.v.transpose(0, 1).contiguous().transpose(0, 1))
    with pytest.raises(ValueError, match="has gaps"):
        attend_items(q, apart, work, scale)


def spec_of(
    kv_format: KvFormat, dtype: str = "bf16", heads: tuple[int, int, int] = (28, 4, 128)
) -> KernelSpec:
    """Return the kernel as `attend_items` launches it."""
    num_heads, num_kv_heads, head_dim = heads
    is_wide = dtype == "fp32"
    width = head_dim // 2 if kv_format == "int4" else head_dim
    padded = 1 << (head_dim - 1).bit_length()
    codes = {"plain": f"*{dtype}", "int8": "*i8", "int4": "*u8"}[kv_format]
    scales = {"plain": f"*{dtype}", "int8": "*fp16", "int4": "*i32"}[kv_format]
    pointers = {
        "q_ptr": f"*{dtype}",
        "k_ptr": codes,
        "v_ptr": codes,
        "k_scales_ptr": scales,
        "v_scales_ptr": scales,
        "items_ptr": "*i32",
        "partial_ptr": "*fp32",
        "lse_ptr": "*fp32",
    }
    return KernelSpec(
        module="llava_video.ops.decode_kernels",
        name="_attend_kernel",
        types={**pointers, "q_stride": "i32", "score_scale": "fp32"},
        constants={
            "NUM_KV_HEADS": num_kv_heads,
            "GROUP": num_heads // num_kv_heads,
            "HEAD_DIM": head_dim,
            "GROUP_CHANNELS": 64 if head_dim % 64 == 0 else head_dim,
            "BITS": {"plain": 16, "int8": 8, "int4": 4}[kv_format],
            "IS_WIDE": is_wide,
            "BLOCK_GROUP": 16,
            "BLOCK_TOKENS": 16 if is_wide else {64: 128, 128: 64, 256: 32}[padded],
            "BLOCK_COLS": max(16, 1 << (width - 1).bit_length()),
        },
        aligned=(*pointers, "q_stride"),
        num_warps=8 if is_wide else 4,
    )


def check(spec: KernelSpec, targets: tuple[int, ...] = (80, 86, 89, 90)) -> None:
    """Keys and values 16 bytes at a time; 32 bits are items and int4 scales, 16 int8 scales."""
    is_half = not spec.constants["IS_WIDE"]
    for compiled in compile_for(spec, targets):
        check_compiled(compiled, most_registers=255)
        if is_half:
            assert {"HMMA", "HGMMA"} & set(compiled.instructions), compiled
            assert compiled.registers <= 192, compiled
            assert "8" not in compiled.global_loads, compiled
            # Two programs at once on a 24 GB card, three on the others.
            assert compiled.shared_bytes <= 44 * 1024, compiled


def test_compiles_for_real_gpus():
    check(spec_of("int8"), (80, 90))


@pytest.mark.slow
@pytest.mark.parametrize("kv_format", FORMATS)
@pytest.mark.parametrize(
    ("dtype", "heads"),
    [
        ("bf16", (28, 4, 128)),
        ("fp16", (28, 4, 128)),
        ("bf16", (14, 2, 64)),
        ("bf16", (32, 32, 128)),
        ("bf16", (4, 2, 256)),
    ],
)
def test_compiles_in_every_kind(kv_format: KvFormat, dtype: str, heads: tuple[int, int, int]):
    check(spec_of(kv_format, dtype, heads))


@pytest.mark.slow
@pytest.mark.parametrize("kv_format", FORMATS)
def test_compiles_for_float32(kv_format: KvFormat):
    check(spec_of(kv_format, "fp32"))


@pytest.mark.slow
@pytest.mark.parametrize(("head_dim", "out"), [(64, "bf16"), (128, "fp16"), (128, "fp32")])
def test_merge_compiles(head_dim: int, out: str):
    pointers = {
        "partial_ptr": "*fp32",
        "lse_ptr": "*fp32",
        "row_items_ptr": "*i32",
        "out_ptr": f"*{out}",
    }
    spec = KernelSpec(
        module="llava_video.ops.decode_kernels",
        name="_merge_kernel",
        types=pointers,
        constants={
            "NUM_HEADS": 28,
            "HEAD_DIM": head_dim,
            "BLOCK_ITEMS": 16,
            "BLOCK_COLS": head_dim,
        },
        aligned=tuple(pointers),
    )
    for compiled in compile_for(spec):
        check_compiled(compiled)
