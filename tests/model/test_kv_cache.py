"""The arena: extents never overlap, live as long as their last owner, and end at the limit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_video.errors import CapacityError, ConfigError
from llava_video.model import kv_cache
from llava_video.model.kv_cache import Extent, KvCache, KvSpan

CPU = torch.device("cpu")


def new_cache(slab_tokens: int = 8, limit_tokens: int | None = None, **changes: object) -> KvCache:
    sizes = {"dtype": torch.float32, "devices": [CPU]} | changes
    return KvCache(2, 3, 4, slab_tokens=slab_tokens, limit_tokens=limit_tokens, **sizes)


def test_what_is_written_is_read():
    cache = new_cache()
    first, second = cache.reserve(3).span, cache.reserve(2).span
    k, v = torch.randn(3, 3, 4), torch.randn(3, 3, 4)
    cache.write(1, first, k, v)
    cache.write(1, second, torch.zeros(3, 2, 4), torch.ones(3, 2, 4))
    assert torch.equal(cache.keys(1, first), k)
    assert torch.equal(cache.values(1, first), v)
    assert torch.equal(cache.values(1, second), torch.ones(3, 2, 4))
    assert torch.equal(cache.keys(1, first.part(1, 3)), k[:, 1:])
    cache.write(0, first, k + 1, v + 1)
    assert torch.equal(cache.keys(1, first), k)  # the other layer is left alone


def test_reading_copies_nothing():
    cache = new_cache()
    span = cache.reserve(4).span
    cache.keys(0, span)[:] = 5.0
    assert cache.keys(0, span.part(2, 3)).tolist() == [[[5.0] * 4]] * 3


def test_neighbours_touch_and_a_long_reservation_gets_its_own_slab():
    cache = new_cache(slab_tokens=8)
    a, b, long = cache.reserve(3).span, cache.reserve(5).span, cache.reserve(20).span
    assert (a.slab_idx, a.stop) == (b.slab_idx, b.start)
    assert long.slab_idx != a.slab_idx
    assert long.num_tokens == 20
    assert (cache.held_tokens, cache.used_tokens) == (28, 28)


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 13)), max_size=40))
def test_extents_never_overlap(actions: list[tuple[int, int]]):
    cache = new_cache(slab_tokens=16, limit_tokens=64)
    alive: list[Extent] = []
    for action, number in actions:
        if action == 0 and alive:
            cache.release(alive.pop(number % len(alive)))
        elif action == 1 and alive:
            extent = alive[number % len(alive)]
            cache.retain(extent)
            alive.append(extent)
        else:
            try:
                alive.append(cache.reserve(number))
            except CapacityError:
                # Refused only when no run of places is long enough and no slab may be added.
                assert cache.held_tokens + number > 64
        places = {e.extent_id: e.span for e in alive}
        used = [(s.slab_idx, i) for s in places.values() for i in range(s.start, s.stop)]
        assert len(used) == len(set(used)) == cache.used_tokens
        assert cache.held_tokens <= 64
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
    cache = new_cache(slab_tokens=4, limit_tokens=12)
    cache.release(cache.reserve(10))
    kept = cache.reserve(2)  # in the slab of 10
    assert cache.held_tokens == 10
    cache.release(kept)
    assert cache.reserve(12).num_tokens == 12
    assert cache.held_tokens == 12


def test_the_limit_is_an_error_with_numbers():
    cache = new_cache(slab_tokens=4, limit_tokens=10)
    cache.reserve(4)
    cache.reserve(4)
    cache.reserve(2)  # the last slab is cut to what is left
    with pytest.raises(CapacityError, match="1 tokens asked of the cache, 0 of 10"):
        cache.reserve(1)


def test_memory_that_is_not_there_is_a_capacity_error(monkeypatch: pytest.MonkeyPatch):
    def refused(*args: object, **kwargs: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ...")

    cache = new_cache()
    monkeypatch.setattr(kv_cache.torch, "empty", refused)
    with pytest.raises(CapacityError, match="no memory for 8 tokens of cache \\(1536 bytes\\)"):
        cache.reserve(1)


def test_another_failure_stays_what_it_is(monkeypatch: pytest.MonkeyPatch):
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("device-side assert")

    cache = new_cache()
    monkeypatch.setattr(kv_cache.torch, "empty", broken)
    with pytest.raises(RuntimeError, match="device-side assert"):
        cache.reserve(1)


def test_bytes_of_a_token():
    # 2 (keys, values) x 2 layers x 3 heads x 4 channels x 4 bytes.
    assert new_cache().token_bytes == 192
    assert new_cache(dtype=torch.bfloat16).token_bytes == 96


def test_every_layer_stands_on_its_device():
    cache = new_cache(devices=[CPU, torch.device("meta")])
    span = cache.reserve(2).span
    assert cache.keys(0, span).device.type == "cpu"
    assert cache.keys(1, span).device.type == "meta"
    assert cache.devices == (CPU, torch.device("meta"))


def test_slabs_made_in_inference_mode_can_be_written_outside():
    cache = new_cache()
    with torch.inference_mode():
        span = cache.reserve(1).span
    cache.write(0, span, torch.zeros(3, 1, 4), torch.zeros(3, 1, 4))
    assert not cache.keys(0, span).is_inference()


@pytest.mark.parametrize(
    "changes",
    [{"devices": [CPU] * 3}, {"slab_tokens": 0}, {"limit_tokens": 0}],
)
def test_bad_sizes_are_refused(changes: dict[str, object]):
    with pytest.raises(ConfigError):
        new_cache(**changes)


@pytest.mark.parametrize("num_tokens", [0, -3])
def test_no_tokens_cannot_be_reserved(num_tokens: int):
    with pytest.raises(ConfigError, match="at least 1"):
        new_cache().reserve(num_tokens)


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (0, 5), (3, 2)])
def test_a_part_lies_within_its_span(start: int, stop: int):
    span = KvSpan(0, 10, 14)
    assert span.part(1, 3) == KvSpan(0, 11, 13)
    with pytest.raises(ValueError, match="span of 4"):
        span.part(start, stop)
