"""A decoded frame → its pixels, (H, W, 3) uint8 RGB, as stored: not turned, not resized.

Since PyAV 17 a frame that converts itself makes a converter of its own, with a thread for every
core: on two busy cores, ten times as long for a picture of 720p, and megabytes that come and go
with each. Here each thread keeps one converter, which starts no others. Pixels are the same.
"""

import threading
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

# Earlier versions convert in the calling thread, and do not know the word.
_ALONE: dict[str, Any] = {"threads": 1} if int(av.__version__.split(".")[0]) >= 18 else {}


class _Own(threading.local):
    def __init__(self) -> None:
        self.reformatter = VideoReformatter()


_OWN = _Own()


def rgb_of(frame: "VideoFrame") -> npt.NDArray[np.uint8]:
    """Return the pixels of a frame, (H, W, 3) uint8.

    Raises:
        av.error.FFmpegError, ValueError: its pixels cannot become RGB.
    """
    converted = _OWN.reformatter.reformat(frame, format="rgb24", **_ALONE)
    return np.asarray(converted.to_ndarray(), dtype=np.uint8)
