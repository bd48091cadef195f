"""Items cover what each row sees, once, in pieces of the size that was asked for."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava_video.ops.decode_work import (
    DecodeWork,
    choose_split_tokens,
    count_items,
    plan_decode,
    programs_at_once,
    spans_per_row,
)

SPANS = st.lists(
    st.lists(
        st.tuples(st.integers(0, 300), st.integers(0, 90)).map(lambda s: (s[0], s[0] + s[1])),
        max_size=4,
    ),
    min_size=1,
    max_size=5,
)


@given(SPANS, st.integers(1, 70), st.integers(0, 3))
def test_every_slot_is_seen_once(spans, split_tokens: int, num_spare: int):
    needed = count_items(spans, split_tokens)
    work = plan_decode(spans, split_tokens=split_tokens, num_items=needed + num_spare)
    assert work.num_items == needed + num_spare
    assert work.num_rows == len(spans)
    assert work.items.dtype is work.row_items.dtype is torch.int32
    starts = work.row_items.tolist()
    for row, wanted in enumerate(spans):
        items = work.items[starts[row] : starts[row + 1]].tolist()
        assert all(r == row and 0 < stop - start <= split_tokens for r, start, stop in items)
        seen = [slot for _, start, stop in items for slot in range(start, stop)]
        assert seen == [slot for start, stop in wanted for slot in range(start, stop)]
    assert not work.items[starts[-1] :].any()


def test_spans_are_read_back_joined():
    spans = [[(10, 200), (200, 230), (5, 7)], [], [(0, 64)]]
    work = plan_decode(spans, split_tokens=64, num_items=9)
    assert spans_per_row(work) == [[(10, 230), (5, 7)], [], [(0, 64)]]


def test_too_few_items_are_refused():
    with pytest.raises(ValueError, match="3 items of 64 tokens, room for 2"):
        plan_decode([[(0, 129)]], split_tokens=64, num_items=2)


def test_what_is_no_span_is_refused():
    with pytest.raises(ValueError, match=r"row 1 attends to slots \[9, 3\)"):
        plan_decode([[(0, 1)], [(9, 3)]], split_tokens=64)


def test_rows_without_tokens_still_make_a_grid():
    work = plan_decode([[], []], split_tokens=64)
    assert work.items.tolist() == [[0, 0, 0]]
    assert work.row_items.tolist() == [0, 0, 0]


def test_a_graphs_work_is_overwritten_in_place():
    static = plan_decode([[(0, 100)], []], split_tokens=64, num_items=4)
    places = static.items.data_ptr(), static.row_items.data_ptr()
    static.copy_(plan_decode([[(0, 65)], [(70, 80)]], split_tokens=64, num_items=4))
    assert spans_per_row(static) == [[(0, 65)], [(70, 80)]]
    assert places == (static.items.data_ptr(), static.row_items.data_ptr())
    assert static.to(torch.device("cpu")) == DecodeWork(
        items=static.items, row_items=static.row_items
    )


@pytest.mark.parametrize(
    ("num_tokens", "num_kv_heads", "num_programs", "split_tokens"),
    [
        (12_288, 4, 396, 128),  # 12,288 / 99 = 124.1
        (160_000, 4, 396, 1664),  # 160,000 / 99 = 1,616.2, in whole blocks of 64
        (525_000, 4, 256, 8256),  # 525,000 / 64 = 8,203.1
        (5, 2, 396, 128),
        (1000, 512, 100, 1024),  # fewer programs than heads: whole rows
    ],
)
def test_split(num_tokens: int, num_kv_heads: int, num_programs: int, split_tokens: int):
    assert choose_split_tokens(num_tokens, num_kv_heads, num_programs) == split_tokens


def test_a_card_runs_three_programs_a_processor_or_two(monkeypatch: pytest.MonkeyPatch):
    assert programs_at_once(torch.device("cpu")) == 1
    for processors, shared_bytes, expected in (
        (132, 233_472, 396),  # H200
        (108, 167_936, 324),  # A100
        (128, 102_400, 256),  # RTX 4090
        (20, 32_768, 20),
    ):
        card = SimpleNamespace(
            multi_processor_count=processors, shared_memory_per_multiprocessor=shared_bytes
        )
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device, card=card: card)
        assert programs_at_once(torch.device("cuda")) == expected
