"""Metrics are what Prometheus' own parser reads, whatever names hold."""

import pytest

from llava_video import backends
from llava_video.errors import BackendMissingError
from llava_video.monitor.meters import metrics_text

CAMERA = {
    "name": 'yard "1"\n', "state": "live", "frames": 5, "questions": 3, "alerts": 1, "model_s": 2.5,
    "depth": 2, "lag_s": 0.5, "windows": {"asked": 3, "dropped": 1}, "stream": {"dropped": 4},
}  # fmt: skip
FACTS = {
    "cameras": [CAMERA], "up_s": 9.0, "evidence_bytes": 100, "held": 0, "updates": 1,
    "sinks": [{"sink": "log", "waiting": 7, "delivered": 2}],
}  # fmt: skip


def test_every_fact_is_a_sample() -> None:
    parser = pytest.importorskip("prometheus_client.parser", reason="prometheus_client is absent")
    families = parser.text_string_to_metric_families(metrics_text(FACTS).decode())
    samples = {
        (one.name.removeprefix("llava_video_watch_"), *sorted(one.labels.values())): one.value
        for family in families
        for one in family.samples
    }
    name = CAMERA["name"]
    assert samples["windows_total", "asked", name] == 3
    assert samples["windows_total", "dropped", name] == 1
    assert samples["frames_dropped_total", name] == 4
    assert samples["model_seconds_total", name] == 2.5
    assert samples["camera_up", name] == 1
    assert samples["queue_depth", name] == 2
    assert samples["sink_waiting", "log"] == 7
    assert samples["sink_delivered_total", "log"] == 2
    assert (samples["evidence_bytes",], samples["trace_lost",], samples["up_s",]) == (100, 0, 9)


def test_without_the_package_it_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(backends, "version", lambda name: None)
    monkeypatch.setattr(backends, "_checked", {})
    with pytest.raises(BackendMissingError) as caught:
        metrics_text(FACTS)
    assert "llava_video[monitor]" in caught.value.hint
