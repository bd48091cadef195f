"""The language model: chunked against one shot, many sequences against one at a time."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from seeded_models import (
    TEXT,
    hidden_rows,
    model_of,
    new_cache,
    relative_error,
    run_chunked,
    text_config,
)

from llava_video import backends
from llava_video.errors import BackendMissingError
from llava_video.model import step_keys, step_rows
from llava_video.model.decoder import LanguageModel
from llava_video.model.dimensions import TextConfig
from llava_video.model.kv_cache import KvSpan
from llava_video.model.step_rows import Row
from llava_video.ops import dispatch

CONFIGS = {
    "grouped": TEXT,
    "ungrouped": text_config(num_kv_heads=6),
    "one_kv_head": text_config(num_kv_heads=1),
    "tied": text_config(tie_embeddings=True),
    "scaled": text_config(rope_scale=4.0),
}


@settings(max_examples=25)
@given(
    st.sampled_from(["grouped", "ungrouped", "one_kv_head"]),
    st.lists(st.sampled_from([1, 1, 2, 3, 7, 16]), min_size=1, max_size=9),
    st.booleans(),
)
def test_chunked_equals_one_shot(name: str, lengths: list[int], apart: bool):
    model = model_of(CONFIGS[name])
    hidden = hidden_rows(sum(lengths))
    whole = run_chunked(model, hidden, [sum(lengths)])
    assert relative_error(run_chunked(model, hidden, lengths, apart=apart), whole) <= 1e-5


def test_wrong_chunks_are_rejected(monkeypatch: pytest.MonkeyPatch):
    model, hidden, lengths = model_of(TEXT), hidden_rows(30), [9, 1, 20]
    whole = run_chunked(model, hidden, [30])
    attention = step_keys.attention

    def forgets_the_past(q, past, own, scale, **kind):
        return attention(q, [] if own is not None else past, own, scale, **kind)

    def sees_no_future_but_its_own_first(q, past, own, scale, **kind):
        flipped = own and dataclasses.replace(own, k=own.k.flip(0), v=own.v.flip(0))
        return attention(q, past, flipped, scale, **kind)

    for mutant in (forgets_the_past, sees_no_future_but_its_own_first):
        with monkeypatch.context() as patch:
            patch.setattr(step_keys, "attention", mutant)
            assert relative_error(run_chunked(model, hidden, lengths), whole) > 1e-3, mutant


@torch.inference_mode()
def test_many_sequences_in_one_step_equal_one_at_a_time():
    model, lengths = model_of(TEXT), [5, 1, 17, 3]
    prompts = [hidden_rows(length, seed=length) for length in lengths]
    nexts = [hidden_rows(1 + i % 2 * 4, seed=90 + i) for i in range(4)]  # 1 or 5 more tokens
    cache = new_cache(model)

    def step(pieces: list[torch.Tensor], pasts: list[tuple[KvSpan, ...]]) -> list[torch.Tensor]:
        rows, idxs, start = [], [], 0
        for i, piece in enumerate(pieces):
            write = cache.reserve(len(piece)).span
            first = sum(span.num_tokens for span in pasts[i])
            rows.append(Row(start, start + len(piece), pasts[i], write))
            idxs.append(torch.arange(first, first + len(piece)))
            pasts[i] = (*pasts[i], write)
            start += len(piece)
        hidden = model(torch.cat(pieces), torch.cat(idxs), rows, cache)
        return list(hidden.split([len(piece) for piece in pieces]))

    pasts: list[tuple[KvSpan, ...]] = [()] * 4
    first = step(prompts, pasts)
    second = step(nexts, pasts)
    for prompt, following, a, b in zip(prompts, nexts, first, second, strict=True):
        alone = run_chunked(model, torch.cat([prompt, following]), [len(prompt) + len(following)])
        assert relative_error(torch.cat([a, b]), alone) <= 1e-5


@torch.inference_mode()
def test_forks_share_a_prefix_without_touching_it():
    model = model_of(TEXT)
    prefix, ends = hidden_rows(12), [hidden_rows(4, seed=1), hidden_rows(6, seed=2)]
    cache = new_cache(model)
    shared = cache.reserve(12).span
    model(prefix, torch.arange(12), [Row(0, 12, (), shared)], cache)
    for end in ends:
        write = cache.reserve(len(end)).span
        row = Row(0, len(end), (shared,), write)
        result = model(end, torch.arange(12, 12 + len(end)), [row], cache)
        alone = run_chunked(model, torch.cat([prefix, end]), [12 + len(end)])[12:]
        assert relative_error(result, alone) <= 1e-5


@torch.inference_mode()
def test_only_distances_between_positions_matter_and_they_are_real_numbers():
    model, hidden = model_of(TEXT), hidden_rows(9)

    def run(model: LanguageModel, first: int, scale: float) -> torch.Tensor:
        cache = new_cache(model)
        row = Row(0, 9, (), cache.reserve(9).span)
        return model(hidden, torch.arange(first, first + 9), [row], cache, [scale])

    at_zero = run(model, 0, 1.0)
    assert relative_error(run(model, 100, 1.0), at_zero) <= 1e-5
    assert relative_error(run(model, 100, 4.0), at_zero) > 1e-3
    scaled = model_of(CONFIGS["scaled"])  # by 4
    assert torch.equal(run(scaled, 100, 1.0), run(model, 100, 4.0))
    assert torch.equal(run(scaled, 100, 2.5), run(model, 100, 10.0))


@torch.inference_mode()
def test_every_row_has_its_own_scale():
    model, scales, lengths = model_of(TEXT), [1.0, 2.5, 1.0, 4.0], [6, 5, 1, 9]
    cache, hidden = new_cache(model), hidden_rows(sum(lengths))
    rows, start = [], 0
    for length in lengths:
        rows.append(Row(start, start + length, (), cache.reserve(length).span))
        start += length
    idxs = torch.cat([torch.arange(length) for length in lengths])
    result = model(hidden, idxs, rows, cache, scales).split(lengths)
    for got, piece, scale in zip(result, hidden.split(lengths), scales, strict=True):
        alone = run_chunked(model, piece, [len(piece)], position_scale=scale)
        assert relative_error(got, alone) <= 1e-5


@torch.inference_mode()
def test_the_callers_hidden_rows_are_left_alone():
    model, hidden = model_of(TEXT), hidden_rows(6)
    before = hidden.clone()
    run_chunked(model, hidden, [6])
    assert torch.equal(hidden, before)


@torch.inference_mode()
def test_a_step_of_one_token_reads_one_span_when_it_touches(monkeypatch: pytest.MonkeyPatch):
    model, hidden, seen = model_of(TEXT), hidden_rows(8), []
    attention = step_keys.attention

    def spy(q, past, own, scale, **kind):
        seen.append(([span.num_tokens for span in past], own is None))
        return attention(q, past, own, scale, **kind)

    monkeypatch.setattr(step_keys, "attention", spy)
    monkeypatch.setattr(step_rows, "reads_rows_at_once", lambda *_: False)
    run_chunked(model, hidden, [4, 3, 1])
    per_layer = [([], False), ([4], False), ([8], True)]
    assert seen == [entry for entry in per_layer for _ in range(TEXT.num_layers)]


@torch.inference_mode()
def test_logits_of_the_rows_that_are_asked_for():
    model = model_of(TEXT)
    hidden = run_chunked(model, hidden_rows(6), [6])
    assert model.logits(hidden[-1:]).shape == (1, TEXT.vocab_size)
    assert torch.allclose(model.logits(hidden[-1:]), model.logits(hidden)[-1:], atol=1e-5)


def test_a_tied_head_is_the_embedding():
    model = model_of(CONFIGS["tied"])
    assert "lm_head.weight" not in dict(model.named_parameters())
    hidden = hidden_rows(2)
    assert torch.allclose(model.logits(hidden), hidden @ model.embed_tokens.weight.T, atol=1e-5)


@torch.inference_mode()
def test_layers_on_several_devices_hand_their_rows_on(monkeypatch: pytest.MonkeyPatch):
    model, hidden = model_of(TEXT), hidden_rows(7)
    expected = run_chunked(model, hidden, [7])
    second = torch.device("cpu", 0)  # another name for the CPU: tensors remember which they got
    if torch.zeros(1).to(second).device == torch.device("cpu"):
        pytest.skip("this torch does not tell the two names apart")
    model.layers[1].to(second)
    assert model.devices == (torch.device("cpu"), second)
    entered = []
    for layer in model.layers:
        layer.register_forward_pre_hook(
            lambda module, args: entered.append((args[0].device, args[1].slots.device))
        )
    assert torch.equal(run_chunked(model, hidden, [7]), expected)
    assert entered == [(torch.device("cpu"),) * 2, (second,) * 2]


@pytest.mark.gpu
@torch.inference_mode()
def test_a_gpu_agrees_and_layers_may_be_split_with_the_cpu():
    model, hidden = model_of(TEXT), hidden_rows(40)
    expected = run_chunked(model, hidden, [40])
    model.layers[1].to("cuda")
    model.norm.to("cuda")
    split = run_chunked(model, hidden, [23, 1, 16])
    assert split.device.type == "cuda"
    assert relative_error(split.cpu(), expected) <= 1e-4
    model.to("cuda")
    assert relative_error(run_chunked(model, hidden, [23, 1, 16]).cpu(), expected) <= 1e-4


def test_gradients_flow_with_and_without_kernels(monkeypatch: pytest.MonkeyPatch):
    gradients = []
    for choice in ("reference", "triton"):
        monkeypatch.setattr(dispatch, "_choice", lambda choice=choice: choice)
        model, hidden = model_of(TEXT), hidden_rows(5).requires_grad_()
        cache = new_cache(model)
        row = Row(0, 5, (), cache.reserve(5).span)
        model.logits(model(hidden, torch.arange(5), [row], cache)).square().sum().backward()
        assert all(parameter.grad is not None for parameter in model.layers.parameters())
        gradients.append(hidden.grad)
    assert gradients[0].abs().sum() > 0
    assert torch.equal(*gradients)


def test_flash_attn_that_is_absent_is_named_at_once(monkeypatch: pytest.MonkeyPatch):
    def absent(name: str):
        raise BackendMissingError(f"{name} is absent.", "pip install")

    monkeypatch.setattr(backends, "require", absent)
    with pytest.raises(BackendMissingError, match="flash_attn is absent"):
        LanguageModel(TEXT, attn="flash")


def test_a_model_of_72b_costs_nothing_on_the_meta_device():
    config = TextConfig(
        hidden_size=8192, intermediate_size=29568, num_layers=80, num_heads=64, num_kv_heads=8,
        head_dim=128, vocab_size=152064, rms_norm_eps=1e-6, rope_theta=1e6, max_positions=32768,
        tie_embeddings=False,
    )  # fmt: skip
    with torch.device("meta"):
        model = LanguageModel(config)
    # 12 tensors a layer, embeddings, final norm, head: 1389 of the whole, the rest has 426.
    assert len(list(model.parameters())) == 80 * 12 + 3 == 1389 - 426
    assert 72e9 < sum(p.numel() for p in model.parameters()) < 73e9


@pytest.mark.parametrize(
    ("rows", "num_idxs", "num_scales"),
    [
        ([(0, 3)], 4, 1),  # a row of hidden vectors that belongs to nobody
        ([(0, 2), (3, 4)], 4, 2),
        ([(0, 4)], 3, 1),
        ([], 4, 0),
        ([(0, 4)], 4, 2),
    ],
)
def test_rows_that_do_not_cover_the_step_are_refused(rows, num_idxs: int, num_scales: int):
    model = model_of(TEXT)
    cache = new_cache(model)
    asked = [Row(a, b, (), cache.reserve(b - a).span) for a, b in rows]
    with pytest.raises(ValueError, match="row"):
        model(hidden_rows(4), torch.arange(num_idxs), asked, cache, [1.0] * num_scales)
