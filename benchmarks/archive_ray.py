"""What does a Ray cluster cost an archive, and what do more machines give?

Two cases. One machine: clips of the small world described by the demo model, in the run's own
process and by one actor of a cluster of this machine alone, runs in turn. And a simulation of
machines whose decoding is what takes the time: a video keeps its node's one decoder for a set time,
which passes asleep, so that two nodes of this machine stand for two machines; what is measured is
whether the one process with the ledger keeps both at work. Times are between rows, from the first
round of videos to the last one: what a cluster and a model need to start is told apart. Good: at
most 5 % more time a video; two nodes at least 1.8 x one.

    python benchmarks/archive_ray.py [--clips 48] [--paced 120] [--repeats 2] [--append] [--check]
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from harness import parser_of, report
from seeing import seen

from llava_video.api import LlavaVideo
from llava_video.archive.hands import NamedModel
from llava_video.archive.runner import run_archive
from llava_video.archive.settings import ArchiveSettings
from llava_video.archive.shards import iter_rows
from llava_video.cores import num_cores
from llava_video.engine.request import Event, Request
from llava_video.model.packaged import demo_folder
from llava_video.model.spec import read_spec
from llava_video.options import Options
from llava_video.world.dataset import write_world

MOST_ADDED, LEAST_GAIN = 0.05, 1.8
_IN_FLIGHT = 4
_STORE_BYTES = 100 * 2**20
_CLIP_OPTIONS: Options = {"fps": 2.0, "max_frames": 24, "max_new_tokens": 128}
_PACED_OPTIONS: Options = {"num_frames": 1, "max_new_tokens": 1}


class Paced:
    """An engine that takes a set time for a video, one after another; an `Engine`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def run(self, requests: Iterable[Request]) -> Iterator[Event]:
        """Answer requests, each when its time has passed."""
        for request in requests:
            time.sleep(self._seconds)
            yield seen(request)


@dataclass(frozen=True)
class PacedModel:
    """Loads the paced engine, wherever it is wanted."""

    seconds: float

    def __call__(self) -> LlavaVideo:
        """Read what a model is; its weights stay where they are."""
        return LlavaVideo(read_spec(demo_folder()), Paced(self.seconds))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 where Ray costs too much or gives too little."""
    parser = parser_of(__doc__)
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--paced", type=int, default=120)
    parser.add_argument("--pace-s", type=float, default=0.25)
    parser.add_argument("--repeats", type=int, default=2)
    asked = parser.parse_args(arguments)
    if asked.check:
        asked.clips, asked.paced, asked.pace_s, asked.repeats = 6, 8, 0.05, 1
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Actors unpickle what stands in this file.
    folders = [str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, folders))
    with tempfile.TemporaryDirectory() as scratch:
        row = measured(Path(scratch), asked)
    print(f"one machine: {row['plain_s']:.3f} s a video in one process, {row['ray_s']:.3f} s by "
          f"an actor, {row['added']:+.1%}; {row['start_s']:.1f} s to start")  # fmt: skip
    print(f"two nodes: {row['gain']:.2f} x one, {row['one_node_s']:.3f} s a video, then "
          f"{row['two_nodes_s']:.3f} s")  # fmt: skip
    faults = faults_of(row)
    for fault in faults:
        print(fault)
    report("archive_ray", row | {"faults": faults, "check": asked.check}, append=asked.append)
    return 1 if faults and not asked.check else 0


def faults_of(row: dict[str, Any]) -> list[str]:
    """Say what is not as it should be."""
    limits = (("added", row["added"] <= MOST_ADDED), ("gain", row["gain"] >= LEAST_GAIN))
    return [f"{name} = {row[name]:.3f}" for name, is_good in limits if not is_good]


def measured(folder: Path, asked: Any) -> dict[str, Any]:
    """Return seconds a video, and what they say, of both cases."""
    write_world(folder / "clips", max(asked.clips, asked.paced), split="heldout", seed=0)
    paths = sorted((folder / "clips/videos").iterdir())
    plain, ray, starts = [], [], []
    runs = Runs(folder / "runs")
    for _ in range(asked.repeats):
        clips = paths[: asked.clips]
        own = ArchiveSettings(in_flight=_IN_FLIGHT)
        plain.append(runs.pace(clips, own, NamedModel("demo", {"device": "cpu"}), _CLIP_OPTIONS))
        begun_s = time.perf_counter()
        cores = num_cores()  # an actor has as many threads as cores, as here
        with cluster(1, num_cpus=cores):
            there = ArchiveSettings(in_flight=_IN_FLIGHT, ray="auto", workers=1, ray_cpus=cores)
            demo = NamedModel("demo", {"device": "cpu"})
            ray.append(runs.pace(clips, there, demo, _CLIP_OPTIONS))
            starts.append(runs.first_row_s - begun_s)
    nodes: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(asked.repeats):
        for number, paces in nodes.items():
            with cluster(number, num_cpus=1):
                one = ArchiveSettings(in_flight=1, ray="auto", workers=number, sandbox=False)
                model = PacedModel(asked.pace_s)
                paces.append(runs.pace(paths[: asked.paced], one, model, _PACED_OPTIONS))
    best = {name: min(paces) for name, paces in (("plain", plain), ("ray", ray))}
    return {
        "plain_s": best["plain"],
        "ray_s": best["ray"],
        "added": best["ray"] / best["plain"] - 1.0,
        "start_s": statistics.median(starts),
        "one_node_s": min(nodes[1]),
        "two_nodes_s": min(nodes[2]),
        "gain": min(nodes[1]) / min(nodes[2]),
        "pace_s": asked.pace_s,
        "runs": {"plain": plain, "ray": ray, "one_node": nodes[1], "two_nodes": nodes[2]},
        "clips": asked.clips,
        "paced": asked.paced,
        "in_flight": _IN_FLIGHT,
    }


class Runs:
    """Runs archives, each in a folder of its own.

    Attributes:
        first_row_s: when the last run had its first row, `perf_counter`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        self.first_row_s = 0.0

    def pace(
        self,
        paths: Sequence[Path],
        settings: ArchiveSettings,
        model: Callable[[], LlavaVideo],
        options: Options,
    ) -> float:
        """Return the seconds between two rows, from the first round of videos to the end."""
        out = self._folder / str(self._count)
        self._count += 1
        summary = run_archive(list(paths), out, settings=settings, model=model, **options)
        ended_s = time.perf_counter()
        if summary.exit_status:
            raise RuntimeError(summary.progress.line)
        moments = sorted(datetime.fromisoformat(r["run"]["finished_at"]) for r in iter_rows(out))
        self.first_row_s = ended_s - (moments[-1] - moments[0]).total_seconds()
        begin = min(settings.in_flight * max(settings.workers, 1), len(moments) - 2)
        return (moments[-1] - moments[begin]).total_seconds() / (len(moments) - 1 - begin)


@contextmanager
def cluster(num_nodes: int, *, num_cpus: int) -> Iterator[None]:
    """Be the driver of a cluster of nodes on this machine."""
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": num_cpus, "object_store_memory": _STORE_BYTES}
    made = Cluster(initialize_head=True, head_node_args=node)
    for _ in range(num_nodes - 1):
        made.add_node(**node)
    ray.init(address=made.address, log_to_driver=False, logging_level="WARNING")
    try:
        yield
    finally:
        ray.shutdown()
        made.shutdown()


if __name__ == "__main__":
    sys.exit(main())
