"""Keys of a step: both kinds read what is stored, one softmax over all of it, and only that."""

from itertools import pairwise

import pytest
import torch
from seeded_models import TEXT

from llava_video.model import step_keys
from llava_video.model.kv_cache import KvCache, KvSpan
from llava_video.model.step_keys import DecodeKeys, SplitKeys
from llava_video.model.step_rows import Row, decode_keys, row_keys
from llava_video.ops.attention import attention_reference
from llava_video.ops.kv_format import StoredKv
from llava_video.ops.rope import rotate_reference
from llava_video.values import KvFormat

CPU = torch.device("cpu")
FORMATS = ("plain", "int8", "int4")
SCALE = TEXT.head_dim**-0.5
EXACT = {"mode": "exact", "device": CPU}


def new_cache(slab_tokens: int = 128) -> KvCache:
    sizes = (TEXT.num_layers, TEXT.num_kv_heads, TEXT.head_dim)
    return KvCache(*sizes, dtype=torch.float32, devices=[CPU], slab_tokens=slab_tokens)


def heads(length: int, num_heads: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(length, num_heads, TEXT.head_dim, generator=generator)


def qkv(length: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    sizes = (TEXT.num_heads, TEXT.num_kv_heads, TEXT.num_kv_heads)
    return tuple(heads(length, size, 3 * seed + i) for i, size in enumerate(sizes))


def noise(cache: KvCache, num_tokens: int, kv_format: KvFormat) -> KvSpan:
    """Reserve places, and leave keys and values in both layers that differ."""
    span = cache.reserve(num_tokens, kv_format).span
    for layer_idx in range(2):
        k, v = (heads(num_tokens, TEXT.num_kv_heads, 50 + 2 * layer_idx + i) for i in range(2))
        cache.stored(layer_idx, span).write(slice(None), k, v)
    return span


def joined(spans: list[StoredKv]) -> StoredKv:
    """Return spans as one plain one."""
    plain = [span.plain(torch.float32) for span in spans]
    return StoredKv(torch.cat([k for k, _ in plain]), torch.cat([v for _, v in plain]))


@pytest.mark.parametrize("kv_format", FORMATS)
def test_rows_write_what_they_bring_and_see_what_is_stored(kv_format: KvFormat):
    cache = new_cache()
    past = [noise(cache, 5, kv_format), noise(cache, 7, kv_format)]
    writes = [cache.reserve(n, kv_format).span for n in (3, 1, 4)]
    pasts = [(past[0],), (past[1],), (past[1], past[0])]
    starts = (0, 3, 4, 8)
    rows = [
        Row(start, stop, seen, write)
        for (start, stop), seen, write in zip(pairwise(starts), pasts, writes, strict=True)
    ]
    idxs = torch.tensor([5, 6, 7, 7, 12, 13, 14, 15])
    q, k, v = qkv(8)
    keys = row_keys(idxs, rows, [1.0, 2.0, 1.0], TEXT, **EXACT)
    before = cache.stored(0, writes[0]).k.zero_().clone()
    out = keys.attend(q.clone(), k.clone(), v, cache, 1, "sdpa")
    # What is stored: rotated keys, values as they are, in this layer alone.
    cos, sin = keys.rotation.tables()
    expected_k = rotate_reference(k, cos, sin)
    for row in rows:
        own = slice(row.start, row.stop)
        stored = cache.stored(1, row.write)
        wanted = StoredKv(
            *(torch.empty_like(x) for x in (stored.k, stored.v)),
            *(
                None if x is None else torch.empty_like(x)
                for x in (stored.k_scales, stored.v_scales)
            ),
            kv_format,
        )
        wanted.write(slice(None), expected_k[own], v[own])
        assert all(map(torch.allclose, stored.plain(torch.float32), wanted.plain(torch.float32)))
        seen = joined([cache.stored(1, span) for span in row.past])
        turned = rotate_reference(q[own], cos[own], sin[own])
        expected = attention_reference(turned, [seen], joined([stored]), SCALE)
        assert torch.allclose(out[own], expected, atol=1e-5)
        lost = attention_reference(turned, [seen.part(1, seen.num_tokens)], joined([stored]), SCALE)
        assert not torch.allclose(out[own], lost, atol=1e-3)
    assert torch.equal(cache.stored(0, writes[0]).k, before)


def decode_rows(cache: KvCache, kv_format: KvFormat) -> list[Row]:
    """Return single tokens of one slab; the last sees nothing before it."""
    past = [noise(cache, n, kv_format) for n in (33, 9, 20)]
    seen = [(past[0],), (past[1], past[2]), ()]
    writes = [cache.reserve(1, kv_format).span for _ in seen]
    return [Row(i, i + 1, *places) for i, places in enumerate(zip(seen, writes, strict=True))]


@pytest.mark.parametrize("kv_format", FORMATS)
@pytest.mark.parametrize("split_tokens", [None, 8])
def test_decode_keys_equal_row_keys(kv_format: KvFormat, split_tokens: int | None):
    cache = new_cache()
    rows, scales, idxs = decode_rows(cache, kv_format), [1.0, 2.5, 1.0], torch.tensor([33, 29, 0])
    q, k, v = qkv(3)
    rowwise = row_keys(idxs, rows, scales, TEXT, **EXACT)
    together = decode_keys(
        idxs, rows, scales, TEXT, split_tokens=split_tokens, num_items=12, **EXACT
    )
    expected = rowwise.attend(q.clone(), k.clone(), v, cache, 0, "sdpa")
    kept = [cache.stored(0, row.write).k.clone() for row in rows]
    for row in rows:
        cache.stored(0, row.write).k.zero_()
    out = together.attend(q.clone(), k.clone(), v, cache, 0, "sdpa")
    assert torch.allclose(out, expected, atol=1e-5)
    assert all(
        torch.equal(cache.stored(0, row.write).k, k) for row, k in zip(rows, kept, strict=True)
    )
    unscaled = decode_keys(idxs, rows, [1.0] * 3, TEXT, **EXACT)
    assert not torch.allclose(
        unscaled.attend(q.clone(), k.clone(), v, cache, 0, "sdpa"), expected, atol=1e-3
    )


def test_tensors_that_a_graph_reads_take_another_steps_values():
    cache = new_cache()
    rows = decode_rows(cache, "plain")
    first, second = (
        decode_keys(idxs, rows, scales, TEXT, num_items=8, **EXACT)
        for idxs, scales in (
            (torch.tensor([33, 29, 0]), [1.0, 1.0, 1.0]),
            (torch.tensor([34, 30, 1]), [2.0, 4.0, 1.0]),
        )
    )
    read = [
        first.slots, first.work.items, first.work.row_items,
        first.rotation.idxs, first.rotation.frequencies, first.rotation.scale_idxs,
    ]  # fmt: skip
    pointers = [x.data_ptr() for x in read]
    assert not torch.equal(first.rotation.frequencies, second.rotation.frequencies)
    first.copy_(second)
    assert [x.data_ptr() for x in read] == pointers
    q, k, v = qkv(3)
    outs = [keys.attend(q.clone(), k.clone(), v, cache, 0, "sdpa") for keys in (first, second)]
    assert torch.equal(*outs)
    for other in (
        decode_keys(torch.arange(3), rows, [1.0] * 3, TEXT, num_items=9, **EXACT),
        decode_keys(torch.arange(2), rows[:2], [1.0] * 2, TEXT, num_items=8, **EXACT),
    ):
        with pytest.raises(ValueError, match="slab, rows and items"):
            first.copy_(other)


def test_parts_get_their_share_of_the_tokens():
    cache = new_cache(slab_tokens=4)
    writes = [cache.reserve(4).span for _ in range(2)]
    q, k, v = qkv(8)
    parts, outs = [], []
    for start, write in zip((0, 4), writes, strict=True):
        row, stop = Row(start, start + 4, (), write), start + 4
        keys = row_keys(torch.arange(4), [row], [1.0], TEXT, **EXACT)
        parts.append((start, stop, keys))
        own = [x[start:stop].clone() for x in (q, k, v)]
        outs.append(keys.attend(*own, cache, 0, "sdpa"))
    split = SplitKeys(tuple(parts))
    assert torch.equal(split.attend(q.clone(), k.clone(), v, cache, 0, "sdpa"), torch.cat(outs))


@pytest.mark.parametrize("make", [row_keys, decode_keys])
def test_keys_follow_the_layers_to_another_device(make):
    rows = decode_rows(new_cache(), "plain")
    keys = make(torch.tensor([33, 29, 0]), rows, [1.0] * 3, TEXT, **EXACT)
    meta = torch.device("meta")
    moved = SplitKeys(((0, 3, keys),)).to(meta).parts[0][2]
    assert type(moved) is type(keys)
    tensors = [moved.slots, moved.rotation.idxs]
    if isinstance(moved, DecodeKeys):
        tensors += [moved.work.items, moved.work.row_items]
    assert {x.device for x in tensors} == {meta}
    assert keys.slots.device == CPU


def test_the_kind_of_attention_reaches_the_chunks(monkeypatch: pytest.MonkeyPatch):
    kinds = []

    def spy(q, past, own, scale, *, kind):
        kinds.append(kind)
        return q

    monkeypatch.setattr(step_keys, "attention", spy)
    cache = new_cache()
    row = Row(0, 2, (), cache.reserve(2).span)
    keys = row_keys(torch.arange(2), [row], [1.0], TEXT, **EXACT)
    keys.attend(*qkv(2), cache, 0, "flash")
    assert kinds == ["flash"]
