import gc
import threading

import pytest
import torch

from llava_video.engine.arena import Arena
from llava_video.errors import CapacityError

TOKEN_BYTES = 2 * 2 * 4  # keys and values of one head of two channels, float32


def make_arena(**options):
    settings = {"dtype": torch.float32, "devices": [torch.device("cpu")], "slab_tokens": 64}
    return Arena(1, 1, 2, **{**settings, **options})


def test_it_counts_as_the_cache_does():
    arena = make_arena(limit_bytes=64 * TOKEN_BYTES)
    extent = arena.reserve(40)
    arena.retain(extent)
    arena.release(extent)
    assert arena.used_tokens == 40
    with pytest.raises(CapacityError):
        arena.reserve(30)
    arena.release(extent)
    assert arena.used_tokens == 0
    arena.trim()
    assert arena.held_tokens == 0


def test_a_release_in_the_middle_of_a_call_does_not_wait_for_it():
    """As a finalizer would: in the same thread, while the guard is held."""
    arena = make_arena()
    extent = arena.reserve(10)
    with arena._guard:
        arena.release(extent)
        assert arena.used_tokens == 10  # not yet: the holder of the guard does it
    other = arena.reserve(5)
    assert arena.used_tokens == 5
    arena.release(other)
    assert arena.used_tokens == 0


def test_a_finalizer_may_release_at_any_allocation():
    arena = make_arena()

    class Holder:
        def __init__(self):
            self.extent = arena.reserve(3)
            self.cycle = self  # only the collector frees it

        def __del__(self):
            arena.release(self.extent)

    threshold = gc.get_threshold()
    gc.set_threshold(5)
    try:
        for _ in range(300):
            Holder()
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    assert arena.used_tokens == 0


def test_an_extent_gives_back_its_end_once():
    arena = make_arena(limit_bytes=64 * TOKEN_BYTES)
    extent = arena.reserve(40)
    arena.retain(extent)
    arena.shrink(extent, 10)
    arena.shrink(extent, 10)
    arena.shrink(extent, 8)
    other = arena.reserve(56)
    assert other.span.start >= 8
    arena.release(extent)
    arena.release(extent)
    assert arena.used_tokens == 56
    arena.release(other)
    assert arena.used_tokens == 0


def test_threads_lose_no_place():
    arena = make_arena()

    def work(seed):
        held = []
        for step in range(300):
            extent = arena.reserve(1 + (seed * 7 + step) % 9)
            arena.retain(extent)
            held += [extent, extent]
            if step % 3:
                arena.release(held.pop(0))
        for extent in held:
            arena.release(extent)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)
    assert arena.used_tokens == 0


@pytest.mark.parametrize("kv_format", ["plain", "int8", "int4"])
def test_every_format_is_counted_alike(kv_format):
    arena = make_arena()
    extent = arena.reserve(40, kv_format)
    assert arena.format_of(extent.span) == kv_format
    arena.shrink(extent, 10)
    assert arena.reserve(54, kv_format).span.slab_idx == extent.span.slab_idx
    assert arena.used_bytes == arena.held_bytes == 64 * arena.token_bytes(kv_format)
    arena.release(extent)
    assert arena.used_tokens == 54


def test_an_idle_arena_keeps_what_was_preallocated_alone():
    arena = make_arena()
    slab_idx = arena.preallocate(100, "int8")
    plain, quantised = arena.reserve(3), arena.reserve(90, "int8")
    assert quantised.span.slab_idx == slab_idx
    arena.release(plain)
    arena.release(quantised)
    assert (arena.held_tokens, arena.used_tokens) == (100, 0)
    assert arena.has_slab(slab_idx)
    assert not arena.has_slab(plain.span.slab_idx)


def test_a_part_of_the_limit_is_set_aside():
    arena = make_arena(limit_bytes=64 * TOKEN_BYTES)
    arena.set_aside(30 * TOKEN_BYTES)
    with pytest.raises(CapacityError):
        arena.reserve(35)
    extent = arena.reserve(34)
    with pytest.raises(CapacityError):
        arena.set_aside(31 * TOKEN_BYTES)
    arena.release(extent)
    arena.set_aside(31 * TOKEN_BYTES)
    assert arena.aside_bytes == 31 * TOKEN_BYTES
