"""A decoded frame → its pixels, (H, W, 3) uint8 RGB, as stored: not turned, not resized.

A frame that converts itself has FFmpeg start a thread for every core, with PyAV 17 and newer: on
two busy cores that takes ten times as long for a picture of 720p. Here no thread is started, and
nothing is kept between frames: a converter holds megabytes. Pixels are the same.
"""

import inspect
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

# Versions that do not know the word convert in the calling thread, 17.0 perhaps aside.
_KNOWS_THREADS: Final = "threads" in (inspect.getdoc(VideoReformatter.reformat) or "")
_ALONE: Final[dict[str, Any]] = {"threads": 1} if _KNOWS_THREADS else {}


def rgb_of(frame: "VideoFrame") -> npt.NDArray[np.uint8]:
    """Return the pixels of a frame, (H, W, 3) uint8.

    Raises:
        av.error.FFmpegError, ValueError: its pixels cannot become RGB.
    """
    converted = VideoReformatter().reformat(frame, format="rgb24", **_ALONE)
    return np.asarray(converted.to_ndarray(), dtype=np.uint8)
