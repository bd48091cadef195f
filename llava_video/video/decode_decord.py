"""Frames by decord: H.264 and VP9 that it reads exactly, batch by batch.

decord turns frames by the rotation it finds itself, ignores the sample aspect ratio, and hides
damage by repeating frames unless told not to. Which files it may read is `decoder.py`'s decision.
"""

import threading
from collections.abc import Iterator, Sequence

import decord
import numpy as np
import numpy.typing as npt

from llava_video.errors import DecodeError
from llava_video.values import VideoInfo
from llava_video.video.source import Source
from llava_video.video.upright import fit_size

_BATCH_FRAMES = 4
# Above 0 and below one frame of any video: the first frame decord makes up is an error.
_FAULT_TOLERANCE = 1e-6
_ERRORS = (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError, AssertionError)


class DecordReader:
    """Read one source with decord; calls from several threads take turns.

    Raises:
        DecodeError: when decord cannot open it.
    """

    def __init__(self, source: Source, info: VideoInfo) -> None:
        self._name, self._info = source.name, info
        self._lock = threading.Lock()
        decord.logging.set_level(decord.logging.QUIET)
        try:
            self._reader = decord.VideoReader(source.reader(), fault_tol=_FAULT_TOLERANCE)
        except _ERRORS as cause:
            raise DecodeError(f"decord cannot open {source.name}.", _HINT) from cause

    def pts_s(self) -> npt.NDArray[np.float64]:
        """Return decord's own presentation times, s from its first frame; exact to float32."""
        with self._lock:
            spans_s = self._reader.get_frame_timestamp(range(len(self._reader)))
        starts_s = np.array(spans_s[:, 0], dtype=np.float64)
        starts_s -= starts_s[0]
        return starts_s

    def frames(self, idxs: Sequence[int]) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        """Yield (index, (H, W, 3) uint8 upright frame) for ascending indices.

        Raises:
            DecodeError: at the first batch with a frame that does not decode.
        """
        for start in range(0, len(idxs), _BATCH_FRAMES):
            batch_idxs = list(idxs[start : start + _BATCH_FRAMES])
            try:
                with self._lock:
                    batch = self._reader.get_batch(batch_idxs).asnumpy()
            except _ERRORS as cause:
                pts_s = float(self._info.pts_s[batch_idxs[0]])
                message = f"decord cannot decode {self._name} at {pts_s:.2f} s."
                raise DecodeError(message, _HINT, pts_s=pts_s) from cause
            for idx, frame in zip(batch_idxs, batch, strict=True):
                yield idx, fit_size(frame, self._info.height_px, self._info.width_px)

    def close(self) -> None:
        """Free decord's reader."""
        with self._lock:
            self._reader = None


_HINT = 'reader="auto" reads it with PyAV.'
