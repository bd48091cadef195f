"""Rows of a step become keys of the right kind, over the right places."""

import dataclasses

import pytest
import torch
from seeded_models import TEXT

from llava_video.model import step_rows
from llava_video.model.kv_cache import KvSpan
from llava_video.model.step_keys import DecodeKeys, Reader, RowKeys, SplitKeys
from llava_video.model.step_rows import Row, decode_keys, row_keys, step_keys
from llava_video.ops.decode_work import spans_per_row
from llava_video.ops.frequency_bands import FrequencyBands
from llava_video.ops.rotation import frequencies

EXACT = {"mode": "exact", "device": torch.device("cpu")}
# Rows as (slab, tokens, slabs of the past).
CHUNK, SINGLE, LONE = (0, 5, (0,)), (0, 1, (0, 0)), (0, 1, ())
ELSEWHERE, SPREAD = (1, 1, (1,)), (0, 1, (0, 1))


def rows_of(kinds: list[tuple[int, int, tuple[int, ...]]]) -> list[Row]:
    rows, start = [], 0
    for i, (slab_idx, length, pasts) in enumerate(kinds):
        first = 100 * i
        past = tuple(KvSpan(idx, first + 10 * j, first + 10 * j + 9) for j, idx in enumerate(pasts))
        write = KvSpan(slab_idx, first + 50, first + 50 + length)
        rows.append(Row(start, start + length, past, write))
        start += length
    return rows


def shape_of(kinds, config=TEXT):
    """Return what a step of such rows is made of: kind and tokens, in order."""
    rows = rows_of(kinds)
    idxs = torch.arange(rows[-1].stop)
    keys = step_keys(idxs, rows, [1.0] * len(rows), config, **EXACT)
    if isinstance(keys, SplitKeys):
        ends = [0, *(stop for _, stop, _ in keys.parts)]
        assert [start for start, _, _ in keys.parts] == ends[:-1]
        return [(type(part), len(part.slots)) for _, _, part in keys.parts]
    return [(type(keys), len(keys.slots))]


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ([CHUNK], [(RowKeys, 5)]),
        ([SINGLE], [(DecodeKeys, 1)]),
        ([SINGLE, LONE, SINGLE], [(DecodeKeys, 3)]),
        ([SINGLE, SINGLE, CHUNK], [(DecodeKeys, 2), (RowKeys, 5)]),
        ([SINGLE, CHUNK, SINGLE], [(DecodeKeys, 1), (RowKeys, 5), (DecodeKeys, 1)]),
        ([SINGLE, ELSEWHERE, ELSEWHERE], [(DecodeKeys, 1), (DecodeKeys, 2)]),
        ([SPREAD, CHUNK, SINGLE], [(RowKeys, 6), (DecodeKeys, 1)]),
    ],
)
def test_single_tokens_of_one_slab_share_a_call_where_it_is_the_faster(
    kinds, expected, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(step_rows, "reads_rows_at_once", lambda *_: True)
    assert shape_of(kinds) == expected


def test_a_row_is_read_by_its_own_length_whoever_stands_beside(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def is_short(num_tokens: int, num_kv_heads: int, head_dim: int, device: torch.device) -> bool:
        asked.append(num_tokens)
        assert (num_kv_heads, head_dim) == (TEXT.num_kv_heads, TEXT.head_dim)
        assert device == torch.device("cpu")
        return num_tokens < 19

    monkeypatch.setattr(step_rows, "reads_rows_at_once", is_short)
    assert shape_of([SINGLE, LONE, CHUNK, LONE]) == [(RowKeys, 1), (DecodeKeys, 1), (RowKeys, 5),
                                                      (DecodeKeys, 1)]  # fmt: skip
    assert set(asked) == {19, 1}  # two spans of nine and itself; itself


def test_items_are_cut_alike_whoever_stands_beside():
    def items(*lengths: int) -> list[list[int]]:
        rows = [
            Row(
                i,
                i + 1,
                (KvSpan(0, 9000 * i, 9000 * i + length),),
                KvSpan(0, 9000 * i + 8500, 9000 * i + 8501),
            )
            for i, length in enumerate(lengths)
        ]
        ones = [1.0] * len(rows)
        return decode_keys(torch.tensor(lengths), rows, ones, TEXT, **EXACT).work.items.tolist()

    alone = items(3000)
    assert len(alone) > 2
    assert items(3000, 8000, 70, 5)[: len(alone)] == alone


def test_otherwise_only_slabs_part_the_rows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(step_rows, "reads_rows_at_once", lambda *_: False)
    assert shape_of([SINGLE, CHUNK, SPREAD, LONE]) == [(RowKeys, 8)]
    assert shape_of([SINGLE, ELSEWHERE, CHUNK]) == [(RowKeys, 1), (RowKeys, 1), (RowKeys, 5)]


def test_readers_count_from_the_first_token_of_their_part():
    rows = rows_of([CHUNK, CHUNK, SINGLE])[1:]
    keys = row_keys(torch.arange(6), rows, [1.0, 2.0], TEXT, **EXACT)
    assert keys.readers == (
        Reader(0, 5, rows[0].past, rows[0].write),
        Reader(5, 6, (*rows[1].past, rows[1].write), None),
    )
    assert keys.slots.tolist() == [150, 151, 152, 153, 154, 250]
    assert keys.slots.dtype is torch.int64


def test_spans_that_touch_are_read_as_one():
    past = (KvSpan(0, 3, 5), KvSpan(0, 5, 9), KvSpan(0, 9, 9), KvSpan(1, 9, 12), KvSpan(0, 9, 10))
    (chunk,) = row_keys(
        torch.arange(2), [Row(0, 2, past, KvSpan(0, 10, 12))], [1.0], TEXT, **EXACT
    ).readers
    assert chunk.seen == (KvSpan(0, 3, 9), KvSpan(1, 9, 12), KvSpan(0, 9, 10))
    assert chunk.own == KvSpan(0, 10, 12)
    (single,) = row_keys(
        torch.arange(1), [Row(0, 1, past, KvSpan(0, 10, 11))], [1.0], TEXT, **EXACT
    ).readers
    assert (single.seen[-1], single.own) == (KvSpan(0, 9, 11), None)


def test_decoded_tokens_see_their_past_and_themselves():
    rows = [
        Row(0, 1, (KvSpan(2, 0, 40), KvSpan(2, 50, 60)), KvSpan(2, 60, 61)),
        Row(1, 2, (), KvSpan(2, 99, 100)),
    ]
    keys = decode_keys(torch.tensor([50, 0]), rows, [1.0] * 2, TEXT, split_tokens=16, **EXACT)
    assert spans_per_row(keys.work) == [[(0, 40), (50, 61)], [(99, 100)]]
    assert keys.work.num_items == 3 + 1 + 1
    assert (keys.slab_idx, keys.slots.tolist()) == (2, [60, 99])
    padded = decode_keys(
        torch.tensor([50, 0]), rows, [1.0] * 2, TEXT, split_tokens=16, num_items=9, **EXACT
    )
    assert padded.work.num_items == 9
    assert spans_per_row(padded.work) == spans_per_row(keys.work)
    with pytest.raises(ValueError, match="room for 4"):
        decode_keys(
            torch.tensor([50, 0]), rows, [1.0] * 2, TEXT, split_tokens=16, num_items=4, **EXACT
        )


def test_positions_are_scaled_by_request_and_checkpoint():
    config = dataclasses.replace(TEXT, rope_scale=4.0)
    rows = rows_of([CHUNK, SINGLE, SINGLE, CHUNK])
    scales = [1.0, 2.5, 1.0, 2.5]
    keys = row_keys(torch.arange(12), rows, scales, config, **EXACT)
    turns = keys.rotation.frequencies[keys.rotation.scale_idxs.long()]
    per_token = [4.0] * 5 + [10.0] + [4.0] + [10.0] * 5
    for idx, scale in enumerate(per_token):
        wanted = frequencies(TEXT.head_dim, TEXT.rope_theta, scale)
        assert torch.equal(turns[idx], wanted)
    assert len(keys.rotation.frequencies) == 2
    # A decoded row has a row of frequencies of its own, so that its shape is always the same.
    rows = rows_of([SINGLE, LONE, SINGLE])
    keys = decode_keys(torch.arange(3), rows, [1.0, 2.5, 1.0], config, **EXACT)
    assert keys.rotation.scale_idxs.tolist() == [0, 1, 2]
    assert torch.equal(keys.rotation.frequencies[0], keys.rotation.frequencies[2])


@pytest.mark.parametrize("make", [row_keys, decode_keys])
def test_frequencies_are_the_checkpoints(make):
    bands = FrequencyBands(factor=8.0, low_factor=1.0, high_factor=4.0, positions=64)
    config = dataclasses.replace(TEXT, rope_scale=2.0, rope_bands=bands)
    keys = make(torch.arange(1), rows_of([SINGLE]), [1.5], config, **EXACT)
    wanted = frequencies(TEXT.head_dim, TEXT.rope_theta, 3.0, bands)
    assert torch.equal(keys.rotation.frequencies, wanted[None])
    assert not torch.equal(wanted, frequencies(TEXT.head_dim, TEXT.rope_theta, 3.0))


@pytest.mark.parametrize("kinds", [[CHUNK], [SINGLE, CHUNK], [SINGLE, ELSEWHERE], [SPREAD]])
def test_what_cannot_be_decoded_together_is_refused(kinds):
    rows = rows_of(kinds)
    with pytest.raises(ValueError, match="other than one token"):
        decode_keys(torch.arange(rows[-1].stop), rows, [1.0] * len(rows), TEXT, **EXACT)


@pytest.mark.parametrize(("start", "stop", "places"), [(2, 2, 0), (0, 3, 2), (-1, 1, 2)])
def test_impossible_rows_are_refused(start: int, stop: int, places: int):
    with pytest.raises(ValueError, match="write to"):
        Row(start, stop, (), KvSpan(0, 0, places))
