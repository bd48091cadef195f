"""The settings choose who works; what cannot work there is refused before it does."""

import threading
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from archive_runs import oracle, slow_model

from llava_video.api import LlavaVideo
from llava_video.archive.hands import NamedModel
from llava_video.archive.hiring import hands_for
from llava_video.archive.in_threads import ThreadHands
from llava_video.archive.settings import ArchiveSettings
from llava_video.backends import BACKENDS
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
