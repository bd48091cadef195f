"""The arena: extents never overlap, live as long as their last owner, and end at the limit."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_video.errors import CapacityError, ConfigError
from llava_video.model import kv_cache
from llava_video.model.kv_cache import Extent, KvCache, KvSpan
from llava_video.ops.kv_format import dequantise, quantise
from llava_video.values import KvFormat

CPU = torch.device("cpu")
FORMATS = ("plain", "int8", "int4")
# 2 (keys, values) x 2 layers x 3 heads x (4 channels x 4 bytes; 4 codes and a float16 scale; 2
# bytes of codes and two float16 numbers for the one group).
TOKEN_BYTES = {"plain": 192, "int8": 72, "int4": 72}


def new_cache(slab_tokens: int = 8, limit_bytes: int | None = None, **changes: object) -> KvCache:
    sizes = {"dtype": torch.float32, "devices": [CPU]} | changes
    return KvCache(2, 3, 4, slab_tokens=slab_tokens, limit_bytes=limit_bytes, **sizes)


@pytest.mark.parametrize("kv_format", FORMATS)
def test_what_is_written_is_read(kv_format: KvFormat):
    cache = new_cache()
    first, second = (cache.reserve(n, kv_format).span for n in (3, 2))
    k, v = torch.randn(3, 3, 4), torch.randn(3, 3, 4)
    expected = [
        dequantise(*quantise(x, kv_format), kv_format, torch.float32) for x in (k, v, k + 1)
    ]
    cache.stored(1, first).write(slice(None), k, v)
    cache.stored(1, second).write(slice(None), torch.zeros(2, 3, 4), torch.full((2, 3, 4), 127.0))
    assert all(map(torch.equal, cache.stored(1, first).plain(torch.float32), expected[:2]))
    _, second_values = cache.stored(1, second).plain(torch.float32)
    assert torch.equal(second_values, torch.full((2, 3, 4), 127.0))
    part_keys, _ = cache.stored(1, first.part(1, 3)).plain(torch.float32)
    assert torch.equal(part_keys, expected[0][1:])
    # By place in the whole slab, as a step writes: the other layer is left alone.
    slots = torch.arange(first.start, first.stop)
    cache.store(0, first.slab_idx).write(slots, k + 1, v + 1)
    assert torch.equal(cache.stored(0, first).plain(torch.float32)[0], expected[2])
    assert torch.equal(cache.stored(1, first).plain(torch.float32)[0], expected[0])


def test_reading_copies_nothing():
    cache = new_cache()
    span = cache.reserve(4).span
    cache.stored(0, span).k[:] = 5.0
    assert cache.stored(0, span.part(2, 3)).k.tolist() == [[[5.0] * 4] * 3]


def test_a_slab_has_one_format():
    cache = new_cache()
    spans = {kv_format: cache.reserve(2, kv_format).span for kv_format in FORMATS}
    assert len({span.slab_idx for span in spans.values()}) == 3
    for kv_format, span in spans.items():
        assert cache.format_of(span) == cache.stored(0, span).kv_format == kv_format
        again = cache.reserve(2, kv_format).span
        assert (again.slab_idx, again.start) == (span.slab_idx, span.stop)
    assert cache.used_tokens == 12
    assert cache.held_bytes == 8 * sum(TOKEN_BYTES.values())
    assert cache.used_bytes == 4 * sum(TOKEN_BYTES.values())


@pytest.mark.parametrize("kv_format", FORMATS)
def test_memory_taken_is_memory_counted(kv_format: KvFormat):
    cache = new_cache(slab_tokens=5)
    span = cache.reserve(1, kv_format).span
    stores = [cache.store(layer_idx, span.slab_idx) for layer_idx in range(2)]
    parts = [x for s in stores for x in (s.k, s.v, s.k_scales, s.v_scales) if x is not None]
    assert sum(x.untyped_storage().nbytes() for x in parts) == cache.held_bytes


def test_a_preallocated_slab_is_there_first_and_stays():
    cache = new_cache(slab_tokens=4)
    slab_idx = cache.preallocate(64, "int8")
    assert (cache.held_tokens, cache.used_tokens) == (64, 0)
    pointers = [cache.store(layer_idx, slab_idx).k.data_ptr() for layer_idx in range(2)]
    extents = [cache.reserve(20, "int8") for _ in range(3)]
    assert {extent.span.slab_idx for extent in extents} == {slab_idx}
    other = cache.reserve(1)
    for extent in (*extents, other):
        cache.release(extent)
    cache.trim()
    assert (cache.has_slab(slab_idx), cache.has_slab(other.span.slab_idx)) == (True, False)
    assert [cache.store(layer_idx, slab_idx).k.data_ptr() for layer_idx in range(2)] == pointers
    assert cache.held_tokens == 64


def test_neighbours_touch_and_a_long_reservation_gets_its_own_slab():
    cache = new_cache(slab_tokens=8)
    a, b, long = cache.reserve(3).span, cache.reserve(5).span, cache.reserve(20).span
    assert (a.slab_idx, a.stop) == (b.slab_idx, b.start)
    assert long.slab_idx != a.slab_idx
    assert long.num_tokens == 20
    assert (cache.held_tokens, cache.used_tokens) == (28, 28)


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 13), st.sampled_from(FORMATS)), max_size=40
    )
)
def test_extents_never_overlap(actions: list[tuple[int, int, KvFormat]]):
    cache = new_cache(slab_tokens=16, limit_bytes=64 * 192)
    alive: list[Extent] = []
    for action, number, kv_format in actions:
        if action == 0 and alive:
            cache.release(alive.pop(number % len(alive)))
        elif action == 1 and alive:
            extent = alive[number % len(alive)]
            cache.retain(extent)
            alive.append(extent)
        else:
            try:
                alive.append(cache.reserve(number, kv_format))
            except CapacityError:
                # Refused only when no run of places is long enough and no slab may be added.
                assert cache.held_bytes + number * TOKEN_BYTES[kv_format] > 64 * 192
        places = {e.extent_id: e.span for e in alive}
        used = [(s.slab_idx, i) for s in places.values() for i in range(s.start, s.stop)]
        assert len(used) == len(set(used)) == cache.used_tokens
        assert cache.held_bytes <= 64 * 192
        assert cache.used_bytes == sum(
            span.num_tokens * TOKEN_BYTES[cache.format_of(span)] for span in places.values()
        )
    for extent in alive:
        cache.release(extent)
    assert cache.used_tokens == 0
    cache.trim()
    assert cache.held_tokens == 0


def test_the_last_owner_gives_the_places_back():
    cache = new_cache()
    extent = cache.reserve(8)
    cache.retain(extent)
    cache.release(extent)
    assert cache.used_tokens == 8
    cache.release(extent)
    assert cache.used_tokens == 0
    assert cache.reserve(8).span == extent.span  # the same places
    for call in (cache.release, cache.retain):
        with pytest.raises(ValueError, match="released already"):
            call(extent)


def test_empty_slabs_make_room_for_a_longer_one():
    cache = new_cache(slab_tokens=4, limit_bytes=12 * 192)
    cache.release(cache.reserve(10))
    kept = cache.reserve(2)  # in the slab of 10
    assert cache.held_tokens == 10
    cache.release(kept)
    assert cache.reserve(12).num_tokens == 12
    assert cache.held_tokens == 12


def test_the_limit_is_an_error_with_numbers():
    cache = new_cache(slab_tokens=4, limit_bytes=10 * 192 + 191)
    cache.reserve(4)
    cache.reserve(4)
    cache.reserve(2)  # the last slab is cut to what is left
    with pytest.raises(
        CapacityError, match="1 tokens of plain cache need 192 bytes, 191 of 2111 are free"
    ):
        cache.reserve(1)
    assert cache.reserve(2, "int4").num_tokens == 2  # 144 bytes


def test_empty_slabs_of_another_format_make_room():
    cache = new_cache(slab_tokens=8, limit_bytes=8 * 192)
    cache.release(cache.reserve(8))
    assert cache.reserve(21, "int8").num_tokens == 21
    assert cache.held_bytes == 21 * 72


def test_memory_that_is_not_there_is_a_capacity_error(monkeypatch: pytest.MonkeyPatch):
    def refused(*args: object, **kwargs: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ...")

    cache = new_cache()
    monkeypatch.setattr(kv_cache.torch, "empty", refused)
    with pytest.raises(
        CapacityError, match="no memory for 1 tokens of plain cache \\(192 bytes\\)"
    ):
        cache.reserve(1)


def test_where_memory_is_short_a_slab_is_only_as_long_as_it_must(monkeypatch: pytest.MonkeyPatch):
    empty = torch.empty

    def short(shape: tuple[int, ...], **options: Any) -> torch.Tensor:
        if shape[0] > 9:
            raise torch.OutOfMemoryError("tried to allocate 2.00 GiB")
        return empty(shape, **options)

    cache = new_cache(slab_tokens=20)
    monkeypatch.setattr(kv_cache.torch, "empty", short)
    assert cache.reserve(5).num_tokens == 5
    assert cache.held_tokens == 5
    with pytest.raises(CapacityError, match="no memory for 10 tokens"):
        cache.reserve(10)


def test_a_slab_can_be_made_longer_than_what_is_reserved_first():
    cache = new_cache(slab_tokens=4, limit_bytes=40 * 192)
    first = cache.reserve(6, wanted_tokens=30)
    assert cache.held_tokens == 30
    assert cache.reserve(24).span.slab_idx == first.span.slab_idx
    cache.reserve(2, wanted_tokens=30)  # the limit is 40
    assert cache.held_tokens == 40


def test_places_are_taken_near_others_where_there_are_some():
    cache = new_cache(slab_tokens=8)
    first, second = cache.reserve(5), cache.reserve(5)
    assert first.span.slab_idx != second.span.slab_idx
    near = second.span.slab_idx
    assert cache.reserve(2, near=near).span.slab_idx == near
    assert cache.reserve(2, near=near).span.slab_idx == first.span.slab_idx  # one place is left
    assert cache.reserve(1, near=99).span.slab_idx == first.span.slab_idx
    assert cache.reserve(1, "int8", near=near).span.slab_idx not in (near, first.span.slab_idx)


def test_another_failure_stays_what_it_is(monkeypatch: pytest.MonkeyPatch):
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("device-side assert")

    cache = new_cache()
    monkeypatch.setattr(kv_cache.torch, "empty", broken)
    with pytest.raises(RuntimeError, match="device-side assert"):
        cache.reserve(1)


def test_bytes_of_a_token():
    assert {kv_format: new_cache().token_bytes(kv_format) for kv_format in FORMATS} == TOKEN_BYTES
    assert new_cache(dtype=torch.bfloat16).token_bytes("plain") == 96
    seven_b = KvCache(28, 4, 128, dtype=torch.bfloat16, devices=[CPU], slab_tokens=1)
    half_b = KvCache(24, 2, 64, dtype=torch.bfloat16, devices=[CPU], slab_tokens=1)
    # LLaVA-Video-7B and LLaVA-OneVision-0.5B, as the arithmetic has them.
    assert [seven_b.token_bytes(kv_format) for kv_format in FORMATS] == [57_344, 29_120, 16_128]
    assert [half_b.token_bytes(kv_format) for kv_format in FORMATS] == [12_288, 6_336, 3_456]


@pytest.mark.parametrize("kv_format", FORMATS)
def test_every_layer_stands_on_its_device(kv_format: KvFormat):
    cache = new_cache(devices=[CPU, torch.device("meta")])
    span = cache.reserve(2, kv_format).span
    assert cache.stored(0, span).k.device.type == "cpu"
    assert cache.stored(1, span).k.device.type == "meta"
    assert cache.devices == (CPU, torch.device("meta"))


def test_slabs_made_in_inference_mode_can_be_written_outside():
    cache = new_cache()
    with torch.inference_mode():
        span = cache.reserve(1).span
    cache.stored(0, span).write(slice(None), torch.zeros(1, 3, 4), torch.zeros(1, 3, 4))
    assert not cache.stored(0, span).k.is_inference()


@pytest.mark.parametrize(
    "changes",
    [{"devices": [CPU] * 3}, {"slab_tokens": 0}, {"limit_bytes": 0}],
)
def test_bad_sizes_are_refused(changes: dict[str, object]):
    with pytest.raises(ConfigError):
        new_cache(**changes)


@pytest.mark.parametrize("num_tokens", [0, -3])
def test_no_tokens_cannot_be_reserved(num_tokens: int):
    for call in (new_cache().reserve, new_cache().preallocate):
        with pytest.raises(ConfigError, match="at least 1"):
            call(num_tokens)


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (0, 5), (3, 2)])
def test_a_part_lies_within_its_span(start: int, stop: int):
    span = KvSpan(0, 10, 14)
    assert span.part(1, 3) == KvSpan(0, 11, 13)
    with pytest.raises(ValueError, match="span of 4"):
        span.part(start, stop)


def test_what_is_set_aside_is_left_to_others():
    cache = new_cache(slab_tokens=4, limit_bytes=10 * 192)
    extent = cache.reserve(4)
    cache.set_aside(3 * 192)
    cache.reserve(3)
    with pytest.raises(CapacityError):
        cache.reserve(1)
    with pytest.raises(CapacityError, match=r"1152 bytes beside .* holds 1344 of 1920"):
        cache.set_aside(6 * 192)
    assert cache.aside_bytes == 3 * 192
    cache.release(extent)  # an empty slab makes room
    cache.set_aside(7 * 192)
    assert (cache.aside_bytes, cache.held_bytes) == (7 * 192, 3 * 192)
    cache.set_aside(0)
    assert cache.reserve(7).num_tokens == 7
    without = new_cache()
    without.reserve(4)
    without.set_aside(10**12)
    assert without.aside_bytes == 10**12
