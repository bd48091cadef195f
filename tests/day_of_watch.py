"""Watches a camera for hours on a virtual clock, with a model that takes the same time always.

A script, in a process of its own, since it measures memory: FOLDER HOURS. Prints one JSON object:
the process's memory by hour, what each window cost in CPU time of the model's thread, and the sizes
of all files.
"""

import io
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
from watch_footage import FakeStreams

from llava_video.monitor import watch as module
from llava_video.monitor.feed import WindowJob
from llava_video.monitor.judge import Judge, Judged
from llava_video.monitor.loop_settings import LoopSettings
from llava_video.monitor.questions import WindowAnswers, WindowFrames
from llava_video.monitor.rules import Observation, Rule
from llava_video.monitor.settings import WatchSettings, rules_of
from llava_video.monitor.watch import Asker, run_watch
from llava_video.video.stream_events import StreamFrame

START_S = 1_750_000_000.0
HOUR_S, EVENT_S = 3600, 40
NOISE = np.random.default_rng(0).integers(90, 94, (64, 48, 64, 3), dtype=np.uint8)
# Room for a day's costs from the start: lists that grow would be measured as the watch's memory.
ROOM = 12_000


class Costs:
    """CPU seconds, one by one, in memory that is there from the start."""

    def __init__(self) -> None:
        self._seconds, self._num = np.full(ROOM, -1.0), 0

    def append(self, seconds: float) -> None:
        self._seconds[self._num] = seconds
        self._num += 1

    def found(self) -> list[float]:
        return self._seconds[: self._num].tolist()


MODEL_S, WINDOW_S = Costs(), Costs()
MATRIX = np.random.default_rng(1).random((160, 160))


def rss_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmRSS")


def ask(window: WindowFrames, rules: Sequence[Rule]) -> WindowAnswers:
    """Work as long for every window, then say whether the last frame is bright."""
    begun_s = time.thread_time()
    product = MATRIX
    for _ in range(4):
        product = product @ MATRIX / 80
    MODEL_S.append(time.thread_time() - begun_s)
    value = "yes" if window.frames[-1].mean() > 150 else "no"
    seen = {
        rule.name: Observation(
            start_s=window.start_s, at_s=window.end_s, value=value, confidence=0.9
        )
        for rule in rules
    }
    return WindowAnswers(observations=seen, num_asked=1, reused_tokens=0, seconds={})


class Timed(Judge):
    """Notes what each window costs, in CPU time of its thread."""

    def judge(self, job: WindowJob) -> Judged:
        begun_s = time.thread_time()
        judged = super().judge(job)
        WINDOW_S.append(time.thread_time() - begun_s)
        return judged


class Nowhere(io.StringIO):
    """A terminal that nobody reads."""

    def write(self, text: str) -> int:
        return len(text)


class Camera:
    """Noise, and something bright at the end of every hour; notes memory and files by the hour."""

    def __init__(self, folder: Path, hours: int) -> None:
        self._folder, self._hours = folder, hours
        self.now_s = START_S
        self.rss: list[int] = []
        self.files: list[int] = []

    def frames(self) -> Iterator[StreamFrame]:
        for second in range(self._hours * HOUR_S):
            self.now_s = START_S + second
            picture = NOISE[second * 31 % 64]
            if second % HOUR_S >= HOUR_S - EVENT_S:
                picture = picture + np.uint8(100)
            if second % HOUR_S == HOUR_S - 1:
                self.rss.append(rss_bytes())
                self.files.append(sum(self.sizes().values()))
            yield StreamFrame(idx=second, picture=picture, pts_s=float(second), wall_s=self.now_s)

    def sizes(self) -> dict[str, int]:
        return {
            str(path.relative_to(self._folder)): path.stat().st_size
            for path in self._folder.rglob("*")
            if path.is_file()
        }


def settings() -> WatchSettings:
    return rules_of(
        {
            "cameras": [{"name": "gate", "address": "gate", "reuse": False, "step_s": 8}],
            "rules": [
                {"name": f"bright {number}", "question": "Is it bright?", "cooldown_s": 0,
                 "tell_end": True} for number in range(2)
            ],
            "sinks": [{"name": "screen", "kind": "terminal"}],
            "retention": {"days": 0.05, "most_bytes": 2**20},
        }
    )  # fmt: skip


def spread(costs: list[float]) -> tuple[float, float]:
    """Return median and 99th percentile, the first hour left out."""
    warm = sorted(costs[len(costs) // 24 :])
    return warm[len(warm) // 2], warm[len(warm) * 99 // 100]


def main(folder: Path, hours: int) -> dict[str, object]:
    """Watch, and say what it cost."""
    camera = Camera(folder, hours)
    begun_s = time.monotonic()
    with mock.patch.object(module, "Judge", Timed):
        summary = run_watch(
            settings(), Asker(ask=ask, describe=lambda window: ("It is bright.", ())), folder,
            environ={}, pace="fast", terminal=Nowhere(), clock=lambda: camera.now_s,
            loop=LoopSettings(trace_bytes=2**18, trace_files=3, tend_every_s=0.25),
            open_streams=lambda _: FakeStreams({"gate": camera.frames()}),
        )  # fmt: skip
    return {
        "seconds": time.monotonic() - begun_s,
        "windows": summary.windows,
        "alerts": summary.alerts,
        "waiting": summary.waiting,
        "rss_bytes": camera.rss,
        "file_bytes": camera.files,
        "files": camera.sizes(),
        "window_s": spread(WINDOW_S.found()),
        "model_s": spread(MODEL_S.found()),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
