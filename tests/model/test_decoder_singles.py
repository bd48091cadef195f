"""Single tokens decoded together: equal to rows one by one, on kernels, and in a captured graph."""

import pytest
import torch
from kernels import interpreted
from seeded_models import (
    TEXT,
    hidden_rows,
    model_of,
    new_cache,
    relative_error,
    run_chunked,
    text_config,
)

from llava_video.model import step_keys, step_rows
from llava_video.model.decoder import LanguageModel
from llava_video.model.step_keys import DecodeKeys
from llava_video.model.step_rows import Row, decode_keys
from llava_video.ops import dispatch
from llava_video.values import KvFormat

FORMATS = ("plain", "int8", "int4")


@pytest.mark.parametrize("kv_format", FORMATS)
@torch.inference_mode()
def test_single_tokens_decoded_together_equal_the_rows_of_a_step(kv_format: KvFormat):
    """The seam that a graph captures, run as it is: tensors in, tensors out."""
    model, scales = model_of(TEXT), [1.0, 2.5, 1.0]
    cache = new_cache(model, slab_tokens=256)
    lengths, prompts = [40, 1, 17], [hidden_rows(n, seed=n) for n in (40, 1, 17)]
    rows, pasts = [], []
    for i, (length, prompt) in enumerate(zip(lengths, prompts, strict=True)):
        first, _, last = (cache.reserve(n, kv_format).span for n in (length, 2, 1))
        row = Row(0, length, (), first)
        model(prompt, torch.arange(length), [row], cache, [scales[i]])
        pasts.append((first,))
        rows.append(Row(i, i + 1, (first,), last))
    hidden, idxs = hidden_rows(3), torch.tensor(lengths)
    expected = model(hidden, idxs, rows, cache, scales)
    options = {"mode": "exact", "device": torch.device("cpu"), "split_tokens": 16}
    keys = decode_keys(idxs, rows, scales, TEXT, num_items=9, **options)
    assert relative_error(model.run(hidden.clone(), keys, cache), expected) <= 1e-5
    # The same tensors take another step's values: here that of another order of the rows.
    order = [2, 0, 1]
    turned = [Row(i, i + 1, rows[row].past, rows[row].write) for i, row in enumerate(order)]
    later = decode_keys(
        idxs[order], turned, [scales[row] for row in order], TEXT, num_items=9, **options
    )
    assert relative_error(model.run(hidden[order], keys, cache), expected[order]) > 1e-3
    keys.copy_(later)
    assert relative_error(model.run(hidden[order], keys, cache), expected[order]) <= 1e-5


@pytest.mark.parametrize("kv_format", FORMATS)
@torch.inference_mode()
def test_a_step_that_decodes_some_rows_together_equals_one_that_does_not(
    kv_format: KvFormat, monkeypatch: pytest.MonkeyPatch
):
    model, lengths = model_of(TEXT), [1, 1, 6, 1]
    cache = new_cache(model, slab_tokens=256)
    pasts = []
    for i in range(4):
        pasts.append(cache.reserve(20 + i, kv_format).span)
        row = Row(0, 20 + i, (), pasts[-1])
        model(hidden_rows(20 + i, seed=i), torch.arange(20 + i), [row], cache)
    rows, idxs, start = [], [], 0
    for i, length in enumerate(lengths):
        write = cache.reserve(length, kv_format).span
        rows.append(Row(start, start + length, (pasts[i],), write))
        idxs.append(torch.arange(20 + i, 20 + i + length))
        start += length
    hidden = hidden_rows(start, seed=9)
    monkeypatch.setattr(step_rows, "reads_rows_at_once", lambda *_: False)
    expected = model(hidden, torch.cat(idxs), rows, cache)
    decoded = []
    decode_attention = step_keys.decode_attention

    def spy(q, *args):
        decoded.append(len(q))
        return decode_attention(q, *args)

    monkeypatch.setattr(step_keys, "decode_attention", spy)
    monkeypatch.setattr(step_rows, "reads_rows_at_once", lambda *_: True)
    result = model(hidden, torch.cat(idxs), rows, cache)
    assert relative_error(result, expected) <= 1e-5
    assert decoded == [2, 1] * TEXT.num_layers


@interpreted
@pytest.mark.parametrize("kv_format", FORMATS)
@torch.inference_mode()
def test_kernels_equal_torch(kv_format: KvFormat, monkeypatch: pytest.MonkeyPatch):
    """Every op of the decoder by its kernel: chunk, chunk over a past, and single tokens."""
    model, hidden = model_of(TEXT), hidden_rows(12)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    expected = run_chunked(model, hidden, [7, 4, 1], kv_format=kv_format)
    monkeypatch.setattr(dispatch, "_choice", lambda: "triton")
    model.to(device)
    result = run_chunked(model, hidden.to(device), [7, 4, 1], kv_format=kv_format).cpu()
    if device.type == "cpu":
        assert relative_error(result, expected) <= 1e-5
    else:  # other products, so that single codes may fall the other way
        assert relative_error(result, expected) <= (1e-3 if kv_format == "plain" else 2e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("kv_format", FORMATS)
@torch.inference_mode()
def test_a_graph_of_the_seam_equals_the_eager_step(kv_format: KvFormat):
    device = torch.device("cuda")
    model = model_of(text_config(head_dim=64)).to(device, torch.bfloat16)
    config, cache = model.config, new_cache(model, slab_tokens=512)
    spans = [cache.reserve(n, kv_format).span for n in (150, 40)]
    for i, span in enumerate(spans):
        num = span.num_tokens
        rows = hidden_rows(num, seed=i).to(device, torch.bfloat16)
        model(rows, torch.arange(num), [Row(0, num, (), span)], cache)

    def keys_at(step: int) -> DecodeKeys:
        rows = [
            Row(i, i + 1, (span.part(0, span.num_tokens - 3 + step),), last.part(0, 1))
            for i, (span, last) in enumerate(zip(spans, lasts, strict=True))
        ]
        idxs = torch.tensor([row.past[0].num_tokens for row in rows])
        options = {"mode": "exact", "device": device, "split_tokens": 128, "num_items": 8}
        return decode_keys(idxs, rows, [1.0, 2.0], config, **options)

    lasts = [cache.reserve(1, kv_format).span for _ in spans]
    ids, keys = torch.zeros(2, dtype=torch.int64, device=device), keys_at(0)

    def run() -> torch.Tensor:
        return model.logits(model.run(model.embed(ids), keys, cache))

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        run()  # kernels are compiled before anything is captured
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    for step, new_ids in enumerate(([3, 4], [5, 6], [7, 8])):
        ids.copy_(torch.tensor(new_ids))
        keys.copy_(keys_at(step))
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(captured, run())


@torch.inference_mode()
def test_a_captured_run_reads_nothing_on_the_host(monkeypatch: pytest.MonkeyPatch):
    """On the meta device there is nothing to read: asking for a value would be an error.

    The kernels, which run on a GPU alone, are left out.
    """
    with torch.device("meta"):
        model = LanguageModel(TEXT)
    meta = torch.device("meta")
    cache = new_cache(model)
    rows = [Row(i, i + 1, (), cache.reserve(1).span) for i in range(2)]
    keys = decode_keys(torch.arange(2), rows, [1.0, 2.0], TEXT, mode="exact", device=meta)
    monkeypatch.setattr(step_keys, "rotate_and_store", lambda q, *_: q)
    monkeypatch.setattr(step_keys, "decode_attention", lambda q, *_: q)
    ids = torch.zeros(2, dtype=torch.int64, device=meta)
    logits = model.logits(model.run(model.embed(ids), keys, cache))
    assert (logits.device, logits.shape) == (meta, (2, TEXT.vocab_size))
