"""The stream's benchmark runs at toy size, and would notice a stream that grows."""

import json

import pytest
import stream_cache


@pytest.mark.parametrize("size", ["0.5b"])
def test_a_short_stream(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert stream_cache.main(["--check", "--size", size]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (row["question"], row["windows"]) == ("stream_cache", stream_cache.CHECK_WINDOWS)
    assert row["cache_growth_bytes"] == 0
    assert row["first_s"] > 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("last_to_first", 1.06), ("cache_growth_bytes", 1), ("rss_growth_bytes", 2**25)],
)
def test_what_grows_is_a_fault(name: str, value: float) -> None:
    good = {"last_to_first": 1.0, "cache_growth_bytes": 0, "rss_growth_bytes": 0}
    assert stream_cache.faults_of(good) == []
    assert stream_cache.faults_of(good | {name: value}) == [f"{name} = {value:,}"]
