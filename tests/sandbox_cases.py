"""What the tests of the sandbox share."""

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import synthetic

from llava_video.config import to_mapping
from llava_video.errors import DecodeError, LlavaVideoError
from llava_video.values import VideoInfo
from llava_video.video.decoder import Decoder, open_decoder
from llava_video.video.sandbox import DecoderPool
from llava_video.video.settings import SandboxSettings
from llava_video.video.source import open_source

# A hang costs so long in the tests, and a second at most is added to it.
STALL_S = 0.8
QUICK = SandboxSettings(stall_timeout_s=STALL_S, video_timeout_s=20.0, num_workers=1)


def read_all(decoder: Decoder, every: int = 1) -> tuple[list[Any], np.ndarray[Any, Any]]:
    clips = list(decoder.clips_at(decoder.info.pts_s[::every].tolist()))
    times = [(int(i), float(t)) for c in clips for i, t in zip(c.frame_idxs, c.pts_s, strict=True)]
    return times, np.concatenate([clip.frames for clip in clips])


def plain(info: VideoInfo) -> dict[str, Any]:
    """Return all that is known of a video, arrays with their kinds."""
    return {
        name: (value.dtype, value.tolist()) if isinstance(value, np.ndarray) else value
        for name, value in to_mapping(info).items()
    }


def assert_same(pool: DecoderPool, address: Any, every: int = 1, backend: Any = "auto") -> None:
    source = open_source(address)
    with open_decoder(source, backend=backend) as here, pool.open(source, backend=backend) as there:
        assert type(there.info) is type(here.info)
        assert plain(there.info) == plain(here.info)
        assert (there.backend, there.reason) == (here.backend, here.reason)
        times, frames = read_all(here, every)
        times_there, frames_there = read_all(there, every)
    assert times == times_there
    assert np.array_equal(frames, frames_there)


def assert_error(caught: DecodeError, found: str, hint: str) -> None:
    assert re.search(found, caught.message), caught.message
    assert re.search(hint, caught.hint), caught.hint


def given_and_raised(decoder: Decoder, times_s: list[float]) -> tuple[list[int], Any, float]:
    given: list[int] = []
    started_s = time.monotonic()
    try:
        for clip in decoder.clips_at(times_s):
            given += synthetic.indices([clip])
            started_s = time.monotonic()
    except LlavaVideoError as raised:
        return given, raised, time.monotonic() - started_s
    return given, None, time.monotonic() - started_s


def told_by(pool: DecoderPool, path: Path) -> dict[str, Any]:
    with pool.open(open_source(path)) as decoder:
        return dict(json.loads(decoder.reason))


def environment() -> dict[str, str]:
    root = Path(__file__).resolve().parents[1]
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}


def shared_files() -> list[str]:
    return sorted(path.name for path in Path("/dev/shm").iterdir())
