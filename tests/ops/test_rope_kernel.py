"""The kernel gives what torch gives, at any shape and format, and fits the cards people own."""

import dataclasses
import os

import pytest
import torch
from exact_turns import FAR, SCALES, THETAS, exact_tables
from kernels import (
    TARGETS,
    KernelSpec,
    check_compiled,
    compile_for,
    error_of,
    interpreted,
    limit_of,
)
from kv_cases import FORMATS
from rope_cases import (
    CASES,
    DEVICE,
    run_kernel,
    use_kernel,
    zero_store,
)

from llava_video.ops import rope as module
from llava_video.ops.kv_format import StoredKv, group_channels
from llava_video.ops.rope import rotate_and_store, rotate_and_store_reference, rotate_reference
from llava_video.ops.rotation import Rotation, make_rotation
from llava_video.values import KvFormat

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture
def by_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    use_kernel(monkeypatch)


def quantisation_error(store: StoredKv, scales: torch.Tensor | None, kv_format: KvFormat):
    """Half a step of every channel, (n, H, d), and what float16 loses of an offset; 0 if plain."""
    if scales is None:
        return 0.0
    steps = scales.float() if kv_format == "int8" else scales[..., 0].float().abs()
    offsets = torch.zeros_like(steps) if kv_format == "int8" else scales[..., 1].float().abs()
    # A step is rounded to float16, which the largest code multiplies.
    half = steps * (0.5 + 16 * 2.0**-11) + offsets * 2.0**-11 + 1e-6
    half = half[..., None] if kv_format == "int8" else half
    return half.repeat_interleave(store.head_dim // half.shape[-1], dim=-1)


def run_reference(given, rotation, store: StoredKv, slots, dtype: torch.dtype):
    """Return queries and a plain store by torch, of the same numbers in a dtype."""
    q, k, v = (x.to(dtype) for x in given)
    plain = zero_store(store.num_heads, store.head_dim, "plain", dtype, q.device)
    return rotate_and_store_reference(q, k, v, rotation, plain, slots), plain


def as_stored(exact: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
    """Return the reference in its dtype; as the interpreter cuts bfloat16 off where it runs."""
    if rounded.dtype is not torch.bfloat16 or not IS_INTERPRETED:
        return rounded
    return (exact.view(torch.int32) & -65536).view(torch.float32)


def nearest_or_next(codes, expected, store: StoredKv) -> bool:
    """Whether codes are the reference's, save for a few that are one beside."""
    if store.kv_format == "int4":
        codes, expected = (torch.cat((x & 15, x >> 4), -1).int() for x in (codes, expected))
    apart = (codes.int() - expected.int()).abs()
    return bool(apart.max() <= 1 and (apart > 0).float().mean() <= 2e-3)


@interpreted
@pytest.mark.usefixtures("by_kernel")
@pytest.mark.parametrize(("dtype", "kv_format", "shape"), CASES)
def test_the_kernel_gives_what_torch_gives(dtype, kv_format: KvFormat, shape):
    out, store, given, rotation, slots = run_kernel(shape, dtype, kv_format)
    q32, store32 = run_reference(given, rotation, store, slots, torch.float32)
    own, own_store = run_reference(given, rotation, store, slots, dtype)
    assert error_of(out, q32) <= limit_of(q32, as_stored(q32, own))
    found, exact, rounded = (x.plain(torch.float32) for x in (store, store32, own_store))
    for idx, scales in enumerate((store.k_scales, store.v_scales)):
        if scales is None:
            limit = limit_of(exact[idx], as_stored(exact[idx], rounded[idx].to(dtype)))
            assert error_of(found[idx], exact[idx]) <= limit
        else:
            limit = quantisation_error(store, scales, kv_format)
            assert ((found[idx] - exact[idx]).abs() <= limit).all()
    if kv_format != "plain":
        expected = zero_store(shape[2], shape[3], kv_format, dtype, DEVICE)
        rotate_and_store_reference(*given, rotation, expected, slots)
        assert nearest_or_next(store.k, expected.k, store)
        assert nearest_or_next(store.v, expected.v, store)
        untouched = [slot for slot in range(40) if slot not in slots]
        assert not store.k_scales[untouched].any()


@interpreted
@pytest.mark.usefixtures("by_kernel")
@pytest.mark.parametrize("theta", THETAS)
def test_the_kernels_own_cosines_are_exact_far_away_at_any_scale(theta: float):
    """A head of ones, then zeros, is rotated into its cosines, then its sines."""
    num, which = len(SCALES), torch.arange(len(SCALES))
    rotation = make_rotation(
        torch.full((num,), FAR), SCALES, which, head_dim=128, theta=theta, device=DEVICE
    )
    q = torch.ones(num, 1, 128, device=DEVICE)
    q[..., 64:] = 0
    store = zero_store(1, 128, "plain", torch.float32, DEVICE)
    out = rotate_and_store(q, q.clone(), q.clone(), rotation, store, which.to(DEVICE))
    exact = torch.stack([exact_tables(FAR, 128, theta, scale) for scale in SCALES])
    assert (out[:, 0].cpu().double() - exact.flatten(1)).abs().max() <= 2e-7
    whole = out[:, 0, :64].square() + out[:, 0, 64:].square()
    assert (whole - 1).abs().max() <= 4e-7


@interpreted
@pytest.mark.usefixtures("by_kernel")
def test_the_kernels_cosines_are_exact_in_every_quarter():
    """Phases at, and one beside, each eighth of a turn, where polynomials and signs change."""
    eighths = torch.arange(-4, 5, dtype=torch.int64) << 61
    turns = torch.cat([eighths + offset for offset in (-(1 << 33), -1, 0, 1, 1 << 33)])
    rotation = Rotation(
        idxs=torch.ones(1, dtype=torch.int64, device=DEVICE),
        scale_idxs=torch.zeros(1, dtype=torch.int32, device=DEVICE),
        frequencies=turns[None].to(DEVICE),
    )
    num = len(turns)
    q = torch.ones(1, 1, 2 * num, device=DEVICE)
    q[..., num:] = 0
    store = zero_store(1, 2 * num, "plain", torch.float32, DEVICE)
    slots = torch.zeros(1, dtype=torch.int64, device=DEVICE)
    out = rotate_and_store(q, q.clone(), q.clone(), rotation, store, slots).flatten().cpu().double()
    angles = turns.double() * (torch.pi * 2.0**-63)
    assert (out[:num] - angles.cos()).abs().max() <= 2e-7
    assert (out[num:] - angles.sin()).abs().max() <= 2e-7


def mutants(given, rotation: Rotation, slots: torch.Tensor) -> dict[str, tuple]:
    """Queries, keys and values (by slot) of wrong ways, by torch."""
    q, k, v = given
    cos, sin = rotation.tables()
    order = torch.arange(q.shape[2]).view(-1, 2).T.flatten()

    def interleaved(x: torch.Tensor) -> torch.Tensor:
        """Rotate channel 2 j with 2 j + 1."""
        return rotate_reference(x[..., order], cos, sin)[..., order.argsort()]

    def right(x: torch.Tensor) -> torch.Tensor:
        return rotate_reference(x, cos, sin)

    def backwards(x: torch.Tensor) -> torch.Tensor:
        return rotate_reference(x, cos, -sin)

    def next_token(x: torch.Tensor) -> torch.Tensor:
        return rotate_reference(x, cos.roll(1, 0), sin.roll(1, 0))

    return {
        "interleaved pairs": (interleaved(q), interleaved(k), v, slots),
        "the other way round": (backwards(q), backwards(k), v, slots),
        "another token's index": (next_token(q), next_token(k), v, slots),
        "keys left as they are": (right(q), k, v, slots),
        "values rotated too": (right(q), right(k), right(v), slots),
        "keys and values exchanged": (right(q), v, right(k), slots),
        "one slot further": (right(q), right(k), v, slots + 1),
        "slots in order": (right(q), right(k), v, slots.sort().values),
        "heads exchanged": (right(q), right(k).flip(1), v.flip(1), slots),
        "rotated twice": (right(right(q)), right(right(k)), v, slots),
    }


@interpreted
@pytest.mark.usefixtures("by_kernel")
@pytest.mark.parametrize("kv_format", FORMATS)
def test_wrong_ways_are_rejected(kv_format: KvFormat):
    """Each mutant differs from the kernel by more than the tolerance its format has."""
    _, store, given, rotation, slots = run_kernel((3, 4, 2, 64), torch.float32, kv_format)
    right, right_store = run_reference(given, rotation, store, slots, torch.float32)
    limits = [quantisation_error(store, x, kv_format) for x in (store.k_scales, store.v_scales)]
    kept = []
    for name, (q, k, v, places) in mutants(given, rotation, slots).items():
        wrong = zero_store(2, 64, "plain", torch.float32, DEVICE)
        wrong.write(places, k, v)
        is_q_right = error_of(right, q) <= limit_of(right, right)
        is_stored_right = all(
            ((mine - theirs).abs() <= limit + 1e-6).all()
            for mine, theirs, limit in zip(
                store.plain(torch.float32), wrong.plain(torch.float32), limits, strict=True
            )
        )
        if is_q_right and is_stored_right:
            kept.append(name)
    assert kept == []
    assert error_of(right_store.k, store.plain(torch.float32)[0]) < 0.5  # the limits are no excuse


POINTERS = {
    "idxs_ptr": "*i64", "scale_idxs_ptr": "*i32", "frequencies_ptr": "*i64", "slots_ptr": "*i64",
}  # fmt: skip
NUMBERS = (
    "num_tokens", "num_q_heads", "num_kv_heads", "heads_per_program", "num_q_programs",
    "q_token_stride", "q_head_stride", "k_token_stride", "k_head_stride", "v_token_stride",
    "v_head_stride", "store_token_stride", "scales_token_stride",
)  # fmt: skip


def spec_of(kv_format: KvFormat, dtype: str = "bf16", head_dim: int = 128, *, has_tables=False):
    """The kernel as the launcher asks for it, for several heads."""
    codes = {"plain": dtype, "int8": "i8", "int4": "u8"}[kv_format]
    scales = dtype if kv_format == "plain" else "fp16"
    pointers = POINTERS | {f"{name}_ptr": f"*{dtype}" for name in ("q", "k", "v")}
    pointers |= {f"{name}_store_ptr": f"*{codes}" for name in ("k", "v")}
    pointers |= {f"{name}_scales_ptr": f"*{scales}" for name in ("k", "v")}
    tables = ("cos_ptr", "sin_ptr")
    pointers |= dict.fromkeys(tables, "*fp32") if has_tables else {}
    cols = 1 << (head_dim // 2 - 1).bit_length()
    constants = {
        "HEAD_DIM": head_dim,
        "GROUP_CHANNELS": group_channels(head_dim),
        "KV_FORMAT": kv_format,
        "ALIGN": 8,
        "TILE_TOKENS": 1024 // cols,
        "TILE_Q_HEADS": 2,
        "TILE_KV_HEADS": 1 if kv_format == "int4" else 2,
        "TILE_COLS": cols,
    }
    return KernelSpec(
        module="llava_video.ops.rope_kernel",
        name="rotate_and_store_kernel",
        types=pointers | dict.fromkeys(NUMBERS, "i32"),
        constants=constants if has_tables else constants | dict.fromkeys(tables),
        aligned=tuple(pointers),
    )


def check(spec: KernelSpec, targets: tuple[int, ...]) -> None:
    """Assert the house's limits, and that queries and plain keys move 16 bytes at a time."""
    halves = 1 if spec.types["q_ptr"] != "*fp32" else 2  # 16 bytes are 8 or 4 channels
    for compiled in compile_for(spec, targets):
        check_compiled(compiled)
        loads, stores = compiled.global_loads, compiled.global_stores
        q_heads, kv_heads = spec.constants["TILE_Q_HEADS"], spec.constants["TILE_KV_HEADS"]
        assert loads["128"] >= 2 * halves * (q_heads + 2 * kv_heads), compiled
        q_stores = 2 * halves * q_heads
        plain_stores = 2 * halves * 2 * kv_heads if spec.constants["KV_FORMAT"] == "plain" else 0
        assert stores["128"] == q_stores + plain_stores, compiled


@interpreted
@pytest.mark.usefixtures("by_kernel")
@pytest.mark.parametrize(("dtype", "kv_format", "shape"), CASES)
def test_the_compiled_kernel_is_the_launched_one(dtype, kv_format, shape, monkeypatch):
    """What is compiled ahead of time below has the constants that a launch has."""
    launched = []

    class Spy:
        def __getitem__(self, grid):
            return lambda *_, **constants: launched.append((grid, constants))

    monkeypatch.setattr(module, "rotate_and_store_kernel", Spy())
    run_kernel(shape, dtype, kv_format)
    ((grid, constants),) = launched
    num_tokens, num_q, num_kv, head_dim = shape
    expected = spec_of(kv_format, head_dim=head_dim).constants
    heads = {"TILE_Q_HEADS": min(2, num_q), "TILE_KV_HEADS": min(num_kv, expected["TILE_KV_HEADS"])}
    expected = {n: v for n, v in (expected | heads).items() if n.isupper()} | {"num_warps": 4}
    assert constants | {"ALIGN": 8} == expected
    assert grid == (-(-num_tokens // expected["TILE_TOKENS"]), -(-num_q // 2) + -(-num_kv // 2))


def test_compiles_for_real_gpus():
    check(spec_of("plain"), (80, 90))


@pytest.mark.slow
@pytest.mark.parametrize("kv_format", FORMATS)
@pytest.mark.parametrize(
    ("dtype", "head_dim"), [("bf16", 128), ("fp16", 64), ("bf16", 256), ("fp32", 128)]
)
def test_compiles_in_every_format_for_every_card(kv_format, dtype: str, head_dim: int):
    check(spec_of(kv_format, dtype, head_dim), TARGETS)


@pytest.mark.slow
def test_compiles_with_tables():
    check(spec_of("plain", has_tables=True), TARGETS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kv_format", "head_dim"), [("plain", 24), ("int4", 80), ("int8", 96), ("int4", 192)]
)
def test_compiles_for_odd_heads(kv_format: KvFormat, head_dim: int):
    """No spills; a head that ends within 16 bytes is moved by 8."""
    for compiled in compile_for(spec_of(kv_format, head_dim=head_dim), (80, 90)):
        if head_dim % 16:
            assert compiled.global_loads["64"] > 0
            compiled = dataclasses.replace(compiled, global_loads={"128": 1})
        check_compiled(compiled)
