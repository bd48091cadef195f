"""Chunks over spans are one softmax: against the joined reference, and against wrong merges."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_video.errors import BackendMissingError
from llava_video.ops import attention as attention_module
from llava_video.ops.attention import Span, attention, attention_reference

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def seeded(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32, device: str = "cpu"):
    generator = torch.Generator().manual_seed(seed + 7 * sum(shape))
    return torch.randn(shape, generator=generator).to(device, dtype)


def case(
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    length: int,
    past: list[int],
    **kind: object,
) -> tuple[torch.Tensor, list[Span], torch.Tensor, torch.Tensor, float]:
    """Make queries, spans and own keys, token-major in memory as the cache has them."""

    def keys(n: int, seed: int) -> torch.Tensor:
        return seeded(n, num_kv_heads, head_dim, seed=seed, **kind).transpose(0, 1)

    # Peaked scores: an average instead of a softmax would be far off.
    q = seeded(length, num_heads, head_dim, **kind).transpose(0, 1) * 2
    spans = [(keys(n, 2 * i + 3), keys(n, 2 * i + 4)) for i, n in enumerate(past)]
    return q, spans, keys(length, 1), keys(length, 2), head_dim**-0.5


def errors(arguments, result: torch.Tensor) -> tuple[float, float]:
    """Return the error against the float32 reference, and the house tolerance for the dtype."""
    q, spans, k_own, v_own, scale = arguments
    wide = [(k.float(), v.float()) for k, v in spans]
    exact = attention_reference(q.float(), wide, k_own.float(), v_own.float(), scale)
    own = attention_reference(q, spans, k_own, v_own, scale).float()
    # Kernels round the weights to q's dtype as well, which the reference does not.
    weights = max(v.abs().max().item() for _, v in (*wide, (k_own, v_own.float())))
    limit = 2 * (own - exact).abs().max().item() + torch.finfo(q.dtype).eps * weights
    return (result.float() - exact).abs().max().item(), limit


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


@settings(max_examples=40)
@given(
    st.sampled_from([(4, 4), (6, 2), (5, 1)]),
    st.integers(1, 12),
    st.lists(st.integers(1, 20), max_size=4),
)
def test_random_spans(heads: tuple[int, int], length: int, past: list[int]):
    arguments = case(*heads, 8, length, past)
    error, _ = errors(arguments, attention(*arguments))
    assert error <= 3e-6


def test_a_token_whose_own_keys_end_the_span():
    q, spans, k_own, v_own, scale = case(14, 2, 64, 1, [40])
    joined = (torch.cat([spans[0][0], k_own], dim=1), torch.cat([spans[0][1], v_own], dim=1))
    result = attention(q, [joined], None, None, scale)
    assert torch.allclose(result, attention_reference(q, spans, k_own, v_own, scale), atol=2e-6)


def test_keys_of_another_dtype_are_read_as_the_queries():
    q, spans, k_own, v_own, scale = case(6, 2, 8, 5, [9])
    half = [(k.bfloat16(), v.bfloat16()) for k, v in spans]
    result = attention(q, half, k_own.bfloat16(), v_own.bfloat16(), scale)
    wide = [(k.float(), v.float()) for k, v in half]
    own = k_own.bfloat16().float(), v_own.bfloat16().float()
    assert torch.allclose(result, attention_reference(q, wide, *own, scale), atol=3e-6)


def test_wrong_merges_are_rejected(monkeypatch: pytest.MonkeyPatch):
    arguments = case(6, 2, 8, 9, [20, 4])
    limit = 3e-6
    assert errors(arguments, attention(*arguments))[0] <= limit
    merge, attend = attention_module._merge, attention_module._attend

    def unweighted(parts):
        return sum(out for out, _ in parts) / len(parts)

    def sizes_for_weights(parts):
        flat = [(out, torch.zeros_like(lse)) for out, lse in parts]
        return merge(flat)

    def never_causal(*args, **kwargs):
        return attend(*args, **{**kwargs, "is_causal": False})

    for name, mutant in (
        ("_merge", unweighted),
        ("_merge", sizes_for_weights),
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
        assert errors(arguments, attention(*arguments))[0] <= 3e-6


def test_kernels_log_sum_exp_is_the_plain_one():
    q, k, v = seeded(2, 3, 9, 8), seeded(2, 3, 17, 8), seeded(2, 3, 17, 8, seed=1)
    out, lse = attention_module._attend(q, k, v, 0.3, is_causal=False, kind="sdpa")
    plain_out, plain_lse = attention_module._attend_plain(q, k, v, 0.3, is_causal=False)
    assert torch.allclose(out, plain_out, atol=2e-6)
    assert torch.allclose(lse, plain_lse, atol=2e-6)


def test_past_keys_are_not_copied(monkeypatch: pytest.MonkeyPatch):
    q, spans, k_own, v_own, scale = case(6, 2, 8, 9, [20, 4])
    owned = {t.untyped_storage().data_ptr() for span in spans for t in span}
    seen = set()
    attend = attention_module._attend

    def spy(q, k, v, *args, **kwargs):
        seen.update({k.untyped_storage().data_ptr(), v.untyped_storage().data_ptr()})
        return attend(q, k, v, *args, **kwargs)

    monkeypatch.setattr(attention_module, "_attend", spy)
    attention(q, spans, k_own, v_own, scale)
    assert owned <= seen
    assert seen - owned == {t.untyped_storage().data_ptr() for t in (k_own, v_own)}


def test_gradients_flow_without_a_past():
    q, _, k_own, v_own, scale = case(6, 2, 8, 5, [])
    v_own.requires_grad_()
    attention(q, [], k_own, v_own, scale).sum().backward()
    # Every query hands out weights that sum to one, to three heads of a group each.
    assert v_own.grad.sum().item() == pytest.approx(5 * 6 * 8, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"spans": [], "k_own": None, "v_own": None}, "no keys"),
        ({"k_own": None, "v_own": None}, "needs its own keys"),
        ({"k_own": torch.zeros(2, 4, 8)}, "own keys"),
        ({"spans": [(torch.zeros(2, 0, 8), torch.zeros(2, 0, 8))]}, "keys \\(2, 0, 8\\)"),
        ({"spans": [(torch.zeros(4, 3, 8), torch.zeros(4, 3, 8))]}, "keys \\(4, 3, 8\\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(changes: dict[str, object], words: str):
    q, spans, k_own, v_own, scale = case(6, 2, 8, 5, [3])
    arguments = {"q": q, "spans": spans, "k_own": k_own, "v_own": v_own, "scale": scale} | changes
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
        assert errors(arguments, attention(*arguments, kind="flash"))[0] <= 3e-6


@pytest.mark.gpu
def test_flash_attn_equals_sdpa():
    pytest.importorskip("flash_attn")
    for shape in CASES:
        arguments = case(*shape, dtype=torch.bfloat16, device="cuda")
        error, limit = errors(arguments, attention(*arguments, kind="flash"))
        assert error <= limit
