"""The settings choose who works; what cannot work there is refused before it does."""

import subprocess
import sys
import threading
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from archive_runs import oracle, slow_model

from llava_video.api import LlavaVideo
from llava_video.archive import hiring, on_ray
from llava_video.archive.hands import NamedModel
from llava_video.archive.hiring import hands_for
from llava_video.archive.in_threads import ThreadHands
from llava_video.archive.settings import ArchiveSettings
from llava_video.backends import BACKENDS
from llava_video.connecting import connect
from llava_video.errors import BackendMissingError, ConfigError


def hired(model: Any, stack: ExitStack, **settings: Any) -> Any:
    return hands_for(model, ArchiveSettings(**settings), {}, stack, threading.Event())


def test_without_workers_threads_work(tiny_model: LlavaVideo, tiny_folder: Path) -> None:
    for model in (oracle(tiny_model.spec), partial(slow_model, tiny_folder, 0.0), tiny_folder):
        with ExitStack() as stack:
            hands = hired(model, stack, in_flight=3, sandbox=False)
            assert isinstance(hands, ThreadHands)
            assert (hands.maker.model, hands.num_held) == (str(tiny_folder), 0)
            is_oracle = not isinstance(model, Path)
            assert (hands.facts["engine"] == "OracleEngine") is is_oracle


@pytest.mark.parametrize("settings", [{"workers": 2}, {"ray": "auto"}])
def test_what_each_worker_loads_is_named(
    tiny_model: LlavaVideo, tiny_folder: Path, settings: dict[str, Any]
) -> None:
    with ExitStack() as stack:
        with pytest.raises(ConfigError, match="name it"):
            hired(tiny_model, stack, **settings)
        with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES"):
            hired(NamedModel(tiny_folder, {"device": "cuda:1"}), stack, **settings)


def test_without_ray_it_says_how_to_install_it(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = type(BACKENDS["ray"])("no_ray_here", "ray", "2.49", "archive", "clusters")
    monkeypatch.setitem(BACKENDS, "ray", absent)
    monkeypatch.setitem(BACKENDS, "no_ray_here", absent)
    with ExitStack() as stack, pytest.raises(BackendMissingError, match=r"llava_video\[archive\]"):
        hired(tiny_folder, stack, ray="auto")


def test_who_only_hires_imports_no_torch() -> None:
    modules = ("runner", "hiring", "crew", "in_processes", "on_ray")
    names = ", ".join(f"llava_video.archive.{name}" for name in modules)
    code = f"import sys, {names}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("settings", "cluster", "gpus", "number"),
    [
        ({}, {"GPU": 3.0, "nodes": 2}, 1.0, 3),
        ({"ray_gpus": 0.5}, {"GPU": 3.0, "nodes": 2}, 0.5, 6),
        ({}, {"nodes": 2}, 0.0, 2),
        ({"ray_gpus": 0.0}, {"GPU": 3.0, "nodes": 2}, 0.0, 2),
        ({"workers": 5}, {"GPU": 3.0, "nodes": 2}, 1.0, 5),
        ({"ray_gpus": 4.0}, {"GPU": 6.0, "nodes": 2}, 4.0, None),
        ({"ray_gpus": 0.5}, {"nodes": 2}, 0.5, None),
        ({"ray_cpus": 99.0}, {"GPU": 3.0, "nodes": 2}, 1.0, None),
    ],
)
def test_a_cluster_gets_an_actor_per_gpu(
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    cluster: dict[str, float],
    gpus: float,
    number: int | None,
) -> None:
    taken: list[float] = []
    hired_ones: list[int] = []
    most = {"most GPU": cluster.get("GPU", 0) / 2, "most CPU": 8}
    monkeypatch.setattr(on_ray, "connected", lambda _: nullcontext({**cluster, **most}))
    monkeypatch.setattr(on_ray, "RayActors", lambda _, *, gpus, cpus: taken.append(gpus))
    monkeypatch.setattr(hiring, "_crew", lambda _, number, *more: Counted(hired_ones, number))
    with ExitStack() as stack:
        if number is None:
            with pytest.raises(ConfigError, match=r"no machine of the cluster.*a smaller ray_"):
                hired(tiny_folder, stack, ray="auto", **settings)
            return
        hired(tiny_folder, stack, ray="auto", **settings)
    assert (taken, hired_ones) == ([gpus], [number])


def test_actors_of_a_served_model_take_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[float] = []
    hired_ones: list[int] = []
    has = {"GPU": 3.0, "nodes": 2, "most GPU": 2.0, "most CPU": 8}
    monkeypatch.setattr(on_ray, "connected", lambda _: nullcontext(has))
    monkeypatch.setattr(on_ray, "RayActors", lambda _, *, gpus, cpus: taken.append(gpus))
    monkeypatch.setattr(hiring, "_crew", lambda _, number, *more: Counted(hired_ones, number))
    with ExitStack() as stack:
        hired(partial(connect, "http://localhost:8000/v1", "name"), stack, ray="auto")
    assert (taken, hired_ones) == ([0.0], [2])


class Counted:
    """A crew that is only counted."""

    def __init__(self, hired_ones: list[int], number: int) -> None:
        hired_ones.append(number)

    def begin(self, stopping: threading.Event) -> None:
        """See `Crew`."""
