"""Rows keep their number and order, whatever the sizes of the pieces."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava_video.errors import ConfigError
from llava_video.ops.splice import exactly, rechunk


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 11))
def test_rechunk_keeps_rows_and_order(lengths: list[int], chunk_rows: int):
    rows = torch.arange(sum(lengths))[:, None]
    chunks = list(rechunk(rows.split(lengths) if lengths else [], chunk_rows))
    assert all(len(chunk) == chunk_rows for chunk in chunks[:-1])
    assert all(0 < len(chunk) <= chunk_rows for chunk in chunks)
    if chunks:
        assert torch.equal(torch.cat(chunks), rows)
    else:
        assert sum(lengths) == 0


def test_rechunk_pulls_no_more_than_it_needs():
    pulled = []

    def pieces():
        for i in range(10):
            pulled.append(i)
            yield torch.full((2,), i)

    chunks = rechunk(pieces(), 4)
    assert next(chunks).tolist() == [0, 0, 1, 1]
    assert pulled == [0, 1]


def test_rechunk_does_not_copy_a_piece_that_fits():
    piece = torch.arange(6)
    first, second = rechunk([piece], 3)
    assert (first.data_ptr(), second.data_ptr()) == (piece.data_ptr(), piece[3:].data_ptr())


def test_rechunk_refuses_no_rows():
    with pytest.raises(ConfigError, match="at least 1"):
        next(rechunk([torch.zeros(1)], 0))


@given(st.lists(st.integers(0, 5), max_size=8), st.integers(0, 20))
def test_exactly_lets_the_planned_number_through_and_no_other(lengths: list[int], planned: int):
    pieces = [torch.zeros(n, 2) for n in lengths]
    if sum(lengths) == planned:
        assert [len(p) for p in exactly(pieces, planned)] == lengths
    else:
        with pytest.raises(ConfigError, match=f"{planned} tokens were planned"):
            list(exactly(pieces, planned, "tokens"))


def test_exactly_stops_at_the_first_row_too_many():
    pieces = exactly(iter([torch.zeros(3), torch.zeros(1), torch.zeros(9)]), 3)
    assert len(next(pieces)) == 3
    with pytest.raises(ConfigError, match="at least 4 were made"):
        next(pieces)
