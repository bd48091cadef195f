"""Cache formats: codes by hand, errors within half a step, bytes per token, and wrong ways."""

import pytest
import torch
from kv_cases import FORMATS, seeded

from llava_video.ops.kv_format import (
    StoredKv,
    dequantise,
    empty_stored,
    group_channels,
    quantise,
)
from llava_video.values import KvFormat

CPU = torch.device("cpu")
QUANTISED: tuple[KvFormat, ...] = ("int8", "int4")
SHAPES = [(5, 4, 128), (3, 2, 64), (4, 3, 80), (2, 1, 192), (1, 1, 2), (6, 2, 256)]


def some_values(*shape: int) -> torch.Tensor:
    """Normal numbers with a mean, and one channel forty times as large, as keys have."""
    x = seeded(*shape) + 0.3
    x[..., shape[-1] // 3] *= 40
    return x


def stored_as(x: torch.Tensor, kv_format: KvFormat) -> torch.Tensor:
    return dequantise(*quantise(x, kv_format), kv_format, torch.float32)


def bound_of(x: torch.Tensor, kv_format: KvFormat) -> torch.Tensor:
    """Half a step by the formula, (n, H, d), and what float16 loses of scales and offset.

    A float16 is off by up to 2^-11 of itself. A step's error counts as often as its code says, 127
    or 15 times, at most as much as clipping at the largest code takes; an offset's counts once.
    """
    if kv_format == "int8":
        largest = x.abs().amax(dim=-1, keepdim=True)
        return (largest / 127 / 2 * (1 + 2**-9) + 2**-24).expand_as(x)
    groups = x.unflatten(-1, (-1, group_channels(x.shape[-1])))
    low, high = groups.amin(dim=-1, keepdim=True), groups.amax(dim=-1, keepdim=True)
    bound = (high - low) / 15 / 2 * (1 + 2**-9) + low.abs() * 2**-11 + 2**-23
    return bound.expand_as(groups).flatten(-2)


def is_right(x: torch.Tensor, read: torch.Tensor, kv_format: KvFormat) -> bool:
    return bool(((read - x).abs() <= bound_of(x, kv_format)).all())


def test_int8_by_hand():
    """s = 254/127 = 2; floor(x/2 + 1/2) of 254, -253, 1, -1, 0.98, 0 is 127, -126, 1, 0, 0, 0."""
    x = torch.tensor([[[254.0, -253.0, 1.0, -1.0, 0.98, 0.0]]])
    codes, scales = quantise(x, "int8")
    assert codes.dtype is torch.int8
    assert codes.tolist() == [[[127, -126, 1, 0, 0, 0]]]
    assert scales.dtype is torch.float16
    assert scales.tolist() == [[2.0]]
    assert stored_as(x, "int8").tolist() == [[[254.0, -252.0, 2.0, 0.0, 0.0, 0.0]]]


def test_int4_by_hand():
    """One group of six: z = -3, s = (27 + 3)/15 = 2; codes 0, 15, 2, 2, 1, 5 for the values below.

    Channel j is the low half of byte j, channel j + 3 the high half: 0 + 16·2, 15 + 16·1, 2 + 16·5.
    """
    x = torch.tensor([[[-3.0, 27.0, 0.5, 0.0, -1.0, 7.0]]])
    codes, scales = quantise(x, "int4")
    assert codes.dtype is torch.uint8
    assert codes.tolist() == [[[0 + 32, 15 + 16, 2 + 80]]]
    assert scales.tolist() == [[[[2.0, -3.0]]]]
    assert stored_as(x, "int4").tolist() == [[[-3.0, 27.0, 1.0, 1.0, -1.0, 7.0]]]


def test_halves_go_up():
    """A value between two codes takes the upper one, below zero as well: -1.5 steps is -1."""
    x = torch.tensor([[[127.0, -1.5, 1.5, 0.5, -0.5, 2.5]]])
    assert quantise(x, "int8")[0].tolist() == [[[127, -1, 2, 1, 0, 3]]]


def test_groups_of_64_have_their_own_scales():
    """Channels 0..63 hold 0 and 15, the others 100 and 130: steps 1 and 2."""
    x = torch.zeros(1, 1, 128)
    x[..., 63], x[..., 64:], x[..., 127] = 15, 100, 130
    codes, scales = quantise(x, "int4")
    assert scales.tolist() == [[[[1.0, 0.0], [2.0, 100.0]]]]
    assert codes[0, 0, 63].item() == 15 + 16 * 15  # channels 63 and 127
    assert not codes[0, 0, :63].any()
    assert [group_channels(d) for d in (64, 128, 192, 256, 80, 96, 32, 2)] == [
        64, 64, 64, 64, 80, 96, 32, 2
    ]  # fmt: skip


@pytest.mark.parametrize("kv_format", QUANTISED)
@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_read_is_within_half_a_step(shape, kv_format: KvFormat):
    x = some_values(*shape)
    assert is_right(x, stored_as(x, kv_format), kv_format)


@pytest.mark.parametrize("kv_format", QUANTISED)
def test_what_was_read_is_stored_as_it_is(kv_format: KvFormat):
    """Values on the grid of codes keep their codes."""
    codes, scales = quantise(some_values(5, 4, 128), kv_format)
    read = dequantise(codes, scales, kv_format, torch.float32)
    again = dequantise(*quantise(read, kv_format), kv_format, torch.float32)
    steps = bound_of(read, kv_format) / 100
    assert ((again - read).abs() <= steps + read.abs() * 2**-10).all()


def _swapped(x: torch.Tensor) -> torch.Tensor:
    codes, scales = quantise(x, "int4")
    return dequantise((codes >> 4) | (codes << 4), scales, "int4", torch.float32)


def _interleaved(x: torch.Tensor) -> torch.Tensor:
    """Read byte j as channels 2 j and 2 j + 1."""
    codes, scales = quantise(x, "int4")
    nibbles = torch.stack((codes & 15, codes >> 4), dim=-1).flatten(-2).float()
    steps, low = (s.repeat_interleave(64, dim=-1) for s in scales.float().unbind(-1))
    return nibbles * steps + low


def _one_scale(x: torch.Tensor) -> torch.Tensor:
    step = (x.max() - x.min()) / 15
    return ((x - x.min()) / step + 0.5).floor() * step + x.min()


def _one_scale_per_head(x: torch.Tensor) -> torch.Tensor:
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    step = (high - low) / 15
    return ((x - low) / step + 0.5).floor() * step + low


def _cut_off(x: torch.Tensor) -> torch.Tensor:
    _, scales = quantise(x, "int4")
    groups = x.unflatten(-1, (-1, 64))
    steps, low = scales.float()[..., :1], scales.float()[..., 1:]
    floored = ((groups - low) / steps).floor().clamp(0, 15) * steps + low
    return floored.flatten(-2)


def _no_offset(x: torch.Tensor) -> torch.Tensor:
    codes, scales = quantise(x, "int4")
    scales = torch.stack((scales[..., 0], torch.zeros_like(scales[..., 1])), dim=-1)
    return dequantise(codes, scales, "int4", torch.float32)


def _offset_before_scale(x: torch.Tensor) -> torch.Tensor:
    codes, scales = quantise(x, "int4")
    return dequantise(codes, scales.flip(-1), "int4", torch.float32)


@pytest.mark.parametrize(
    "mutant",
    [_swapped, _interleaved, _one_scale, _one_scale_per_head, _cut_off, _no_offset,
     _offset_before_scale],
)  # fmt: skip
def test_wrong_ways_of_int4_are_rejected(mutant):
    x = some_values(5, 4, 128)
    assert is_right(x, stored_as(x, "int4"), "int4")
    assert not is_right(x, mutant(x), "int4")


def _int8_one_scale(x: torch.Tensor) -> torch.Tensor:
    step = x.abs().max() / 127
    return (x / step + 0.5).floor() * step


def _int8_cut_off(x: torch.Tensor) -> torch.Tensor:
    step = x.abs().amax(-1, keepdim=True) / 127
    return (x / step).trunc() * step


def _int8_wraps(x: torch.Tensor) -> torch.Tensor:
    """Divide by 128ths, so that the largest code wraps to -128 (as a cast without a clamp)."""
    step = x.abs().amax(-1, keepdim=True) / 128
    return (((x / step + 0.5).floor() + 128) % 256 - 128) * step


@pytest.mark.parametrize("mutant", [_int8_one_scale, _int8_cut_off, _int8_wraps])
def test_wrong_ways_of_int8_are_rejected(mutant):
    x = some_values(5, 4, 128)
    assert is_right(x, stored_as(x, "int8"), "int8")
    assert not is_right(x, mutant(x), "int8")


@pytest.mark.parametrize("kv_format", QUANTISED)
@pytest.mark.parametrize("value", [0.0, 1.0, -0.7, 100.05, -2000.3, 6e4, 1e-7])
def test_constant_heads(value: float, kv_format: KvFormat):
    """No step to divide by, or one that float16 cannot hold: a float16 near it is read."""
    x = torch.full((2, 3, 128), value)
    read = stored_as(x, kv_format)
    assert read.isfinite().all()
    assert ((read - x).abs() <= abs(value) * 2**-10 + 2**-17).all()
    assert read.any() == (abs(value) > 1e-6 or (kv_format == "int4" and value != 0))


@pytest.mark.parametrize("kv_format", QUANTISED)
def test_values_that_are_not_numbers_stay_so(kv_format: KvFormat):
    x = some_values(2, 2, 64)
    x[1, 0, 5] = torch.nan
    read = stored_as(x, kv_format)
    assert read[1, 0].isnan().all()
    assert read[0].isfinite().all()
    assert read[1, 1].isfinite().all()


@pytest.mark.parametrize(
    ("num_layers", "num_heads", "head_dim", "int8_bytes", "int4_bytes"),
    [(28, 4, 128, 29_120, 16_128), (24, 2, 64, 6_336, 3_456)],
)
def test_bytes_per_token(num_layers, num_heads, head_dim, int8_bytes, int4_bytes):
    """7B and 0.5B. By hand, 7B: 28 · 2 · 4 · (128 + 2) and 28 · 2 · 4 · (64 + 2 · 4)."""
    num_tokens = 10
    plain_bytes = num_layers * 2 * num_heads * head_dim * 2
    expected = {"plain": plain_bytes, "int8": int8_bytes, "int4": int4_bytes}
    for kv_format in FORMATS:
        store = empty_stored(
            num_tokens, num_heads, head_dim, kv_format=kv_format, dtype=torch.bfloat16, device=CPU
        )
        parts = (store.k, store.v, store.k_scales, store.v_scales)
        found = sum(part.nbytes for part in parts if part is not None) * num_layers / num_tokens
        assert found == expected[kv_format]
        assert (store.num_tokens, store.num_heads, store.head_dim) == (10, num_heads, head_dim)


def test_an_odd_head_is_refused_where_channels_are_paired():
    with pytest.raises(ValueError, match="a head has 7 of them"):
        empty_stored(3, 2, 7, kv_format="int4", dtype=torch.float32, device=CPU)
    store = empty_stored(3, 2, 7, kv_format="int8", dtype=torch.float32, device=CPU)
    assert store.head_dim == 7


def filled(kv_format: KvFormat, dtype: torch.dtype = torch.float32) -> StoredKv:
    store = empty_stored(6, 2, 64, kv_format=kv_format, dtype=dtype, device=CPU)
    store.write(slice(0, 6), torch.zeros(6, 2, 64), torch.zeros(6, 2, 64))
    return store


@pytest.mark.parametrize("kv_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tokens_are_written_to_their_slots(dtype: torch.dtype, kv_format: KvFormat):
    store = filled(kv_format, dtype)
    k, v = some_values(3, 2, 64), some_values(3, 2, 64) + 1
    slots = torch.tensor([4, 0, 3])
    store.write(slots, k, v)
    read_k, read_v = store.plain(dtype)
    assert read_k.dtype is dtype
    for read, x in ((read_k, k), (read_v, v)):
        expected = stored_as(x, kv_format) if kv_format != "plain" else x
        assert torch.equal(read[slots], expected.to(dtype))
        assert not read[[1, 2, 5]].any()
    by_slice = filled(kv_format, dtype)
    by_slice.write(slice(2, 5), k, v)
    assert torch.equal(by_slice.part(2, 5).plain(dtype)[0], read_k[slots])


@pytest.mark.parametrize("kv_format", FORMATS)
def test_parts_are_views(kv_format: KvFormat):
    store = filled(kv_format)
    part = store.part(2, 4)
    assert (part.num_tokens, part.head_dim, part.kv_format) == (2, 64, kv_format)
    part.write(slice(0, 2), torch.full((2, 2, 64), 127.0), torch.full((2, 2, 64), 254.0))
    k, v = store.plain(torch.float32)
    assert (k[2:4] == 127).all()
    assert (v[2:4] == 254).all()
    assert not k[:2].any()
    assert not k[4:].any()


def test_a_plain_cache_is_not_copied_to_be_read():
    store = filled("plain")
    k, v = store.plain(torch.float32)
    assert k.data_ptr() == store.k.data_ptr()
    assert v.data_ptr() == store.v.data_ptr()


@pytest.mark.parametrize("kv_format", QUANTISED)
def test_the_order_in_memory_does_not_matter(kv_format: KvFormat):
    x = some_values(4, 3, 128)
    for view in (x.transpose(0, 1).contiguous().transpose(0, 1), torch.cat((x, x), -1)[..., :128]):
        assert not view.is_contiguous()
        codes, scales = quantise(view, kv_format)
        expected = quantise(x, kv_format)
        assert torch.equal(codes, expected[0])
        assert torch.equal(scales, expected[1])
