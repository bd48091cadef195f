import gc
import threading

import pytest
import torch

from llava_video.engine.arena import Arena
from llava_video.errors import CapacityError


def make_arena(**options):
    settings = {"dtype": torch.float32, "devices": [torch.device("cpu")], "slab_tokens": 64}
    return Arena(1, 1, 2, **{**settings, **options})


def test_it_counts_as_the_cache_does():
    arena = make_arena(limit_tokens=64)
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
    arena = make_arena(limit_tokens=64)
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
