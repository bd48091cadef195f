"""Who attends to what in a packed sequence: every example, and every tail, as if it were alone."""

from dataclasses import replace

import pytest
import torch
from seeded_models import TEXT, hidden_rows, model_of, relative_error, run_chunked

from llava_video.train.packing import Share, packed_keys, padded_shares, seen_by, shares_of

CPU = torch.device("cpu")


def run_packed(
    hidden: torch.Tensor, shares: list[Share], position_scale: float = 1.0
) -> torch.Tensor:
    keys = packed_keys(shares, TEXT, device=CPU, position_scale=position_scale)
    with torch.no_grad():
        return model_of(TEXT).run(hidden.clone(), keys, None)


def alone(hidden: torch.Tensor, position_scale: float = 1.0) -> torch.Tensor:
    """Run rows as inference does."""
    return run_chunked(model_of(TEXT), hidden, [len(hidden)], position_scale=position_scale)


@pytest.mark.parametrize("position_scale", [1.0, 2.5])
def test_packed_examples_do_not_see_one_another(position_scale: float):
    hidden, lengths = hidden_rows(12), [4, 1, 7]
    packed = run_packed(hidden, list(shares_of(lengths)), position_scale)
    expected = [alone(part, position_scale) for part in torch.split(hidden, lengths)]
    assert relative_error(packed, torch.cat(expected)) < 1e-5
    # As one sequence they would, and the comparison would notice.
    assert relative_error(alone(hidden, position_scale), torch.cat(expected)) > 1e-2


def test_tails_see_the_beginning_and_themselves():
    hidden = hidden_rows(13)
    # Two rows of another example, then five of a beginning and tails of 1, 3 and 2 rows.
    shares = [*shares_of([2]), Share(2, 13, tails=(7, 8, 11))]
    packed = run_packed(hidden, shares)
    beginning = hidden[2:7]
    for start, stop in ((7, 8), (8, 11), (11, 13)):
        whole = alone(torch.cat([beginning, hidden[start:stop]]))
        assert relative_error(packed[2:7], whole[:5]) < 1e-5
        assert relative_error(packed[start:stop], whole[5:]) < 1e-5
    # With positions that run on, or with the tails before it in sight, the last tail is another.
    assert relative_error(packed[11:13], alone(hidden[2:])[-2:]) > 1e-3


def test_what_a_row_sees_by_hand():
    share = Share(2, 13, tails=(7, 8, 11))
    rows = torch.tensor([2, 5, 7, 9, 12])
    seen = [(row.nonzero()[:, 0] + share.start).tolist() for row in seen_by(share, rows)]
    beginning = [2, 3, 4, 5, 6]
    assert seen == [[2], [2, 3, 4, 5], [*beginning, 7], [*beginning, 8, 9], [*beginning, 11, 12]]
    (whole,) = shares_of([4])
    assert seen_by(whole, torch.tensor([1])).tolist() == [[True, True, False, False]]


def test_positions_by_hand():
    assert Share(0, 3).positions().tolist() == [0, 1, 2]
    assert Share(4, 10, tails=(6, 7, 9)).positions().tolist() == [0, 1, 2, 2, 3, 2]
    assert Share(4, 10, tails=(6, 7, 9)).first_rows == (4, 6, 7, 9)


@pytest.mark.parametrize("bounds", [(3, 3, ()), (0, 4, (0,)), (0, 4, (2, 2)), (0, 4, (4,))])
def test_shares_out_of_order_are_refused(bounds: tuple[int, int, tuple[int, ...]]):
    with pytest.raises(ValueError, match="ascending"):
        Share(*bounds)


def test_shares_with_a_gap_are_refused():
    with pytest.raises(ValueError, match="end to end"):
        packed_keys([Share(0, 2), Share(3, 4)], TEXT, device=CPU)


def test_side_by_side_is_one_by_one():
    # Two rows without tails, eleven with three tails, five with one: no two alike.
    shares = [Share(0, 2), Share(2, 13, tails=(7, 8, 11)), Share(13, 18, tails=(15,))]
    generator = torch.Generator().manual_seed(3)
    q = torch.randn(18, 4, 8, generator=generator)
    k, v = (torch.randn(18, 2, 8, generator=generator) for _ in range(2))
    keys = packed_keys(shares, TEXT, device=CPU)
    still = replace(keys, cos=torch.ones(18, 1, 4), sin=torch.zeros(18, 1, 4))
    wanted = still.attend(q, k, v, None, 0, "sdpa")
    assert relative_error(padded_shares(shares).attend(q, k, v), wanted) < 1e-6
    inputs = [x.requires_grad_() for x in (q, k, v)]
    weight = torch.randn(wanted.shape, generator=generator)
    ways = (still.attend(*inputs, None, 0, "sdpa"), padded_shares(shares).attend(*inputs))
    one, other = (torch.autograd.grad((out * weight).sum(), inputs) for out in ways)
    for mine, theirs in zip(one, other, strict=True):
        assert relative_error(mine, theirs) < 1e-6
    # Tails that saw one another would be told from these.
    joined = [shares[0], Share(2, 13, tails=(7,)), shares[2]]
    assert relative_error(padded_shares(joined).attend(q, k, v), wanted) > 1e-2
