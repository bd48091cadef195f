"""Who attends to what in a packed sequence: every example, and every tail, as if it were alone."""

import pytest
import torch
from seeded_models import TEXT, hidden_rows, model_of, relative_error, run_chunked

from llava_video.train.packing import Share, packed_keys, shares_of

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


def test_positions_by_hand():
    assert list(Share(0, 3).positions()) == [0, 1, 2]
    assert list(Share(4, 10, tails=(6, 7, 9)).positions()) == [0, 1, 2, 2, 3, 2]
    assert Share(4, 10, tails=(6, 7, 9)).first_rows == (4, 6, 7, 9)


@pytest.mark.parametrize("bounds", [(3, 3, ()), (0, 4, (0,)), (0, 4, (2, 2)), (0, 4, (4,))])
def test_shares_out_of_order_are_refused(bounds: tuple[int, int, tuple[int, ...]]):
    with pytest.raises(ValueError, match="ascending"):
        Share(*bounds)


def test_shares_with_a_gap_are_refused():
    with pytest.raises(ValueError, match="end to end"):
        packed_keys([Share(0, 2), Share(3, 4)], TEXT, device=CPU)
