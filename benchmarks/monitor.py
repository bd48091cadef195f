"""What does a frame of a still camera cost with and without reuse, and do eight cameras keep up?

The demo model answers three yes-or-no questions about windows of 8 s, one every 4 s, of cameras
that show the small world at 1 frame/s. First a still camera in a sensor's noise, through gate,
windows, reuse and rules, once with everything reused (refreshed every 300 s) and once with
everything asked anew: compute bound, good is 8 times cheaper. Then eight cameras in real time on
which something always moves, so that hardly anything is reused: good is no window dropped.

    python benchmarks/monitor.py [--model demo] [--seconds 60] [--append] [--check]
"""

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from harness import parser_of, report

from llava_video.api import LlavaVideo, load
from llava_video.engine.settings import EngineSettings
from llava_video.errors import LlavaVideoError
from llava_video.monitor.rehearsal import rehearse
from llava_video.monitor.settings import WatchSettings, rules_of
from llava_video.monitor.watch import asker_of, run_watch
from llava_video.video.stream_events import Mark, StreamCounts, StreamFrame, StreamStatus
from llava_video.world.composer import compose
from llava_video.world.render import render_at
from llava_video.world.splits import split_settings

NUM_CAMERAS, CHECK_CAMERAS = 8, 2
STILL_FRAMES, ASKED_FRAMES, CHECK_FRAMES = 1200, 120, 24
QUESTIONS = ("Is there a red circle now?", "Is there a blue square now?", "Did anything change?")
AIM = 8.0


class Played:
    """Frames as what a rehearsal opens."""

    error: LlavaVideoError | None = None

    def __init__(self, frames: Iterator[StreamFrame]) -> None:
        self._frames = frames

    def next(self) -> StreamFrame | None:
        """Return the next frame."""
        return next(self._frames, None)

    def close(self) -> None:
        """Do nothing."""


class LiveCameras:
    """Cameras in real time, a frame a second each, spread over the second.

    Args:
        cameras: name -> frames.
        seconds: how long they run.
    """

    def __init__(self, cameras: Mapping[str, Iterator[StreamFrame]], seconds: int) -> None:
        self._cameras = dict(cameras)
        self._begun_s = time.monotonic()
        names, gap_s = list(cameras), 1 / len(cameras)
        self._due = [(k * gap_s, names[k % len(names)]) for k in range(seconds * len(names))]
        self.most_late_s = 0.0

    @property
    def is_over(self) -> bool:
        """Whether all frames were taken."""
        return not self._due

    def next(self, timeout_s: float | None = None) -> tuple[str, StreamFrame | Mark] | None:
        """Return the next frame when it is due."""
        if not self._due:
            return None
        due_s, name = self._due.pop(0)
        wait_s = self._begun_s + due_s - time.monotonic()
        self.most_late_s = max(self.most_late_s, -wait_s)
        time.sleep(max(0.0, wait_s))
        return name, next(self._cameras[name])

    def statuses(self) -> Mapping[str, StreamStatus]:
        """See `Streams`."""
        counts = StreamCounts()
        return {
            name: StreamStatus(name=name, state="live", counts=counts) for name in self._cameras
        }

    def errors(self) -> Mapping[str, LlavaVideoError]:
        """See `Streams`."""
        return {}

    def close(self) -> None:
        """Do nothing."""


def main(arguments: list[str] | None = None) -> int:
    """Measure and say what is not as it should be; return the exit status."""
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="demo", help="a checkpoint's folder or name")
    parser.add_argument("--seconds", type=int, default=60, help="of the eight cameras")
    asked = parser.parse_args(arguments)
    num_cameras = CHECK_CAMERAS if asked.check else NUM_CAMERAS
    seconds = min(asked.seconds, 9) if asked.check else asked.seconds
    with load(asked.model, engine=EngineSettings(kept_rows_bytes=2**28)) as model:
        reused_s = still_frame_s(model, CHECK_FRAMES if asked.check else STILL_FRAMES, reuse=True)
        row = {"model": asked.model} | live(model, num_cameras, seconds)
    with load(asked.model) as model:
        asked_s = still_frame_s(model, CHECK_FRAMES if asked.check else ASKED_FRAMES, reuse=False)
    row |= {"frame_reused_s": reused_s, "frame_asked_s": asked_s, "cheaper": asked_s / reused_s}
    for name, value in row.items():
        print(f"{name:24} {value:,.4f}" if isinstance(value, float) else f"{name:24} {value}")
    faults = faults_of(row)
    for fault in faults:
        print(fault)
    report("monitor", row | {"faults": faults}, append=asked.append)
    return 1 if faults else 0


def still_frame_s(model: LlavaVideo, num_frames: int, *, reuse: bool) -> float:
    """Return seconds per frame of a still camera, everything included but its decoding."""
    settings = settings_of(["gate"], reuse=reuse)
    asker = asker_of(model, settings)
    for count in (12, num_frames):  # the first, short one warms up
        frames = Played(still(count))
        begun_s = time.perf_counter()
        rehearse(settings, asker.ask, clock=time.perf_counter, events=lambda *_, f=frames: f)
        took_s = time.perf_counter() - begun_s
    return took_s / num_frames


def live(model: LlavaVideo, num_cameras: int, seconds: int) -> dict[str, Any]:
    """Return what cameras in real time cost and lost; something always moves on all of them."""
    names = [f"camera {k}" for k in range(num_cameras)]
    settings = settings_of(names, reuse=True)
    sources = {name: moving(seconds, 1000 * k) for k, name in enumerate(names)}
    cameras = LiveCameras(sources, seconds)
    with tempfile.TemporaryDirectory() as folder:
        summary = run_watch(
            settings, asker_of(model, settings), Path(folder) / "watch", environ={},
            open_streams=lambda _: cameras,
        )  # fmt: skip
    windows = summary.windows
    return {
        "cameras": num_cameras,
        "seconds": seconds,
        "windows": sum(windows.values()),
        "asked": windows.get("asked", 0),
        "dropped": windows.get("dropped", 0),
        "failed": windows.get("failed", 0),
        "most_late_s": cameras.most_late_s,
    }


def faults_of(row: Mapping[str, Any]) -> list[str]:
    """Say what is not as it should be."""
    limits = (
        ("cheaper", row["cheaper"] >= AIM),
        ("dropped", row["dropped"] == 0),
        ("failed", row["failed"] == 0),
    )
    return [f"{name} = {row[name]:,}" for name, is_good in limits if not is_good]


def settings_of(names: list[str], *, reuse: bool) -> WatchSettings:
    """Return cameras with the three questions."""
    cameras = [{"name": name, "address": name, "reuse": reuse} for name in names]
    rules = [{"name": text, "question": text, "hits": 2, "of": 3} for text in QUESTIONS]
    return rules_of({"cameras": cameras, "rules": rules, "guard": False})


def still(num_frames: int) -> Iterator[StreamFrame]:
    """Show one moment of the small world in noise of one level."""
    scene = compose(split_settings("monitor"), "monitor", 0, 0)
    picture = render_at(scene, [0])[0].astype(np.int16)
    dice = np.random.default_rng(0)
    grain = np.rint(dice.normal(0, 1, (32, *picture.shape))).astype(np.int16)
    for idx in range(num_frames):
        yield frame_of(idx, (picture + grain[idx * 7 % 32]).clip(0, 255).astype(np.uint8))


def moving(num_frames: int, number: int) -> Iterator[StreamFrame]:
    """Show scenes in which something always happens, one after another, from a number on."""
    pictures: list[npt.NDArray[np.uint8]] = []
    for idx in range(num_frames):
        while not pictures:
            scene = compose(split_settings("val"), "val", 0, number)
            number += 1
            if (scene.height_px, scene.width_px) == (60, 80):
                every = max(1, round(scene.rate_hz))
                pictures = list(render_at(scene, range(0, scene.num_frames, every)))
        yield frame_of(idx, pictures.pop(0))


def frame_of(idx: int, picture: npt.NDArray[np.uint8]) -> StreamFrame:
    """Return a picture as the frame of a second."""
    return StreamFrame(idx=idx, picture=picture, pts_s=float(idx), wall_s=1_750_000_000.0 + idx)


if __name__ == "__main__":
    sys.exit(main())
