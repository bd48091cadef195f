"""Settings of windows, gate and reuse: ranges, and what contradicts itself."""

import pytest

from llava_video.errors import ConfigError
from llava_video.monitor.scene_settings import GateSettings, ReuseSettings, WindowSettings


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WindowSettings(length_s=0.0), "length_s"),
        (lambda: WindowSettings(step_s=-1.0), "step_s"),
        (lambda: GateSettings(threshold=256.0), "threshold"),
        (lambda: GateSettings(block_px=15), "block_px = 15.*even"),
        (lambda: ReuseSettings(max_age_s=0.0), "max_age_s"),
    ],
)
def test_what_cannot_be(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
