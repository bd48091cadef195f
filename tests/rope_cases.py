"""Heads, rotations and stores for the tests of the rotary embedding and its kernel."""

import pytest
import torch
from kv_cases import FORMATS, seeded

from llava_video.ops import rope, rotation
from llava_video.ops.kv_format import StoredKv, empty_stored
from llava_video.ops.rope import rotate_and_store
from llava_video.ops.rotation import Rotation, make_rotation
from llava_video.values import KvFormat

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CPU = torch.device("cpu")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
THETA = 1e6
SCALES = (1.0, 7.3)
# Tokens, query heads, key and value heads, channels of a head.
SHAPES = [
    (3, 28, 4, 128),  # a 7B
    (5, 3, 1, 80),  # no power of two; odd numbers of heads
    (2, 2, 2, 96),
    (1, 7, 3, 24),  # one token; accesses of 8 bytes
    (17, 2, 1, 256),  # three tiles of tokens
    (2, 2, 1, 192),  # an int4 group in both halves
    (1, 1, 1, 2),
]
# Every dtype and format at one shape, every shape at one dtype.
CASES = [
    *((dtype, kv_format, SHAPES[0]) for dtype in DTYPES for kv_format in FORMATS),
    *((torch.float32, kv_format, shape) for shape in SHAPES[1:] for kv_format in FORMATS),
]


def some_rotation(num_tokens: int, head_dim: int, device: torch.device = CPU) -> Rotation:
    """Tokens far from one another, at two scales."""
    idxs = torch.arange(num_tokens) * 399_989 + 4
    which = torch.arange(num_tokens) % 2
    return make_rotation(idxs, SCALES, which, head_dim=head_dim, theta=THETA, device=device)


def some_slots(num_tokens: int) -> torch.Tensor:
    """Places out of order, with gaps."""
    return torch.arange(num_tokens - 1, -1, -1) * 2 + 1


def zero_store(
    num_heads: int, head_dim: int, kv_format: KvFormat, dtype: torch.dtype, device=CPU
) -> StoredKv:
    store = empty_stored(40, num_heads, head_dim, kv_format=kv_format, dtype=dtype, device=device)
    for part in (store.k, store.v, store.k_scales, store.v_scales):
        if part is not None:
            part.zero_()
    return store


def some_heads(shape: tuple[int, int, int, int], dtype: torch.dtype, device=CPU):
    """Queries, keys and values; two value heads have an outlier and a mean."""
    num_tokens, num_q, num_kv, head_dim = shape
    q, k, v = (
        seeded(num_tokens, heads, head_dim, seed=seed)
        for seed, heads in enumerate((num_q, num_kv, num_kv))
    )
    v[0, 0, head_dim - 1] = 40
    return tuple(x.to(device, dtype) for x in (q, k, v + 2))


def arguments(**changes) -> list:
    q, k, v = some_heads((3, 4, 2, 16), torch.float32)
    found = {
        "q": q, "k": k, "v": v, "rotation": some_rotation(3, 16),
        "store": zero_store(2, 16, "int8", torch.float32), "slots": torch.arange(3),
    }  # fmt: skip
    return list((found | changes).values())


def wide(head_dim: int) -> dict:
    q, k, v = some_heads((3, 4, 2, head_dim), torch.float32)
    store = zero_store(2, head_dim, "plain", torch.float32)
    return {"q": q, "k": k, "v": v, "rotation": some_rotation(3, head_dim), "store": store}


def use_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel runs, whatever the device, and makes its own cosines."""
    for each in (rope, rotation):
        monkeypatch.setattr(each, "uses_triton", lambda _: True)
    monkeypatch.setattr(rope, "_rotate_and_store_torch", None)


def run_kernel(shape, dtype, kv_format, *, device=DEVICE):
    """Return queries and store by the kernel, and what they were made of."""
    given = some_heads(shape, dtype, device)
    turned = some_rotation(shape[0], shape[3], device)
    store = zero_store(shape[2], shape[3], kv_format, dtype, device)
    slots = some_slots(shape[0]).to(device)
    q = given[0].clone()
    out = rotate_and_store(q, *given[1:], turned, store, slots)
    assert out.data_ptr() == q.data_ptr()
    assert turned.cos is None
    return out, store, given, turned, slots
