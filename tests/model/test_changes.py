"""Each change of a tensor is its formula, and a plausible wrong one is told from it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from llava_video.model.changes import EMBEDDING, HEAD, Change, Difference, LastRows, LowRank
from llava_video.model.shards import read_header

CPU = torch.device("cpu")
WEIGHT = "language_model.layers.0.q_proj.weight"


def places(tmp_path: Path, **tensors: Tensor) -> dict:
    """Write tensors to a file; return where each of them is."""
    save_file(tensors, tmp_path / "x.safetensors")
    shard = read_header(tmp_path / "x.safetensors")
    return {name: (shard, name) for name in tensors}


def test_no_change_changes_nothing():
    tensor = torch.ones(2, 3)
    assert Change().apply(WEIGHT, tensor, CPU) is tensor
    assert Change().shape(WEIGHT, (2, 3)) == (2, 3)
    Change().close()


def test_low_rank_by_hand(tmp_path: Path):
    """A = [1 2], B = [[1], [10]], scale 3: W + 3 [[1 2], [10 20]]."""
    at = places(tmp_path, a=torch.tensor([[1.0, 2.0]]), b=torch.tensor([[1.0], [10.0]]))
    change = LowRank({WEIGHT: (at["a"], at["b"])}, 3.0)
    found = change.apply(WEIGHT, torch.tensor([[1.0, 0.0], [0.0, 1.0]]), CPU)
    assert found.tolist() == [[4.0, 6.0], [30.0, 61.0]]
    other = torch.ones(2)
    assert change.apply("language_model.norm.weight", other, CPU) is other
    assert change.shape(WEIGHT, (2, 2)) == (2, 2)
    change.close()


def test_low_rank_is_added_in_float32_and_rounded_once(tmp_path: Path):
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 16, generator=draw).bfloat16()
    down = torch.randn(4, 16, generator=draw).bfloat16()
    up = torch.randn(8, 4, generator=draw).bfloat16()
    at = places(tmp_path, a=down, b=up)
    found = LowRank({WEIGHT: (at["a"], at["b"])}, 2.0).apply(WEIGHT, weight, CPU).bfloat16()
    exact = (weight.double() + 2 * up.double() @ down.double()).bfloat16()
    assert torch.equal(found, exact)
    assert not torch.equal(weight + 2 * (up @ down), exact)  # rounded at every step


@pytest.mark.parametrize("num_base", [3, 4, 5])
def test_last_rows_take_the_place_of_the_bases(tmp_path: Path, num_base: int):
    """A vocabulary of 5 whose last 2 rows were trained: the base may have 3, 4 or 5 of them."""
    base = torch.arange(10.0).reshape(5, 2)[:num_base]
    rows = torch.tensor([[100.0, 101.0], [102.0, 103.0]])
    at = places(tmp_path, rows=rows)
    change = LastRows(at["rows"], num_rows=2, vocab_size=5)
    assert change.shape(EMBEDDING, (num_base, 2)) == change.shape(HEAD, (num_base, 2)) == (5, 2)
    assert change.shape(WEIGHT, (num_base, 2)) == (num_base, 2)
    expected = [[0, 1], [2, 3], [4, 5], [100, 101], [102, 103]]
    assert change.apply(EMBEDDING, base, CPU).tolist() == expected
    # Rows that the head lacks are the mean of its own, which are kept.
    mean = [num_base - 1.0, num_base]
    assert change.apply(HEAD, base, CPU).tolist() == base.tolist() + [mean] * (5 - num_base)
    assert change.apply(WEIGHT, base, CPU) is base
    change.close()


@pytest.mark.parametrize("num_base", [2, 6])
def test_rows_that_do_not_make_up_the_vocabulary_are_left_to_be_refused(
    tmp_path: Path, num_base: int
):
    at = places(tmp_path, rows=torch.zeros(2, 2))
    change = LastRows(at["rows"], num_rows=2, vocab_size=5)
    assert change.shape(EMBEDDING, (num_base, 2)) == (num_base, 2)


def test_a_difference_is_added_and_rounded_as_the_published_sum(tmp_path: Path):
    draw = torch.Generator().manual_seed(0)
    base = torch.randn(64, 8, generator=draw).half()
    delta = torch.randn(64, 8, generator=draw).half()
    at = places(tmp_path, base=base)
    before = delta.clone()
    found = Difference({WEIGHT: at["base"]}).apply(WEIGHT, delta, CPU)
    assert found.dtype == torch.float16
    assert torch.equal(found, base + delta)
    assert torch.equal(delta, before)  # a mapped file is not written to
    other = torch.ones(2)
    assert Difference({WEIGHT: at["base"]}).apply("projector.linear1.bias", other, CPU) is other


def test_further_rows_of_a_delta_are_whole_already(tmp_path: Path):
    at = places(tmp_path, base=torch.ones(2, 2))
    found = Difference({EMBEDDING: at["base"]}).apply(EMBEDDING, torch.full((3, 2), 5.0), CPU)
    assert found.tolist() == [[6, 6], [6, 6], [5, 5]]
