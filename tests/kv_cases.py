"""Queries, keys and values for the tests of attention, and caches that hold them."""

import torch

from llava_video.ops.kv_format import StoredKv, empty_stored
from llava_video.values import KvFormat

FORMATS: tuple[KvFormat, ...] = ("plain", "int8", "int4")


def seeded(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32, device: str = "cpu"):
    """Return normal numbers, the same for the same shape and seed."""
    generator = torch.Generator().manual_seed(seed + 7 * sum(shape))
    return torch.randn(shape, generator=generator).to(device, dtype)


def stored(k: torch.Tensor, v: torch.Tensor, kv_format: KvFormat = "plain") -> StoredKv:
    """Return a cache that holds keys and values (n, Hkv, d), in their dtype where it is plain."""
    store = empty_stored(
        *k.shape, kv_format=kv_format, dtype=k.dtype, device=torch.device(k.device)
    )
    store.write(slice(0, k.shape[0]), k, v)
    return store


def random_stored(
    num_tokens: int,
    num_heads: int,
    head_dim: int,
    kv_format: KvFormat = "plain",
    *,
    seed: int = 1,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> StoredKv:
    """Return a cache of random keys and values; values have a mean, so that weights matter."""
    kind = {"dtype": dtype, "device": device}
    k = seeded(num_tokens, num_heads, head_dim, seed=seed, **kind)
    v = seeded(num_tokens, num_heads, head_dim, seed=seed + 1, **kind) + 0.5
    return stored(k, v, kv_format)


def parts_of(store: StoredKv, sizes: list[int]) -> list[StoredKv]:
    """Cut a cache into consecutive parts."""
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [store.part(start, start + size) for start, size in zip(starts, sizes, strict=True)]
