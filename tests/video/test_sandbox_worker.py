"""A worker loads little, counts what it reads, and lives no longer than its parent."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import synthetic
from sandbox_cases import assert_error, environment, given_and_raised, shared_files, told_by

from llava_video.errors import DecodeError
from llava_video.values import VideoInfo
from llava_video.video.sandbox import DecoderPool, open_sandboxed
from llava_video.video.sandbox_worker import least_walk
from llava_video.video.settings import SandboxSettings
from llava_video.video.source import open_source

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return synthetic.write_video(tmp_path / "a.mp4", 30)


def test_large_frames_are_refused_from_the_header(path: Path) -> None:
    """96 x 160 are 15,360 pixels."""
    settings = SandboxSettings(max_pixels=15_359, num_workers=1)
    with (
        DecoderPool(settings, opener="sandbox_stubs:hangs_at_once") as pool,
        pytest.raises(DecodeError, match=r"160 px wide and 96 px high, more than 15,359 pixels"),
    ):
        pool.open(open_source(path))
    with open_sandboxed(open_source(path), settings=SandboxSettings(max_pixels=15_360)) as decoder:
        assert synthetic.indices(decoder.clips_at([0.5])) == [15]


def test_frames_that_grow_midway_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten frames of 96 x 160 and ten of a hundred times as many pixels."""
    parts = [
        synthetic.write_video(
            tmp_path / f"{part}.ts",
            10,
            height_px=96 * scale,
            width_px=160 * scale,
            times_s=[part * 2 + idx / 10 for idx in range(10)],
        ).read_bytes()
        for part, scale in ((0, 1), (1, 10))
    ]
    path = tmp_path / "grows.ts"
    path.write_bytes(b"".join(parts))
    for most, num_given in ((96 * 160 * 100, 20), (96 * 160, 10)):
        settings = SandboxSettings(max_pixels=most)
        with open_sandboxed(open_source(path), settings=settings) as decoder:
            assert decoder.info.num_frames == 20
            clips = decoder.clips_at(decoder.info.pts_s.tolist())
            assert [int(idx) for clip in clips for idx in clip.frame_idxs] == [*range(num_given)]
        assert ("10 of 20 frames cannot be decoded" in caplog.text) == (num_given == 10)


@pytest.mark.parametrize("backend", ["pyav", "decord"])
def test_frames_thrown_away_count(tmp_path: Path, backend: Any) -> None:
    """One keyframe: frame 29 takes 30 decoded frames; two of reordering may be read beyond."""
    path = synthetic.write_video(tmp_path / "one_key.mp4", 48, codec_options={"g": "999"})
    for most, is_enough in ((20, False), (34, True)):
        settings = SandboxSettings(max_walked_frames=most)
        with open_sandboxed(open_source(path), backend=backend, settings=settings) as decoder:
            given, caught, _ = given_and_raised(decoder, [29 / 30])
        assert given == ([29] if is_enough else [])
        assert (caught is None) == is_enough
        if not is_enough:
            assert_error(caught, "more than 20 frames would have to be decoded", "shorter span")


def test_what_a_worker_is(path: Path) -> None:
    settings = SandboxSettings(num_workers=1, videos_per_worker=2)
    with DecoderPool(settings, opener="sandbox_stubs:tells") as pool:
        told = [told_by(pool, path) for _ in range(5)]
    assert "av" in told[0]["modules"]
    assert {"torch", "transformers", "decord"}.isdisjoint(told[0]["modules"])
    peak_kib = int(told[0]["status"].split("VmHWM:")[1].split()[0])
    assert 20 * 2**10 < peak_kib < 200 * 2**10
    assert told[0]["session"] == told[0]["pid"] != os.getsid(0)
    assert "pytest" not in told[0]["modules"]
    # Reused, and replaced after two videos.
    pids = [one["pid"] for one in told]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]
    assert told[0]["descriptors"] == told[1]["descriptors"]
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_the_least_walk_by_hand() -> None:
    """Keyframes at 0 and 10; 3, 5 and 12 take 0..3, 4..5 and 10..12: 4 + 2 + 3."""
    info = VideoInfo(
        duration_s=None,
        num_frames=20,
        frame_rate_hz=None,
        height_px=1,
        width_px=1,
        codec="h264",
        container="mov",
        pts_s=np.arange(20.0),
        tick_s=1e-3,
        keyframe_idxs=(0, 10),
    )
    assert least_walk(info, np.array([3.0, 5.0, 12.0])) == 9
    assert least_walk(info, np.array([3.0, 3.0, 19.0])) == 4 + 10
    assert least_walk(info, np.arange(20.0)) == 20


SCRIPT = """
import sys
from llava_video.video.sandbox import DecoderPool, open_sandboxed
from llava_video.video.source import open_source
print("begun")
with open_sandboxed(open_source(sys.argv[1])) as decoder:
    print(sum(len(clip.frames) for clip in decoder.clips_at(decoder.info.pts_s.tolist())))
"""


ORPHAN = """
import json, sys, time
from llava_video.video.sandbox import DecoderPool
from llava_video.video.source import open_source
pool = DecoderPool(opener="sandbox_stubs:" + sys.argv[2])
decoder = pool.open(open_source(sys.argv[1]))
clips = decoder.clips_at([0.0, 0.1, 0.5], chunk_frames=1)
next(clips)
print(pool._num_lent, decoder.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("how", ["script", "stdin"])
def test_an_unguarded_script(path: Path, tmp_path: Path, how: str) -> None:
    script = tmp_path / "user.py"
    script.write_text(SCRIPT)
    words = [sys.executable, str(script) if how == "script" else "-", str(path)]
    ran = subprocess.run(
        words, input=SCRIPT, capture_output=True, text=True, timeout=60, env=environment()
    )
    assert (ran.stdout.split(), ran.stderr) == (["begun", "30"], "")


@pytest.mark.parametrize(
    "stub",
    ["sleeps_in_c", *(pytest.param(s, marks=pytest.mark.slow) for s in ("is_busy", "tells"))],
)
def test_a_worker_ends_with_its_parent(path: Path, stub: str) -> None:
    before = shared_files()
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, str(path), stub],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert parent.stdout is not None
    worker = psutil.Process(int(parent.stdout.readline().split()[1]))
    assert worker.is_running()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    gone, _ = psutil.wait_procs([worker], timeout=5)
    assert gone or worker.status() == psutil.STATUS_ZOMBIE  # nobody reaps it in a container
    assert shared_files() == before


def test_ctrl_c_reaches_the_parent_alone(path: Path) -> None:
    # Whoever runs the tests in the background has Ctrl-C ignored, and so would the parent.
    heard = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    parent = subprocess.Popen(
        [sys.executable, "-c", heard + ORPHAN, str(path), "tells"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    assert parent.stdout is not None
    worker = psutil.Process(int(parent.stdout.readline().split()[1]))
    os.killpg(parent.pid, signal.SIGINT)
    _, said = parent.communicate(timeout=20)
    assert said.count("Traceback") == 1
    assert "sandbox_worker" not in said
    psutil.wait_procs([worker], timeout=5)
