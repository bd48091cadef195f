import pytest

from llava_video.errors import ConfigError
from llava_video.video.settings import FetchSettings, SandboxSettings


@pytest.mark.parametrize(
    "values",
    [{"max_bytes": 0}, {"timeout_s": 0}, {"timeout_s": float("nan")}, {"max_redirects": -1}],
)
def test_ranges(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        FetchSettings(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"stall_timeout_s": 0},
        {"video_timeout_s": float("nan")},
        {"max_memory_bytes": 10**6},  # less than a decoder needs to start
        {"max_pixels": 0},
        {"max_walked_frames": 0},
        {"max_read_bytes": 0},
        {"videos_per_worker": 0},
        {"num_workers": 0},
        {"wait_timeout_s": -1},
    ],
)
def test_ranges_of_the_sandbox(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        SandboxSettings(**values)
