"""Pixels of decoded frames: those of the frame's own conversion, and no thread is started."""

import threading
from pathlib import Path

import av
import numpy as np
import pytest

from llava_video.video.rgb import rgb_of

TASKS = Path("/proc/self/task")


def noisy(pixel_format: str, height_px: int, width_px: int) -> av.VideoFrame:
    """Return a frame of noise."""
    noise = np.random.default_rng(height_px).integers(0, 256, (height_px, width_px, 3), np.uint8)
    return av.VideoFrame.from_ndarray(noise, format="rgb24").reformat(format=pixel_format)


def test_pixels_are_those_of_the_frames_own_conversion() -> None:
    # In turn: a converter that went on with the last frame's size, format or range would show.
    for pixel_format in ("yuv420p", "yuv444p", "yuvj420p", "yuv420p10le", "nv12", "gray", "rgb24"):
        for height_px, width_px in ((36, 64), (35, 71), (240, 320)):
            frame = noisy(pixel_format, height_px, width_px)
            found = rgb_of(frame)
            assert found.shape == (height_px, width_px, 3)
            assert found.dtype == np.uint8
            assert np.array_equal(found, frame.to_ndarray(format="rgb24"))


def test_earlier_pixels_stay_as_they_are() -> None:
    first, second = (noisy("yuv420p", 36, 64), noisy("yuv420p", 36, 64))
    found = rgb_of(first)
    before = found.copy()
    rgb_of(second)
    assert np.array_equal(found, before)


@pytest.mark.skipif(not TASKS.exists(), reason="counts threads where Linux lists them")
def test_no_thread_is_started() -> None:
    seen: list[int] = []

    frame = noisy("yuv420p", 720, 1280)

    def converts() -> None:
        before = len([*TASKS.iterdir()])
        rgb_of(frame)
        seen.append(len([*TASKS.iterdir()]) - before)

    # In a thread of its own, so that the converter is a new one, alive while threads are counted.
    thread = threading.Thread(target=converts)
    thread.start()
    thread.join()
    assert seen == [0]
