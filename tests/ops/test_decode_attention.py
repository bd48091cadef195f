"""Decoding over a cache: the torch twin, the choice between the two, and the formats' own error."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from kernels import interpreted
from kv_cases import FORMATS, random_stored, seeded, stored
from memory_trace import MemoryTrace

from llava_video.ops import attention as attention_module
from llava_video.ops import decode_attention as module
from llava_video.ops.decode_attention import (
    decode_attention,
    decode_attention_reference,
    reads_rows_at_once,
)
from llava_video.ops.decode_work import DecodeWork, plan_decode
from llava_video.ops.kv_format import StoredKv
from llava_video.ops.native import native
from llava_video.values import KvFormat

NUM_TOKENS, NUM_HEADS, NUM_KV_HEADS, HEAD_DIM = 4096, 28, 4, 128
SCALE = HEAD_DIM**-0.5


def case(kv_format: KvFormat, dtype: torch.dtype = torch.float32):
    store = random_stored(300, 2, 16, kv_format, dtype=dtype)
    work = plan_decode([[(0, 131)], [], [(200, 203), (7, 9), (9, 60)]], split_tokens=50)
    return seeded(3, 6, 16, dtype=dtype), store, work, 0.25


@pytest.mark.parametrize("kv_format", FORMATS)
def test_the_twin_is_the_definition(kv_format: KvFormat):
    q, store, work, scale = case(kv_format)
    exact = decode_attention_reference(q.double(), store, work, scale)
    out = decode_attention(q, store, work, scale)
    assert (out.double() - exact).abs().max() <= 2e-6
    assert not out[1].any()


def test_the_definition_is_a_softmax_of_one_head():
    """By hand: two keys whose scores differ by log 3 weigh 1/4 and 3/4."""
    k = torch.tensor([[[0.0, 0.0]], [[torch.log(torch.tensor(3.0)), 0.0]]])
    v = torch.tensor([[[4.0, 0.0]], [[0.0, 8.0]]])
    work = plan_decode([[(0, 2)]], split_tokens=1)
    out = decode_attention_reference(torch.tensor([[[1.0, 9.0]]]), StoredKv(k, v), work, 1.0)
    assert torch.allclose(out, torch.tensor([[[1.0, 6.0]]]))


@interpreted
@pytest.mark.parametrize("kv_format", FORMATS)
def test_the_kernels_give_what_the_twin_gives(kv_format, monkeypatch: pytest.MonkeyPatch):
    arguments = case(kv_format)
    expected = decode_attention(*arguments)
    called = []

    def uses_triton(tensor: torch.Tensor) -> bool:
        called.append(tensor.shape)
        return True

    monkeypatch.setattr(module, "uses_triton", uses_triton)
    monkeypatch.setattr(module, "_decode_attention_torch", None)
    assert torch.allclose(decode_attention(*arguments), expected, atol=2e-6)
    assert called == [(3, 6, 16)]


@pytest.mark.gpu
@pytest.mark.parametrize("kv_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_gpu_gives_what_a_cpu_gives(kv_format: KvFormat, dtype: torch.dtype):
    store = random_stored(NUM_TOKENS, NUM_KV_HEADS, HEAD_DIM, kv_format, dtype=dtype)
    q = seeded(2, NUM_HEADS, HEAD_DIM, dtype=dtype)
    work = plan_decode([[(0, 4000)], [(17, 18), (90, 700)]], split_tokens=192, num_items=64)
    exact = decode_attention_reference(q.double(), store, work, SCALE)
    fields = (None if x is None else x.cuda() for x in _tensors(store))
    on_card = StoredKv(*fields, kv_format)
    out = decode_attention(q.cuda(), on_card, work.to(torch.device("cuda")), SCALE)
    eps = max(torch.finfo(dtype).eps, torch.finfo(torch.float16).eps if kv_format != "plain" else 0)
    most = store.plain(torch.float32)[1].abs().max().item()
    assert (out.cpu().double() - exact).abs().max() <= 2 * eps * most


@pytest.mark.gpu
def test_a_graph_sees_the_work_that_was_written_last():
    store = random_stored(600, 2, 64, "int8", dtype=torch.bfloat16, device="cuda")
    q = seeded(1, 14, 64, dtype=torch.bfloat16, device="cuda")
    static = plan_decode([[(0, 100)]], split_tokens=64, num_items=8, device="cuda")
    decode_attention(q, store, static, 0.125)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = decode_attention(q, store, static, 0.125)
    for stop in (1, 64, 311, 512):
        work = plan_decode([[(0, stop)]], split_tokens=64, num_items=8)
        static.copy_(work)
        graph.replay()
        assert torch.equal(out, decode_attention(q, store, work.to(q.device), 0.125))


def _tensors(store: StoredKv) -> tuple[torch.Tensor | None, ...]:
    return store.k, store.v, store.k_scales, store.v_scales


def test_a_dequantised_copy_never_exists(monkeypatch: pytest.MonkeyPatch):
    """Over 32,768 tokens in blocks of 1,024, memory for two such blocks is all there ever is.

    A float32 copy of the keys and values would be 2 x 32,768 x 2 x 64 x 4 B = 33.6 MB; a block of
    them is 1.05 MB, and torch's steps make a few temporaries of half of one.
    """
    monkeypatch.setattr(attention_module, "BLOCK_TOKENS", 1024)
    store = random_stored(32_768, 2, 64, "int4")
    work = plan_decode([[(0, 32_768)]], split_tokens=512)
    q = seeded(1, 14, 64)
    with MemoryTrace() as trace:
        for tensor in _tensors(store):
            trace.note(tensor)
        before = trace.live_bytes
        trace.reset_peak()
        decode_attention(q, store, work, 0.125)
    assert 1.04e6 <= trace.peak_bytes - before <= 4e6


@pytest.mark.parametrize(
    ("q", "words"),
    [
        (torch.zeros(3, 5, 16), "2 heads of 16"),
        (torch.zeros(3, 6, 8), "2 heads of 16"),
        (torch.zeros(2, 6, 16), "work of 3 rows"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(q: torch.Tensor, words: str):
    _, store, work, scale = case("plain")
    with pytest.raises(ValueError, match=words):
        decode_attention(q, store, work, scale)


def planted(
    *, key_bias: float = 30.0, value_bias: float = 10.0, query: float = 1.0, needles: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Make float64 queries, keys and values with outlier channels.

    Standard normal numbers; four key channels have a bias of `key_bias` with alternating signs, the
    same for all tokens, as Qwen2's key bias gives them; two value channels have one of
    `value_bias`. Needles are tokens whose key is three times a direction that all queries of their
    head point to, three times as long.
    """
    wide = {"dtype": torch.float64}
    q = seeded(1, NUM_HEADS, HEAD_DIM, **wide) * query
    k = seeded(NUM_TOKENS, NUM_KV_HEADS, HEAD_DIM, **wide)
    v = seeded(NUM_TOKENS, NUM_KV_HEADS, HEAD_DIM, seed=1, **wide)
    k[..., 5:9] += key_bias * torch.tensor([1.0, -1.0, 1.0, -1.0], **wide)
    v[..., 60:62] += value_bias
    if needles:
        direction = seeded(NUM_KV_HEADS, HEAD_DIM, seed=2, **wide) * 3
        places = torch.linspace(100, NUM_TOKENS - 100, needles).long()
        k[places] += direction
        q[0] = direction.repeat_interleave(NUM_HEADS // NUM_KV_HEADS, dim=0)
    return q, k, v


def error_of_format(kv_format: KvFormat, **kind: float) -> float:
    """Return |out - exact| / |exact| over the output: a cache of a format against none."""
    q, k, v = planted(**kind)
    work: DecodeWork = plan_decode([[(0, NUM_TOKENS)]], split_tokens=512)
    exact = decode_attention_reference(q, StoredKv(k, v), work, SCALE)
    store = stored(k.float(), v.float(), kv_format)
    out = decode_attention(q.float(), store, work, SCALE)
    return ((out.double() - exact).norm() / exact.norm()).item()


def test_error_of_the_formats_with_outlier_channels():
    """The protocol of the stated bounds: at most 0.5 % (int8) and 5 % (int4).

    4,096 tokens, 28 queries over 4 kv heads of 128, standard normal queries, keys and values; four
    key channels at +-30 in every token, two value channels at 10; the error is the Euclidean norm
    of the difference from a float64 attention over unquantised keys and values, over all heads,
    relative to that attention's norm. Attention is spread: a query's weights stand for some 1,500
    equal ones. Measured: 0.15 % and 3.1 %.
    """
    assert error_of_format("plain") <= 1e-6
    assert error_of_format("int8") <= 0.005
    assert error_of_format("int4") <= 0.05


# What is harder, and how far off it is (int8, int4); measured values stand beside the bounds.
HARDER = {
    # Values without a mean cancel in the sum while errors do not: 6.9 %, 147 %.
    "values without outliers": ({"value_bias": 0.0}, 0.09, 1.7),
    # The same without outliers in the keys: 0.89 %, 13 %.
    "no outliers at all": ({"value_bias": 0.0, "key_bias": 0.0}, 0.012, 0.16),
    # Keys three times as far out: 0.48 %, 34 %.
    "key outliers of 100": ({"key_bias": 100.0}, 0.006, 0.5),
    # One key takes all the weight, and its value is read with one value's error: 1.4 %, 11 %.
    "a single needle": ({"needles": 1}, 0.02, 0.15),
    # Errors of their keys shift weight among needles of nearly the same: 5.0 %, 43 %.
    "sixteen needles": ({"needles": 16}, 0.06, 0.7),
    # Queries three times as long: weights stand for some 30 equal ones. 3.3 %, 37 %.
    "peaked": ({"query": 3.0}, 0.05, 0.5),
}


@pytest.mark.parametrize("name", HARDER)
def test_error_of_the_formats_where_it_is_larger(name: str):
    """Not bounds to be proud of: the figures a user should know, held so that they do not drift."""
    kind, most_int8, most_int4 = HARDER[name]
    errors = error_of_format("int8", **kind), error_of_format("int4", **kind)
    print(f"{name}: int8 {errors[0]:.2%}, int4 {errors[1]:.1%}")
    assert errors[0] <= most_int8
    assert errors[1] <= most_int4
    assert error_of_format("plain", **kind) <= 1e-5


def test_a_format_that_lost_its_scale_would_be_seen(monkeypatch: pytest.MonkeyPatch):
    real = stored

    def halved(k, v, kv_format):
        store = real(k, v, kv_format)
        if store.v_scales is not None:
            store.v_scales.mul_(0.97)
        return store

    monkeypatch.setitem(globals(), "stored", halved)
    assert error_of_format("int8") > 0.005


needs_native = pytest.mark.skipif(native() is None, reason="built without the native part")
# Query heads, kv heads, channels: alone and shared, whole vectors and not, one channel.
HEADS = [(4, 2, 64), (28, 4, 128), (6, 3, 32), (2, 2, 13), (5, 1, 8), (3, 3, 1), (2, 1, 130)]


@needs_native
@pytest.mark.parametrize("isa", ["plain", "auto"])
@pytest.mark.parametrize("heads", HEADS)
def test_the_native_part_gives_the_definition(heads: tuple[int, int, int], isa: str):
    num_heads, num_kv_heads, head_dim = heads
    store = random_stored(400, num_kv_heads, head_dim)
    # Scores from -30 to 30: a softmax without its largest score taken off would not hold them.
    q = 8 * seeded(4, num_heads, head_dim)
    work = plan_decode(
        [[(0, 131)], [], [(200, 203), (7, 9), (9, 60)], [(399, 400)]], split_tokens=50, num_items=9
    )
    out = torch.full_like(q, torch.nan)
    arrays = (x.numpy() for x in (q, store.k, store.v, work.items, work.row_items))
    native().decode_attention(*arrays, head_dim**-0.5, out.numpy(), isa)
    exact = decode_attention_reference(q.double(), store, work, head_dim**-0.5)
    # A score of 30 is a sum of up to 130 products, each rounded to 2^-24 of it.
    assert (out.double() - exact).abs().max() <= 2e-5
    assert not out[1].any()


@needs_native
def test_the_native_part_holds_scores_that_are_far_apart():
    k = torch.tensor([[[-300.0]], [[0.0]], [[2000.0]], [[1999.0]]])
    v = torch.tensor([[[7.0]], [[5.0]], [[1.0]], [[0.0]]])
    q, work = torch.ones(1, 1, 1), plan_decode([[(0, 4)]], split_tokens=3)
    out = decode_attention(q, StoredKv(k, v), work, 1.0)
    assert out.item() == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-6)
    assert decode_attention(-q, StoredKv(k, v), work, 1.0).item() == 7.0


@needs_native
@pytest.mark.parametrize("isa", ["plain", "auto"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["q", "k", "v"])
def test_the_native_part_hides_no_broken_number(where: str, bad: float, isa: str):
    tensors = {"q": seeded(2, 2, 16), "k": seeded(60, 1, 16), "v": seeded(60, 1, 16)}
    tensors[where][1, 0, 3] = bad  # of the second row alone, or of a token that both see
    work, out = plan_decode([[(0, 60)], [(0, 60)]], split_tokens=40), torch.zeros(2, 2, 16)
    arrays = (x.numpy() for x in (*tensors.values(), work.items, work.row_items))
    native().decode_attention(*arrays, 0.25, out.numpy(), isa)
    broken = ~out.isfinite().all(dim=2)
    if where == "q":
        assert broken.tolist() == [[False, False], [True, False]]
    elif where == "k" and bad == math.inf:  # minus infinity, with a query that is negative there
        assert broken.tolist() == (tensors["q"][:, :, 3] > 0).tolist()
    else:
        assert broken.all()


@needs_native
def test_a_row_is_the_same_bit_by_bit_whoever_stands_beside():
    store, q = random_stored(4000, 2, 64), seeded(3, 4, 64)
    spans = [[(0, 1500)], [(1500, 1501)], [(1600, 3999)]]
    both = decode_attention(q, store, plan_decode(spans, split_tokens=1024), 0.125)
    for row in range(3):
        work = plan_decode([spans[row]], split_tokens=1024)
        assert torch.equal(decode_attention(q[row : row + 1], store, work, 0.125)[0], both[row])


@needs_native
@pytest.mark.parametrize("split_tokens", [1, 2, 4])
def test_tokens_that_weigh_nothing_break_no_others(split_tokens: int):
    k = torch.tensor([-math.inf, -math.inf, 1.0, 2.0]).view(4, 1, 1)
    v = torch.tensor([9.0, 9.0, 1.0, 0.0]).view(4, 1, 1)
    q = torch.ones(1, 1, 1)
    work = plan_decode([[(0, 4)]], split_tokens=split_tokens)
    out = decode_attention(q, StoredKv(k, v), work, 1.0)
    assert out.item() == pytest.approx(1 / (1 + math.e), abs=1e-6)
    nothing = plan_decode([[(0, 2)]], split_tokens=split_tokens)
    assert decode_attention(q, StoredKv(k, v), nothing, 1.0).isnan().all()


@needs_native
def test_what_is_learned_from_is_read_by_torch():
    q, store, work, scale = case("plain")
    expected = decode_attention(q, store, work, scale)
    learned = StoredKv(store.k.clone().requires_grad_(), store.v)
    with torch.no_grad():
        for given in ((q.clone().requires_grad_(), store), (q, learned)):
            assert torch.allclose(decode_attention(*given, work, scale), expected, atol=2e-6)


@needs_native
@pytest.mark.parametrize("what", ["half", "int8", "strided"])
def test_what_the_native_part_does_not_read_is_read_by_torch(
    what: str, monkeypatch: pytest.MonkeyPatch
):
    dtype = torch.bfloat16 if what == "half" else torch.float32
    q, store, work, scale = case("int8" if what == "int8" else "plain", dtype)
    if what == "strided":
        store = StoredKv(*(torch.cat([x, x], dim=2)[..., :16] for x in (store.k, store.v)))
    exact = decode_attention_reference(q.double(), store, work, scale)
    monkeypatch.setattr(module, "_decode_attention_native", None)
    out = decode_attention(q, store, work, scale)
    assert (out.double() - exact).abs().max() <= (2e-2 if what == "half" else 2e-6)


@needs_native
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"keys": (300, 2, 15)}, "do not fit together"),
        ({"values": (299, 2, 16)}, "do not fit together"),
        ({"keys": (300, 4, 16), "values": (300, 4, 16)}, "do not fit together"),
        ({"out": (3, 6, 8)}, "do not fit together"),
        ({"items": [[0, 0, 301]]}, "item 0 leaves its row or the cache"),
        ({"items": [[0, -1, 4]]}, "item 0 leaves its row or the cache"),
        ({"items": [[1, 0, 4]]}, "item 0 leaves its row or the cache"),
        ({"row_items": [0, 2, 2, 2]}, "row_items are not ascending"),
        ({"row_items": [0, 1, 0, 1]}, "row_items are not ascending"),
        ({"items": [[0, 0, 301], [0, 0, 2**31 - 1]]}, "item 0 leaves its row or the cache"),
        ({"isa": "sse9"}, "isa = 'sse9'"),
    ],
)
def test_the_native_part_refuses_what_would_leave_its_memory(change: dict[str, Any], words: str):
    given: dict[str, Any] = {
        "queries": (3, 6, 16),
        "keys": (300, 2, 16),
        "values": (300, 2, 16),
        "items": [[0, 0, 300]],
        "row_items": [0, 1, 1, 1],
        "out": (3, 6, 16),
        "scale": 1.0,
        "isa": "auto",
    } | change
    for name in ("queries", "keys", "values", "out"):
        given[name] = np.ones(given[name], np.float32)
    for name in ("items", "row_items"):
        given[name] = np.array(given[name], np.int32)
    with pytest.raises(ValueError, match=words):
        native().decode_attention(**given)


def test_rows_are_read_at_once_where_it_is_the_faster(monkeypatch: pytest.MonkeyPatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(module, "uses_triton", lambda _: True)
    assert reads_rows_at_once(10**6, 4, 256, cpu)
    assert not reads_rows_at_once(1, 4, 258, cpu)
    monkeypatch.setattr(module, "uses_triton", lambda _: False)
    monkeypatch.setattr(module, "native", lambda: None)
    assert not reads_rows_at_once(1, 2, 64, cpu)
    monkeypatch.setattr(module, "native", lambda: module)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert reads_rows_at_once(2048, 2, 64, cpu)  # 2 MiB of keys and values
    assert not reads_rows_at_once(2049, 2, 64, cpu)
    assert not reads_rows_at_once(1, 2, 64, torch.device("meta"))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert reads_rows_at_once(10**6, 2, 64, cpu)
