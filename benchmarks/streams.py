"""How much of a core does a camera take, from its bytes to a gated picture? Bound by decoding.

Eight recordings of 720p at 25 frames/s (H.264) stand for cameras: each is read at its own speed by
a stream of its own, one picture a second is taken, gated and put into windows. Told: the share of a
core that a camera's process takes, what the reader takes for all of them, pictures dropped, and how
late the latest one was; then the gate alone. Good: eight cameras within one core, none dropped, a
gate within 20 ms of 1080p.

    python benchmarks/streams.py [--append] [--check]
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from harness import measure, parser_of, report

from llava_video.monitor.gate import ChangeGate, block_differences
from llava_video.monitor.scene_settings import WindowSettings
from llava_video.monitor.windows import RollingWindows
from llava_video.video.settings import StreamSettings
from llava_video.video.stream import StreamGroup
from llava_video.video.stream_events import StreamFrame
from llava_video.world.bars import paint_index
from llava_video.world.clip import write_clip

NUM_CAMERAS, SECONDS = 8, 30
CHECK_CAMERAS, CHECK_SECONDS = 2, 3
RATE_HZ, HEIGHT_PX, WIDTH_PX = 25, 720, 1280


def main(arguments: list[str] | None = None) -> int:
    """Measure and say what is not as it should be; return the exit status."""
    options = parser_of(__doc__).parse_args(arguments)
    num_cameras = CHECK_CAMERAS if options.check else NUM_CAMERAS
    seconds = CHECK_SECONDS if options.check else SECONDS
    with tempfile.TemporaryDirectory() as folder:
        row = measure_cameras(Path(folder), num_cameras, seconds)
    row["gate_1080p_s"] = measure_gate(1 if options.check else 20)
    for name, value in row.items():
        print(f"{name:24} {value:,.4f}" if isinstance(value, float) else f"{name:24} {value:,}")
    faults = faults_of(row)
    for fault in faults:
        print(fault)
    report("streams", row | {"faults": faults}, append=options.append)
    return 1 if faults else 0


def measure_cameras(folder: Path, num_cameras: int, seconds: int) -> dict[str, Any]:
    """Return what so many cameras cost and lost."""
    path = folder / "camera.mp4"
    write_clip(path, moving(seconds), frame_rate_hz=RATE_HZ, codec_options={"preset": "ultrafast"})
    before = os.times()
    begun_s = time.perf_counter()
    named = {f"camera {k}": (path, StreamSettings(fps=1.0)) for k in range(num_cameras)}
    windows = {name: RollingWindows(WindowSettings()) for name in named}
    gates = {name: ChangeGate() for name in named}
    late_s, num_frames = [0.0], 0
    with StreamGroup(named) as group:
        while (event := group.next()) is not None:
            name, found = event
            if isinstance(found, StreamFrame):
                num_frames += 1
                late_s.append(time.time() - found.wall_s)
                gates[name].look(found.picture)
                windows[name].add(found)
        statuses = [stream.status() for stream in group.streams.values()]
    took_s, after = time.perf_counter() - begun_s, os.times()
    reading_s = after.children_user + after.children_system
    reading_s -= before.children_user + before.children_system
    return {
        "num_cameras": num_cameras,
        "stream_s": float(seconds),
        "took_s": took_s,
        "camera_cores": reading_s / num_cameras / seconds,
        "reader_cores": (after.user + after.system - before.user - before.system) / took_s,
        "decoded": sum(status.counts.decoded for status in statuses),
        "taken": sum(status.counts.taken for status in statuses),
        "delivered": num_frames,
        "dropped": sum(status.counts.dropped for status in statuses),
        "median_late_s": statistics.median(late_s),
        "most_late_s": max(late_s),
    }


def measure_gate(repeats: int) -> float:
    """Return the seconds that two pictures of 1080p take, which differ everywhere."""
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 256, (2, 1080, 1920, 3), dtype=np.uint8)
    timing = measure(lambda: block_differences(one, other, 16), repeats=repeats, budget_s=0.0)
    return statistics.median(timing.seconds)


def moving(seconds: int) -> Any:
    """Yield pictures of noise over which bars go on counting."""
    noise = np.random.default_rng(0).integers(0, 40, (HEIGHT_PX, WIDTH_PX, 3), dtype=np.uint8)
    for idx in range(seconds * RATE_HZ):
        picture = np.roll(noise, 2 * idx, axis=1)
        picture[200:400, 300:620] = paint_index(idx, 200, 320)
        yield picture


def faults_of(row: dict[str, Any]) -> list[str]:
    """Say what is not as it should be."""
    limits = (
        ("camera_cores", row["camera_cores"] <= 1 / 8),
        ("dropped", row["dropped"] == 0),
        ("delivered", row["delivered"] == row["taken"]),
        ("gate_1080p_s", row["gate_1080p_s"] <= 0.02),
    )
    return [f"{name} = {row[name]:,}" for name, is_good in limits if not is_good]


if __name__ == "__main__":
    sys.exit(main())
