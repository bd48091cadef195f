import pytest

from llava_video.errors import ConfigError
from llava_video.video.settings import FetchSettings


@pytest.mark.parametrize(
    "values",
    [{"max_bytes": 0}, {"timeout_s": 0}, {"timeout_s": float("nan")}, {"max_redirects": -1}],
)
def test_ranges(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        FetchSettings(**values)
