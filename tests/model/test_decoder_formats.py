"""The language model over caches that round: every chunking alike, and as the formats define it.

Quantised caches are chunked in float64: there no key comes to lie on the other side of a rounding
border because a matrix product of another size rounded its last bit otherwise.
"""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from seeded_models import TEXT, hidden_rows, model_of, new_cache, relative_error, run_chunked

from llava_video.model.decoder import DecoderLayer
from llava_video.model.dimensions import TextConfig
from llava_video.model.kv_cache import KvCache, KvSpan
from llava_video.model.step_rows import Row
from llava_video.ops.kv_format import dequantise, quantise
from llava_video.values import KvFormat

FORMATS = ("plain", "int8", "int4")


@settings(max_examples=15)
@given(
    st.sampled_from(FORMATS),
    st.lists(st.sampled_from([1, 1, 2, 3, 7, 16]), min_size=1, max_size=9),
    st.booleans(),
    st.sampled_from([1.0, 2.5]),
)
def test_every_format_gives_every_chunking_the_same_answer(
    kv_format: KvFormat, lengths: list[int], apart: bool, scale: float
):
    model, hidden = model_of(TEXT).double(), hidden_rows(sum(lengths)).double()
    options = {"kv_format": kv_format, "position_scale": scale}
    whole = run_chunked(model, hidden, [sum(lengths)], **options)
    chunked = run_chunked(model, hidden, lengths, apart=apart, **options)
    assert relative_error(chunked, whole) <= 1e-5


@pytest.mark.parametrize("kv_format", ["int8", "int4"])
def test_chunks_in_float32(kv_format: KvFormat):
    """Where the same codes were stored, and next to all are the same, the answer is."""
    model, hidden = model_of(TEXT), hidden_rows(40)

    def run(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        cache = new_cache(model)
        result = run_chunked(model, hidden, lengths, kv_format=kv_format, cache=cache)
        stores = [cache.stored(layer_idx, KvSpan(0, 0, 40)) for layer_idx in range(2)]
        return result, torch.cat([part for store in stores for part in (store.k, store.v)])

    whole, codes = run([40])
    for lengths in ([13, 27], [1, 1, 30, 8], [39, 1]):
        chunked, chunked_codes = run(lengths)
        share = (chunked_codes != codes).double().mean().item()
        assert share <= 2e-3
        assert relative_error(chunked, whole) <= (2e-2 if share else 1e-5)


def reference_layer(
    layer: DecoderLayer,
    hidden: torch.Tensor,
    angles: torch.Tensor,
    config: TextConfig,
    kv_format: KvFormat,
) -> torch.Tensor:
    """Compute one layer over a whole prompt by its formula; keys and values rounded as stored."""
    length, d = hidden.shape[0], config.head_dim

    def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x / (x.square().mean(-1, keepdim=True) + config.rms_norm_eps).sqrt() * weight

    def project(x: torch.Tensor, name: str) -> torch.Tensor:
        linear = getattr(layer, name)
        return F.linear(x, linear.weight, linear.bias)

    def heads(name: str) -> torch.Tensor:
        return project(norm(hidden, layer.input_norm.weight), name).view(length, -1, d)

    def turned(x: torch.Tensor) -> torch.Tensor:
        number = torch.complex(x[..., : d // 2], x[..., d // 2 :]) * torch.polar(
            torch.ones_like(angles), angles
        )
        return torch.cat((number.real, number.imag), dim=-1)

    def stored(x: torch.Tensor) -> torch.Tensor:
        rounded = dequantise(*quantise(x, kv_format), kv_format, x.dtype)
        return rounded.repeat_interleave(config.num_heads // config.num_kv_heads, dim=1)

    q, k, v = turned(heads("q_proj")), stored(turned(heads("k_proj"))), stored(heads("v_proj"))
    scores = torch.einsum("lhd,nhd->hln", q, k) / d**0.5
    scores += torch.full((length, length), -torch.inf, dtype=scores.dtype).triu(1)
    seen = torch.einsum("hln,nhd->lhd", scores.softmax(-1), v).flatten(1)
    hidden = hidden + project(seen, "o_proj")
    normed = norm(hidden, layer.post_norm.weight)
    gate = project(normed, "gate_proj")
    return hidden + project(gate * gate.sigmoid() * project(normed, "up_proj"), "down_proj")


@pytest.mark.parametrize("kv_format", FORMATS)
@pytest.mark.parametrize("scale", [1.0, 2.5])
@torch.inference_mode()
def test_equals_the_formula_with_keys_rounded_as_they_are_stored(kv_format: KvFormat, scale: float):
    model, hidden = model_of(TEXT).double(), hidden_rows(30).double()
    exponents = torch.arange(0, TEXT.head_dim, 2, dtype=torch.float64) / TEXT.head_dim
    angles = torch.arange(30).double()[:, None, None] / scale * TEXT.rope_theta**-exponents

    def expected(rounded_as: KvFormat) -> torch.Tensor:
        rows = hidden
        for layer in model.layers:
            rows = reference_layer(layer, rows, angles, TEXT, rounded_as)
        norm = model.norm.weight
        return rows / (rows.square().mean(-1, keepdim=True) + TEXT.rms_norm_eps).sqrt() * norm

    result = run_chunked(model, hidden, [17, 1, 12], kv_format=kv_format, position_scale=scale)
    assert relative_error(result, expected(kv_format)) <= 1e-5
    for mutant in set(FORMATS) - {kv_format}:
        assert relative_error(result, expected(mutant)) > 1e-4


@torch.inference_mode()
def test_a_cache_that_rounds_gives_every_chunking_the_same_answer():
    model, hidden = model_of(TEXT), hidden_rows(20)

    def run(lengths: list[int]) -> torch.Tensor:
        text = model.config
        cache = KvCache(
            text.num_layers, text.num_kv_heads, text.head_dim,
            dtype=torch.bfloat16, devices=model.devices, slab_tokens=32,
        )  # fmt: skip
        whole, outs, start = cache.reserve(20).span, [], 0
        for length in lengths:
            stop = start + length
            row = Row(0, length, (whole.part(0, start),), whole.part(start, stop))
            outs.append(model(hidden[start:stop], torch.arange(start, stop), [row], cache))
            start = stop
        return torch.cat(outs)

    one_shot = run([20])
    assert relative_error(one_shot, run_chunked(model, hidden, [20])) > 1e-4  # it does round
    # A rounding of a key may fall either way where its inputs differ in their last bit.
    assert relative_error(run([7, 1, 12]), one_shot) <= 2e-3


@pytest.mark.parametrize(
    ("kv_format", "dtype", "share"),
    [
        ("plain", torch.bfloat16, 0.05),
        ("plain", torch.float16, 0.01),
        ("int8", torch.bfloat16, 0.05),
        ("int8", torch.float16, 0.03),  # codes that fall the other way
    ],
)
@torch.inference_mode()
def test_half_precision_stays_near(kv_format: KvFormat, dtype: torch.dtype, share: float):
    exact = run_chunked(model_of(TEXT), hidden_rows(20), [20], kv_format=kv_format)
    model = model_of(TEXT).to(dtype)
    result = run_chunked(model, hidden_rows(20).to(dtype), [8, 1, 11], kv_format=kv_format)
    assert result.dtype is dtype
    assert (result.float() - exact).abs().mean() <= share * exact.abs().mean()
