"""Facts of a watch → Prometheus' text format, written by `prometheus_client`."""

from collections.abc import Iterator, Mapping
from typing import Any

from llava_video.backends import require

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "llava_video_watch_"

# name → (help, whether it only grows, fact of a camera)
_OF_CAMERA = {
    "frames": ("Frames looked at.", True, "frames"),
    "questions": ("Questions asked of the model.", True, "questions"),
    "alerts": ("Alerts raised.", True, "alerts"),
    "model_seconds": ("Seconds the model took.", True, "model_s"),
    "queue_depth": ("Windows that wait for the model.", False, "depth"),
    "lag_seconds": ("How late the last frame was.", False, "lag_s"),
}


def metrics_text(facts: Mapping[str, Any]) -> bytes:
    """Write facts of `Board.facts` as metrics.

    Raises:
        BackendMissingError: prometheus_client is not installed.
    """
    require("prometheus_client")
    from prometheus_client import CollectorRegistry, generate_latest

    class Facts:
        def collect(self) -> Iterator[Any]:
            yield from _of_cameras(facts["cameras"])
            yield from _of_watch(facts)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Facts())
    return bytes(generate_latest(registry))


def _of_cameras(cameras: list[dict[str, Any]]) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    for name, (words, grows, fact) in _OF_CAMERA.items():
        kind = CounterMetricFamily if grows else GaugeMetricFamily
        metric = kind(_PREFIX + name, words, labels=["camera"])
        for one in cameras:
            metric.add_metric([one["name"]], float(one[fact]))
        yield metric
    windows = CounterMetricFamily(
        _PREFIX + "windows", "What became of windows.", labels=["camera", "kind"]
    )
    dropped = CounterMetricFamily(
        _PREFIX + "frames_dropped", "Frames nobody took in time.", labels=["camera"]
    )
    up = GaugeMetricFamily(_PREFIX + "camera_up", "Whether it is live.", labels=["camera"])
    for one in cameras:
        for kind_name, number in one["windows"].items():
            windows.add_metric([one["name"], kind_name], float(number))
        dropped.add_metric([one["name"]], float(one["stream"].get("dropped", 0)))
        up.add_metric([one["name"]], float(one["state"] == "live"))
    yield from (windows, dropped, up)


def _of_watch(facts: Mapping[str, Any]) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    waiting = GaugeMetricFamily(
        _PREFIX + "sink_waiting", "Messages that a sink has not taken.", labels=["sink"]
    )
    delivered = CounterMetricFamily(
        _PREFIX + "sink_delivered", "Messages it took since the start.", labels=["sink"]
    )
    for one in facts.get("sinks", ()):
        waiting.add_metric([one["sink"]], float(one["waiting"]))
        delivered.add_metric([one["sink"]], float(one["delivered"]))
    yield from (waiting, delivered)
    for name, words in (
        ("evidence_bytes", "What kept pictures and clips take."),
        ("held", "Messages that no disk had room for yet."),
        ("updates", "Alerts that wait for their description."),
        ("trace_lost", "Lines of the trace that could not be written."),
        ("up_s", "Seconds since the start."),
    ):
        yield GaugeMetricFamily(_PREFIX + name, words, value=float(facts.get(name, 0)))
