"""Frames by decord: H.264 and VP9 that it reads exactly, one by one.

decord turns frames by the rotation it finds itself, ignores the sample aspect ratio, and hides
damage by repeating frames unless told not to. Which files it may read is `decoder.py`'s decision.
"""

import bisect
import contextlib
import threading
from collections.abc import Iterator, Sequence

import decord
import numpy as np
import numpy.typing as npt

from llava_video.errors import DecodeError
from llava_video.values import VideoInfo
from llava_video.video.source import Source
from llava_video.video.upright import fit_size

# While nobody asks for a frame, decord decodes on into a queue without a bound: a whole film, given
# time. A seek stops it, so frames are read in short bursts with a seek after each. One thread and
# single reads keep the queue short within a burst, and are no slower (two cores, 1080p).
_NUM_THREADS = 1
_BURST_FRAMES = 16
_BURST_BYTES = 100 * 2**20
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
            self._reader = decord.VideoReader(
                source.reader(), num_threads=_NUM_THREADS, fault_tol=_FAULT_TOLERANCE
            )
        except _ERRORS as cause:
            raise DecodeError(f"decord cannot open {source.name}.", _HINT) from cause
        self._keyframe_idxs = sorted(map(int, self._reader.get_key_indices()))

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
            DecodeError: at the first frame that does not decode.
        """
        frame_bytes = 3 * self._info.height_px * self._info.width_px
        burst = max(1, min(_BURST_FRAMES, _BURST_BYTES // frame_bytes))
        for start in range(0, len(idxs), burst):
            stop = start + burst
            frames, error = self._burst(idxs[start:stop])
            self._pause(int(idxs[min(stop, len(idxs) - 1)]))
            yield from frames
            if error:
                raise error

    def _burst(
        self, idxs: Sequence[int]
    ) -> tuple[list[tuple[int, npt.NDArray[np.uint8]]], DecodeError | None]:
        """Read frames one after the other, up to the first that does not decode."""
        frames = []
        for idx in idxs:
            try:
                frames.append((idx, self._read(int(idx))))
            except DecodeError as error:
                return frames, error
        return frames, None

    def _read(self, idx: int) -> npt.NDArray[np.uint8]:
        try:
            with self._lock:
                frame = self._reader[idx].asnumpy()
        except _ERRORS as cause:
            pts_s = float(self._info.pts_s[idx])
            message = f"decord cannot decode {self._name} at {pts_s:.2f} s."
            raise DecodeError(message, _HINT, pts_s=pts_s) from cause
        return fit_size(frame, self._info.height_px, self._info.width_px)

    def _pause(self, next_idx: int) -> None:
        """Stop decoding ahead, at the keyframe that `next_idx` is decoded from.

        decord takes the position it is told to seek to for the one it is at, so any other frame
        than a keyframe would shift all that follow.
        """
        with self._lock:
            keyframe = bisect.bisect_right(self._keyframe_idxs, next_idx) - 1
            if keyframe >= 0:
                with contextlib.suppress(*_ERRORS):  # the next read will tell
                    self._reader.seek(self._keyframe_idxs[keyframe])

    def close(self) -> None:
        """Free decord's reader."""
        with self._lock:
            self._reader = None


_HINT = 'reader="auto" reads it with PyAV.'
