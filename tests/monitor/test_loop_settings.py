"""The loop's settings have ranges."""

import pytest

from llava_video.errors import ConfigError
from llava_video.monitor.loop_settings import LoopSettings


@pytest.mark.parametrize("name", ["queue_windows", "queue_updates", "evidence_frames"])
def test_nothing_below_one(name: str) -> None:
    assert getattr(LoopSettings(), name) >= 1
    with pytest.raises(ConfigError, match=name):
        LoopSettings(**{name: 0})


def test_a_trace_has_room_for_lines() -> None:
    with pytest.raises(ConfigError, match="trace_bytes"):
        LoopSettings(trace_bytes=100)


@pytest.mark.parametrize("name", ["tend_every_s", "stop_s"])
def test_patience_has_an_end(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} = inf.*finite"):
        LoopSettings(**{name: float("inf")})
