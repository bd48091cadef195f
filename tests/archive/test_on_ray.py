"""A cluster's actors work what one process does, whoever is killed when."""

import dataclasses
import os
import signal
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from archive_runs import (
    QUESTION,
    assert_only_poison_is_quarantined,
    contents_in,
    joint_model,
    poisoned_list,
    rows_in,
    slow_model,
    write_clips,
)

from llava_video.archive.hands import NamedModel
from llava_video.archive.ledger_view import LedgerView
from llava_video.archive.on_ray import connected
from llava_video.archive.progress import ArchiveProgress
from llava_video.archive.runner import RunSummary, run_archive
from llava_video.archive.settings import ArchiveSettings
from llava_video.archive.verify import verify
from llava_video.errors import CheckpointError, ConfigError

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray", reason="Ray is not installed")

NUM_CLIPS = 30
ALONE = ArchiveSettings(task="ask", prompts=(QUESTION,), sandbox=False, in_flight=3, shard_units=16)
TWO = dataclasses.replace(ALONE, ray="auto", workers=2)
_STORE_BYTES = 80 * 2**20


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray") / "clips"
    write_clips(folder, NUM_CLIPS)
    return folder


@pytest.fixture(scope="module")
def whole(clips: Path, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the rows of a run in one process, without times and machines."""
    out = tmp_path_factory.mktemp("whole") / "out"
    run(clips, out, slow_model(tiny_folder, 0.0), ALONE)
    return contents_in(out)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let actors find the models of these tests, and Ray tell nobody of it."""
    folders = [Path(__file__).parents[1], Path(__file__).parents[2]]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, folders)))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")


@pytest.fixture
def cluster(surroundings: None) -> Iterator[Any]:
    """Return a cluster of two nodes, of which this process is the driver."""
    from ray.cluster_utils import Cluster

    two = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": _STORE_BYTES}
    )
    two.add_node(num_cpus=1, object_store_memory=_STORE_BYTES)
    ray.init(address=two.address, log_to_driver=False)
    try:
        yield two
    finally:
        ray.shutdown()
        two.shutdown()


def run(
    inputs: Any, out: Path, model: Any, settings: ArchiveSettings = TWO, **more: Any
) -> RunSummary:
    return run_archive(inputs, out, settings=settings, model=model, max_new_tokens=64, **more)


def assert_whole(out: Path, summary: RunSummary, whole: str) -> None:
    """See that every unit has one row, the right one."""
    assert (summary.progress.done, summary.progress.failures) == (NUM_CLIPS, {})
    assert verify(out) == []
    assert contents_in(out) == whole


@pytest.mark.parametrize("is_told", [False, True])
def test_a_node_that_is_lost_blames_no_unit(
    clips: Path, tiny_folder: Path, whole: str, cluster: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_told: bool,
) -> None:  # fmt: skip
    (tmp_path / "loaded").mkdir()
    model = partial(joint_model, tiny_folder, 0.5, tmp_path / "loaded", 2)
    nodes = list(cluster.worker_nodes)

    def kill(progress: ArchiveProgress) -> None:
        """Kill a node of two that are at work."""
        if nodes and len(workers_of(tmp_path / "out")) == 2:
            cluster.remove_node(nodes.pop(), allow_graceful=is_told)

    monkeypatch.setattr("llava_video.archive.runner._TICK_S", 0.3)
    summary = run(clips, tmp_path / "out", model, on_progress=kill)
    assert nodes == []
    assert "is lost (Actor" in caplog.text
    rows = rows_in(tmp_path / "out")
    assert [row["run"]["attempts"] for row in rows] == [1] * NUM_CLIPS  # nobody was blamed
    assert_whole(tmp_path / "out", summary, whole)


def test_actors_are_killed_and_poison_is_quarantined(
    clips: Path, tiny_folder: Path, whole: str, cluster: Any, tmp_path: Path
) -> None:
    model = partial(slow_model, tiny_folder, 0.3)
    killed: list[int] = []

    def kill(progress: ArchiveProgress) -> None:
        if progress.done and not killed:
            killed.append(workers_of(tmp_path / "out")[0])
            os.kill(killed[0], signal.SIGKILL)

    summary = run(clips, tmp_path / "out", model, on_progress=kill)
    assert killed
    assert_whole(tmp_path / "out", summary, whole)

    manifest = poisoned_list(clips, tmp_path / "inputs.jsonl", 8)
    summary = run(manifest, tmp_path / "poison", partial(slow_model, tiny_folder, 0.0))
    assert (summary.exit_status, summary.progress.failures) == (3, {"WorkerCrashed": 1})
    assert_only_poison_is_quarantined(tmp_path / "poison")


def workers_of(out: Path) -> list[int]:
    """Return the processes that have made rows of a run under way."""
    with LedgerView(out) as view:
        return sorted({int(ended.row["run"]["worker"]) for ended in view.ended()})


def test_a_machine_alone_is_a_cluster(
    clips: Path, tiny_folder: Path, whole: str, tmp_path: Path
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    stop = threading.Event()

    def note(progress: ArchiveProgress) -> None:
        if progress.done:
            stop.set()

    one = dataclasses.replace(TWO, workers=0, finish_s=10.0)
    with connected("auto") as cluster:
        assert cluster["nodes"] == 1
        with pytest.raises(CheckpointError):
            run(clips, tmp_path / "none", NamedModel(tmp_path, {"device": "cpu"}), one)
        model = partial(slow_model, tiny_folder, 0.3)
        summary = run(clips, tmp_path / "out", model, one, stopping=stop, on_progress=note)
        assert (summary.interrupted, summary.progress.running) == (True, 0)
        assert 0 < summary.progress.done < NUM_CLIPS
        run(clips, tmp_path / "out", partial(slow_model, tiny_folder, 0.0), one)
    assert contents_in(tmp_path / "out") == whole
    assert not ray.is_initialized()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere"])
def test_no_cluster_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="ray start --head"), connected(address):
        pass
