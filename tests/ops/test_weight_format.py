"""Codes are the nearest there are, errors are what a step says, and the bytes are counted."""

from collections.abc import Callable

import pytest
import torch
from weight_mutants import mutants

from llava_video.ops import weight_format as module
from llava_video.ops.weight_format import (
    StoredWeight,
    empty_weight,
    group_inputs,
    quantise_weight,
)

FORMATS = ["int8", "int4"]


def gaussian(num_outputs: int = 96, num_inputs: int = 1024, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_outputs, num_inputs, generator=generator) * 0.02


def with_outlier_columns() -> torch.Tensor:
    """Four inputs whose weights are twenty times the others', as trained models have them."""
    weight = gaussian(seed=1)
    weight[:, [3, 200, 201, 900]] *= 20
    return weight


def lopsided() -> torch.Tensor:
    """Uniform, mostly positive, every row and group of another size."""
    generator = torch.Generator().manual_seed(2)
    sizes = torch.rand(96, 8, 1, generator=generator) + 0.1
    return ((torch.rand(96, 8, 128, generator=generator) - 0.3) * sizes).view(96, 1024)


def relative_error(weight: torch.Tensor, stored: StoredWeight) -> float:
    return ((stored.plain(torch.float64) - weight).norm() / weight.double().norm()).item()


def expected_error(weight: torch.Tensor, weight_format: str) -> float:
    """sqrt(mean s^2 / 12) / rms(w): errors are uniform within half a step s on either side."""
    if weight_format == "int8":
        steps = weight.abs().amax(dim=1) / 127
    else:
        groups = weight.view(weight.shape[0], -1, 128)
        steps = (groups.amax(dim=-1) - groups.amin(dim=-1)) / 15
    rms = weight.double().pow(2).mean().sqrt()
    return ((steps.double().pow(2).mean() / 12).sqrt() / rms).item()


def test_int8_by_hand():
    """The largest of a row becomes 127; with a step of exactly 1 codes are the rounded numbers."""
    weight = torch.tensor([[127.0, -63.6, 1.4, -0.2], [0.5, -0.25, 0.0, 0.125]])
    stored = quantise_weight(weight, "int8")
    assert stored.codes.tolist() == [[127, -64, 1, 0], [127, -64, 0, 32]]
    assert stored.scales.tolist() == [1.0, torch.tensor(0.5 / 127).bfloat16().item()]
    assert stored.plain(torch.float32)[0].tolist() == [127, -64, 1, 0]


def test_int4_by_hand():
    """From 0 to 15 in steps of 1: code 8 is 8; input 0 stands below input 2, 1 below 3."""
    stored = quantise_weight(torch.tensor([[0.0, 15.0, 7.4, 8.0]]), "int4")
    assert stored.codes.tolist() == [[0 | 7 << 4, 15 | 8 << 4]]
    assert stored.scales.tolist() == [[[1.0, 8.0]]]
    assert stored.plain(torch.float32).tolist() == [[0.0, 15.0, 7.0, 8.0]]


def test_a_group_is_64_neighbouring_bytes():
    weight = torch.zeros(1, 256)
    weight[0, 130], weight[0, 130 + 64] = -1.0, 2.0  # both in byte 2 of the second group
    stored = quantise_weight(weight, "int4")
    assert stored.group_inputs == 128
    assert stored.scales.shape == (2, 1, 2)
    assert stored.codes[0, 64 + 2].item() == 0 | 15 << 4
    assert set(stored.codes[0, :64].tolist()) == {8 | 8 << 4}


@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize("make", [gaussian, lopsided, with_outlier_columns])
def test_the_error_is_what_the_step_says(make: Callable[[], torch.Tensor], weight_format):
    weight = make()
    stored = quantise_weight(weight, weight_format)
    expected = expected_error(weight, weight_format)
    assert relative_error(weight, stored) == pytest.approx(expected, rel=0.03)
    for name, mutant in mutants(stored).items():
        assert relative_error(weight, mutant) > 1.05 * expected, name


@pytest.mark.parametrize(("weight_format", "most"), [("int8", 0.01), ("int4", 0.12)])
def test_gaussian_rows_of_real_width(weight_format, most: float):
    weight = gaussian(64, 3584)
    assert relative_error(weight, quantise_weight(weight, weight_format)) <= most


def test_outliers_harm_their_group_only():
    """int8 has one step per row, so outliers cost every input; int4 groups without one do not."""
    weight = with_outlier_columns()
    stored = quantise_weight(weight, "int4").plain(torch.float32)
    errors = (stored - weight).view(96, 8, 128).norm(dim=(0, 2))
    clean = errors[[2, 3, 4, 5, 6]]  # columns 3, 200, 201 and 900 are in groups 0, 1 and 7
    assert errors[[0, 1, 7]].min() > 2 * clean.max()


@pytest.mark.parametrize("weight_format", FORMATS)
def test_every_weight_is_stored_as_the_nearest_there_is(weight_format):
    """Half a step, and what bfloat16 takes from the ends of the range: 2^-8 of 8 steps or of s."""
    weight = gaussian(31, 384)
    stored = quantise_weight(weight, weight_format)
    steps = stored.scales.float()
    if weight_format == "int4":
        steps = steps[..., 0].t().repeat_interleave(128, dim=1)
    else:
        steps = steps[:, None] * torch.ones(384)
    assert ((stored.plain(torch.float32) - weight).abs() <= (0.5 + 0.05) * steps).all()


@pytest.mark.parametrize(
    ("num_inputs", "group"), [(3584, 128), (896, 128), (64, 64), (96, 32), (100, 100), (128, 128)]
)
def test_group_sizes(num_inputs: int, group: int):
    assert group_inputs(num_inputs) == group
    stored = quantise_weight(gaussian(5, num_inputs), "int4")
    assert (stored.group_inputs, stored.num_inputs, stored.num_outputs) == (group, num_inputs, 5)
    assert stored.scales.shape == (num_inputs // group, 5, 2)


@pytest.mark.parametrize(
    ("weight_format", "num_bytes"),
    [("int8", 3584 * 3584 + 2 * 3584), ("int4", 3584 * 3584 // 2 + 4 * 3584 * 28)],
)
def test_bytes(weight_format, num_bytes: int):
    assert empty_weight(3584, 3584, weight_format, "meta").num_bytes == num_bytes


@pytest.mark.parametrize("weight_format", FORMATS)
def test_a_part_is_those_outputs(weight_format):
    weight = gaussian(40, 256)
    part = quantise_weight(weight, weight_format).part(7, 30)
    alone = quantise_weight(weight[7:30], weight_format)
    assert torch.equal(part.plain(torch.float32), alone.plain(torch.float32))
    assert part.codes.untyped_storage().nbytes() == 40 * part.codes.shape[1]  # a view


@pytest.mark.parametrize("weight_format", FORMATS)
def test_pieces_give_what_the_whole_gives(weight_format, monkeypatch: pytest.MonkeyPatch):
    weight = gaussian(37, 128)
    whole = quantise_weight(weight, weight_format)
    monkeypatch.setattr(module, "_CPU_PIECE_NUMBERS", 128 * 5)
    pieces = quantise_weight(weight, weight_format)
    assert torch.equal(whole.codes, pieces.codes)
    assert torch.equal(whole.scales, pieces.scales)


@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_and_gaps(weight_format, dtype: torch.dtype):
    weight = gaussian(128, 64).to(dtype).t()
    assert not weight.is_contiguous()
    stored = quantise_weight(weight, weight_format)
    again = quantise_weight(weight.contiguous().float(), weight_format)
    assert torch.equal(stored.codes, again.codes)
    assert stored.plain(dtype).dtype is dtype


@pytest.mark.parametrize("weight_format", FORMATS)
def test_rows_of_one_number_are_kept(weight_format):
    weight = torch.zeros(3, 128)
    weight[1], weight[2] = 1.5, -3.0
    stored = quantise_weight(weight, weight_format).plain(torch.float32)
    assert torch.allclose(stored, weight, rtol=2**-8, atol=0)


@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_not_finite_is_refused(weight_format, wrong: float):
    weight = gaussian(4, 128)
    weight[2, 77] = wrong
    with pytest.raises(ValueError, match="4 x 128 weights not all are finite"):
        quantise_weight(weight, weight_format)


def test_int4_pairs_inputs():
    with pytest.raises(ValueError, match="there are 33"):
        quantise_weight(torch.ones(2, 33), "int4")
