"""Settings of an evaluation are checked like all others."""

import pytest

from llava_video.errors import ConfigError
from llava_video.eval.settings import EvalSettings


@pytest.mark.parametrize(
    "wrong", [{"limit": 0}, {"level": 0.0}, {"level": 1.0}, {"num_bins": 0}, {"noise": "yes"}]
)
def test_values_out_of_range_are_refused(wrong) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        EvalSettings(**wrong)
