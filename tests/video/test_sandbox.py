"""One video alone, and many through a pool: lent, taken back, replaced, and nothing left behind."""

import gc
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import synthetic
from sandbox_cases import STALL_S, given_and_raised, shared_files, told_by

from llava_video.errors import CapacityError, ConfigError, DecodeError, SourceError
from llava_video.video.sandbox import DecoderPool, open_sandboxed
from llava_video.video.settings import SandboxSettings
from llava_video.video.source import open_source

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return synthetic.write_video(tmp_path / "a.mp4", 30)


def test_one_video_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    with open_sandboxed(open_source("a.mp4")) as decoder:
        clips = list(decoder.clips_at([0.0, 0.5, 0.5, 0.9], chunk_frames=3))
        assert synthetic.indices(clips) == [0, 15, 15, 27]
        assert [len(clip.frames) for clip in clips] == [3, 1]
        assert list(decoder.clips_at([])) == []
        with pytest.raises(ConfigError, match="ascending"):
            decoder.clips_at([1.0, 0.5])
        assert "process of its own" in repr(decoder)
    with pytest.raises(DecodeError, match=r"it was closed.*open it again"):
        list(decoder.clips_at([0.0]))
    decoder.close()  # a second time


def test_torch_is_not_loaded_for_a_reader(path: Path) -> None:
    source, refused = open_source(path), r'needs torch.*reader="auto", or sandbox=False'
    with DecoderPool() as pool, pytest.raises(ConfigError, match=refused):
        pool.open(source, backend="torchcodec")
    assert pool._num_lent == 0
    with pytest.raises(ConfigError, match=refused):
        open_sandboxed(source, backend="torchcodec")


def test_decoded_frames_need_no_worker(path: Path) -> None:
    frames = np.stack([synthetic.paint_frame(idx) for idx in range(3)])
    source = open_source((frames, [0.0, 1.0, 2.0]))
    with DecoderPool() as pool, pool.open(source) as decoder, open_sandboxed(source) as other:
        assert decoder.backend == other.backend == "frames"
        assert pool._num_lent == 0


def test_a_worker_that_died_while_idle_is_replaced(path: Path) -> None:
    with DecoderPool(SandboxSettings(num_workers=1), opener="sandbox_stubs:tells") as pool:
        first = told_by(pool, path)["pid"]
        os.kill(first, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(first)], timeout=5)
        assert told_by(pool, path)["pid"] != first


def test_workers_are_lent_in_turn(path: Path) -> None:
    settings = SandboxSettings(num_workers=1, wait_timeout_s=0.1)
    with DecoderPool(settings) as pool:
        first = pool.open(open_source(path))
        assert repr(pool) == "DecoderPool(1 of 1 workers are lent)"
        with pytest.raises(CapacityError, match=r"all 1 decoding workers are busy.*num_workers"):
            pool.open(open_source(path))
        first.close()
        pool.open(open_source(path)).close()
        forgotten = pool.open(open_source(path))
        del forgotten
        gc.collect()
        pool.open(open_source(path)).close()
    with pytest.raises(ConfigError, match="is closed"):
        pool.open(open_source(path))


def test_an_opener_that_is_not_there(path: Path) -> None:
    for opener in ("sandbox_stubs:nothing", "no_such_module:f"):
        with (
            DecoderPool(opener=opener) as pool,
            pytest.raises(CapacityError, match=r"does not start: .*(nothing|no_such_module)"),
        ):
            pool.open(open_source(path))
        assert pool._num_lent == 0


def test_many_threads(tmp_path: Path) -> None:
    paths = [synthetic.write_video(tmp_path / f"{num}.mp4", 20 + num) for num in range(4)]
    (tmp_path / "hang.mp4").write_bytes(paths[0].read_bytes())
    (tmp_path / "crash.mp4").write_bytes(paths[0].read_bytes())
    wrong: list[Any] = []

    def work(num: int) -> None:
        try:
            path = paths[num % 4]
            with pool.open(open_source(path)) as decoder:
                found = synthetic.indices(decoder.clips_at(decoder.info.pts_s.tolist()))
            if found != list(range(20 + num % 4)):
                wrong.append(found)
            bad = tmp_path / ("hang.mp4" if num % 2 else "crash.mp4")
            with pool.open(open_source(bad)) as decoder:
                given, caught, _ = given_and_raised(decoder, [0.0, 0.1, 0.5])
            if given != [0, 3] or not isinstance(caught, DecodeError):
                wrong.append((given, caught))
        except Exception as raised:  # noqa: BLE001 - told by the main thread
            wrong.append(raised)

    settings = SandboxSettings(stall_timeout_s=STALL_S, num_workers=2)
    with DecoderPool(settings, opener="sandbox_stubs:by_content") as pool:
        threads = [threading.Thread(target=work, args=[num]) for num in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert pool._num_lent == 0


@pytest.mark.slow
def test_five_hundred_opens_leave_nothing_behind(tmp_path: Path) -> None:
    kinds = [
        ("mp4", {}),
        ("mkv", {"codec": "libx265"}),
        ("ts", {}),
        ("webm", {"codec": "libvpx-vp9"}),
    ]
    paths = [
        synthetic.write_video(tmp_path / f"{num}.{suffix}", 24, **options)
        for num, (suffix, options) in enumerate(kinds)
    ]
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(paths[0].read_bytes()[:1000])
    shared, own = shared_files(), psutil.Process()
    rss: list[int] = []
    num_descriptors: list[int] = []
    with DecoderPool(SandboxSettings(num_workers=1, videos_per_worker=50)) as pool:
        for num in range(500):
            path = [*paths, cut][num % 5]
            address: Any = path.read_bytes() if num % 3 == 0 else path
            try:
                with pool.open(open_source(address)) as decoder:
                    found = synthetic.indices(decoder.clips_at([0.0, 0.5]))
                assert found == [0, 15]
            except SourceError:
                assert path == cut
            if num % 50 == 49:
                gc.collect()
                rss.append(own.memory_info().rss)
                num_descriptors.append(own.num_fds())
    assert len(set(num_descriptors)) == 1
    print(f"RSS after every 50 opens: {[one // 2**20 for one in rss]} MiB")
    assert max(rss[1:]) - rss[0] < 30e6
    assert shared_files() == shared
