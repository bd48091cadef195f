"""Chunks over spans are one softmax: against the joined reference, and against wrong merges."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kv_cases import FORMATS, parts_of, random_stored, seeded, stored
from memory_trace import traced

from llava_video.errors import BackendMissingError
from llava_video.ops import attention as attention_module
from llava_video.ops.attention import attention, attention_reference
from llava_video.ops.kv_format import StoredKv, empty_stored
from llava_video.values import KvFormat

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def case(
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    length: int,
    past: list[int],
    kv_format: KvFormat = "plain",
    **kind: object,
) -> tuple[torch.Tensor, list[StoredKv], StoredKv, float]:
    """Make queries, past spans and own keys."""

    def keys(n: int, seed: int) -> StoredKv:
        return random_stored(n, num_kv_heads, head_dim, kv_format, seed=seed, **kind)

    # Peaked scores: an average instead of a softmax would be far off.
    q = seeded(length, num_heads, head_dim, **kind) * 2
    return q, [keys(n, 2 * i + 3) for i, n in enumerate(past)], keys(length, 1), head_dim**-0.5


def errors(arguments, result: torch.Tensor) -> tuple[float, float]:
    """Return the error against the float64 reference, and the house tolerance for the dtype."""
    q, past, own, scale = arguments
    exact = attention_reference(q.double(), past, own, scale)
    rounded = attention_reference(q, past, own, scale).double()
    # Kernels round the weights to q's dtype as well, which the reference does not.
    weights = max(span.plain(torch.float32)[1].abs().max().item() for span in (*past, own))
    limit = 2 * (rounded - exact).abs().max().item() + torch.finfo(q.dtype).eps * weights
    return (result.double() - exact).abs().max().item(), limit


CASES = [
    (14, 2, 64, 50, [300, 20]),  # the heads of the 0.5B model
    (28, 4, 128, 33, [257]),  # of the 7B model
    (4, 4, 16, 7, [3, 5, 1]),  # no grouping
    (6, 2, 8, 13, []),  # no past
    (6, 2, 8, 1, [11, 4]),  # one token, own keys apart
    (3, 1, 24, 1, []),  # one token, alone
    (1, 1, 8, 1, [1]),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", CASES)
def test_equals_the_reference(shape, device: str):
    arguments = case(*shape, device=device)
    result = attention(*arguments)
    error, limit = errors(arguments, result)
    assert result.shape == arguments[0].shape
    assert error <= max(limit, 3e-6)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", CASES)
def test_half_precision(shape, dtype: torch.dtype, device: str):
    arguments = case(*shape, dtype=dtype, device=device)
    result = attention(*arguments)
    error, limit = errors(arguments, result)
    assert result.dtype is dtype
    assert error <= limit


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kv_format", ["int8", "int4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", CASES)
def test_codes_are_attended_to_as_what_they_stand_for(shape, dtype, kv_format, device: str):
    q, past, own, scale = case(*shape, kv_format, dtype=dtype, device=device)
    result = attention(q, past, own, scale)
    plain = [StoredKv(*span.plain(dtype)) for span in (*past, own)]
    assert torch.equal(result, attention(q, plain[:-1], plain[-1], scale))
    if dtype is torch.float32:
        error, limit = errors((q, past, own, scale), result)
        assert error <= max(limit, 3e-6)


@settings(max_examples=40)
@given(
    st.sampled_from([(4, 4), (6, 2), (5, 1)]),
    st.integers(1, 12),
    st.lists(st.integers(1, 20), max_size=4),
    st.sampled_from(FORMATS),
)
def test_random_spans(heads, length: int, past: list[int], kv_format: KvFormat):
    arguments = case(*heads, 8, length, past, kv_format)
    error, _ = errors(arguments, attention(*arguments))
    assert error <= 3e-6


@settings(max_examples=30)
@given(st.sampled_from(FORMATS), st.lists(st.integers(1, 24), min_size=1, max_size=6))
def test_any_chunking_gives_the_same(kv_format: KvFormat, chunks: list[int]):
    """A sequence through chunks of any sizes is one causal softmax over what was stored."""
    num_tokens = sum(chunks)
    q, store = seeded(num_tokens, 6, 16) * 2, random_stored(num_tokens, 2, 16, kv_format)
    outs, start = [], 0
    for own in parts_of(store, chunks):
        stop = start + own.num_tokens
        past = [store.part(0, start)] if start else []
        if own.num_tokens == 1:  # its keys end the span
            outs.append(attention(q[start:stop], [store.part(0, stop)], None, 0.25))
        else:
            outs.append(attention(q[start:stop], past, own, 0.25))
        start = stop
    exact = attention_reference(q.double(), [], store, 0.25)
    assert (torch.cat(outs).double() - exact).norm() <= 1e-5 * exact.norm()


@pytest.mark.parametrize("kv_format", FORMATS)
def test_blocks_give_the_same_as_one(kv_format: KvFormat, monkeypatch: pytest.MonkeyPatch):
    arguments = case(6, 2, 16, 9, [50, 1, 33], kv_format)
    whole = attention(*arguments)
    monkeypatch.setattr(attention_module, "BLOCK_TOKENS", 16)
    assert torch.allclose(attention(*arguments), whole, atol=2e-6)
    single = case(6, 2, 16, 1, [50], kv_format)
    error, limit = errors(single, attention(*single))
    assert error <= max(limit, 3e-6)


@pytest.mark.parametrize("kv_format", ["int8", "int4"])
@pytest.mark.parametrize("length", [1, 2048])
def test_memory_is_bounded_by_one_block(kv_format: KvFormat, length: int):
    """Over 525,000 tokens of a 7B's layer, nothing but one block and the chunk's own is alive.

    One block of keys and values in bfloat16 is 2 x 32,768 x 4 x 128 x 2 B = 67 MB; a dequantised
    copy of the layer would be 1,075 MB. The pieces that torch's steps dequantise are of float32,
    2,048 tokens at a time: 4.2 MB each, at most five at once. The chunk's sums, in float32, and a
    part of them on its way: 2,048 x 28 x 128 x 4 B = 29.4 MB each, four at once.
    """
    with traced() as trace:
        store = empty_stored(
            525_000, 4, 128, kv_format=kv_format, dtype=torch.bfloat16, device=torch.device("cpu")
        )
        q = torch.empty(length, 28, 128, dtype=torch.bfloat16)
        own = None if length == 1 else store.part(0, length)
        before = trace.live_bytes
        trace.reset_peak()
        attention(q, [store], own, 128**-0.5)
        grown = trace.peak_bytes - before
    sums = length * 28 * 128 * 4
    assert 67.1e6 <= grown <= 67.2e6 + 5 * 4.2e6 + 4 * sums


def test_a_block_is_let_go_before_the_next(monkeypatch: pytest.MonkeyPatch):
    """Blocks stand in the same memory one after another, and nothing keeps what was in it."""
    monkeypatch.setattr(attention_module, "BLOCK_TOKENS", 8)
    q, past, own, scale = case(6, 2, 16, 9, [20, 30], "int8")
    places = [k.data_ptr() for k, _ in attention_module._blocks([*past], q.dtype)]
    assert len(places) == 3 + 4
    assert len(set(places)) == 1
    error, limit = errors((q, past, own, scale), attention(q, past, own, scale))
    assert error <= max(limit, 3e-6)


def test_a_token_whose_own_keys_end_the_span():
    q, past, own, scale = case(14, 2, 64, 1, [40])
    joined = stored(torch.cat([past[0].k, own.k]), torch.cat([past[0].v, own.v]))
    result = attention(q, [joined], None, scale)
    assert torch.allclose(result, attention_reference(q, past, own, scale), atol=2e-6)


def test_keys_of_another_dtype_are_read_as_the_queries():
    q, past, own, scale = case(6, 2, 8, 5, [9])
    half = [StoredKv(span.k.bfloat16(), span.v.bfloat16()) for span in (*past, own)]
    result = attention(q, half[:1], half[1], scale)
    assert torch.allclose(result, attention_reference(q, half[:1], half[1], scale), atol=3e-6)


def test_queries_with_gaps_between_tokens():
    q, past, own, scale = case(6, 2, 8, 5, [9])
    apart = torch.cat([q, q], dim=1)[:, :6]
    assert not apart.is_contiguous()
    assert torch.equal(attention(apart, past, own, scale), attention(q, past, own, scale))
    assert torch.equal(attention(apart[:1], past, None, scale), attention(q[:1], past, None, scale))


def test_wrong_merges_are_rejected(monkeypatch: pytest.MonkeyPatch):
    arguments = case(6, 2, 8, 9, [20, 4])
    limit = 3e-6
    assert errors(arguments, attention(*arguments))[0] <= limit
    merge, attend = attention_module._merge, attention_module._attend

    def last_wins(total, part):
        return part

    def equal_weights(total, part):
        if total is None:
            return part
        flat = [(out, torch.zeros_like(lse)) for out, lse in (total, part)]
        return merge(*flat)

    def forgets_weights(total, part):
        joined = merge(total, part)
        return joined[0], part[1]

    def never_causal(*args, **kwargs):
        return attend(*args, **{**kwargs, "is_causal": False})

    for name, mutant in (
        ("_merge", last_wins),
        ("_merge", equal_weights),
        ("_merge", forgets_weights),
        ("_attend", never_causal),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(attention_module, name, mutant)
            assert errors(arguments, attention(*arguments))[0] > 1e-2, mutant


def test_matrix_products_stand_in_where_no_kernel_does(monkeypatch: pytest.MonkeyPatch):
    def plain(q, k, v, scale, *, is_causal, kind):
        assert kind == "sdpa"
        return attention_module._attend_plain(q, k, v, scale, is_causal=is_causal)

    monkeypatch.setattr(attention_module, "_attend", plain)
    for shape in CASES:
        arguments = case(*shape)
        error, limit = errors(arguments, attention(*arguments))
        assert error <= max(limit, 3e-6)


def test_kernels_log_sum_exp_is_the_plain_one():
    q, k, v = seeded(2, 3, 9, 8), seeded(2, 3, 17, 8), seeded(2, 3, 17, 8, seed=1)
    out, lse = attention_module._attend(q, k, v, 0.3, is_causal=False, kind="sdpa")
    plain_out, plain_lse = attention_module._attend_plain(q, k, v, 0.3, is_causal=False)
    assert torch.allclose(out, plain_out, atol=2e-6)
    assert torch.allclose(lse, plain_lse, atol=2e-6)


def test_past_keys_are_not_copied(monkeypatch: pytest.MonkeyPatch):
    q, past, own, scale = case(6, 2, 8, 9, [20, 4])
    owned = {t.untyped_storage().data_ptr() for span in past for t in (span.k, span.v)}
    seen = set()
    attend = attention_module._attend

    def spy(q, k, v, *args, **kwargs):
        seen.update({k.untyped_storage().data_ptr(), v.untyped_storage().data_ptr()})
        return attend(q, k, v, *args, **kwargs)

    monkeypatch.setattr(attention_module, "_attend", spy)
    attention(q, past, own, scale)
    assert owned <= seen
    assert seen - owned == {t.untyped_storage().data_ptr() for t in (own.k, own.v)}


def test_gradients_flow_without_a_past():
    q = seeded(5, 6, 8)
    k, v = (seeded(5, 2, 8, seed=seed).requires_grad_() for seed in (1, 2))
    attention(q, [], StoredKv(k, v), 0.3).sum().backward()
    # Every query hands out weights that sum to one, to three heads of a group each.
    assert v.grad.sum().item() == pytest.approx(5 * 6 * 8, rel=1e-5)
    # A constant added to all keys changes nothing, so their gradients sum to zero.
    assert k.grad.sum(dim=0).abs().max().item() <= 1e-5
    assert k.grad.abs().max().item() > 1e-3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"past": [], "own": None}, "no keys"),
        ({"own": None}, "needs its own keys"),
        ({"own": random_stored(4, 2, 8)}, "4 own keys"),
        ({"past": [random_stored(1, 2, 8).part(0, 0)]}, "keys \\(0, 2, 8\\)"),
        ({"past": [random_stored(3, 4, 8)]}, "keys \\(3, 4, 8\\)"),
        ({"past": [random_stored(3, 2, 16, "int4")]}, "keys \\(3, 2, 16\\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(changes: dict[str, object], words: str):
    q, past, own, scale = case(6, 2, 8, 5, [3])
    arguments = {"q": q, "past": past, "own": own, "scale": scale} | changes
    with pytest.raises(ValueError, match=words):
        attention(**arguments)


def test_flash_attn_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch):
    def absent(name: str):
        raise BackendMissingError(f"{name} is absent.", "pip install")

    monkeypatch.setattr(attention_module.backends, "require", absent)
    with pytest.raises(BackendMissingError, match="flash_attn is absent"):
        attention(*case(6, 2, 8, 5, [3]), kind="flash")


def test_flash_attn_is_called_as_it_wants_to_be(monkeypatch: pytest.MonkeyPatch):
    class Flash:
        """The package's function, by matrix products: (B, L, H, d) in and out."""

        @staticmethod
        def flash_attn_func(q, k, v, *, softmax_scale, causal, return_attn_probs):
            assert return_attn_probs
            heads_first = (t.transpose(1, 2) for t in (q, k, v))
            out, lse = attention_module._attend_plain(*heads_first, softmax_scale, is_causal=causal)
            return out.transpose(1, 2), lse, None

    monkeypatch.setattr(attention_module.backends, "require", lambda name: Flash)
    for shape in CASES:
        arguments = case(*shape)
        error, limit = errors(arguments, attention(*arguments, kind="flash"))
        assert error <= max(limit, 3e-6)


@pytest.mark.gpu
def test_flash_attn_equals_sdpa():
    pytest.importorskip("flash_attn")
    for shape in CASES:
        arguments = case(*shape, dtype=torch.bfloat16, device="cuda")
        error, limit = errors(arguments, attention(*arguments, kind="flash"))
        assert error <= limit
