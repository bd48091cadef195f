"""Frames by PyAV: any file FFmpeg reads, every frame told by its presentation time.

The frames asked for are planned as runs of packets (`seek_plan.py`). Runs that give few frames are
read side by side, a core each; where most frames are wanted the codec's own threads do better, and
runs that lie close are one. A run that does not give a frame is read again with more care
(`decode_pass.py`), and what the last does not give is left out.

Knows nothing of sampling; which files it reads is `decoder.py`'s decision.
"""

import bisect
import contextlib
import logging
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Self

import av.error
from av.video.frame import VideoFrame

from llava_video.cores import num_cores
from llava_video.errors import DecodeError
from llava_video.video.clips import Frame
from llava_video.video.container import open_container
from llava_video.video.decode_pass import Care, Doubt, Pass
from llava_video.video.in_order import in_order
from llava_video.video.probe import TrackInfo
from llava_video.video.rgb import rgb_of
from llava_video.video.seek_plan import Run, plan_runs
from llava_video.video.source import Source
from llava_video.video.upright import fit_size, turn

_log = logging.getLogger(__name__)

# Emptying and refilling a codec's threads costs about as much as decoding this many pictures.
_SEEK_WORTH_PACKETS = 12
# Decoded and not yet taken, of all runs together: more would make memory grow with the number of
# frames of a slow consumer. Stored pixels are half as large as RGB.
_MOST_HELD_FRAMES, _MOST_HELD_BYTES = 16, 64 * 2**20
# A codec holds up to 16 pictures to refer to: 50 MB of 1080p.
_MOST_WORKERS = 8


class PyavReader:
    """Read one source with PyAV; every call of `frames` opens the source anew."""

    def __init__(self, source: Source, info: TrackInfo) -> None:
        self._source, self._info = source, info

    def frames(self, idxs: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        """Yield (index, (H, W, 3) uint8 upright frame) for ascending indices, but for lost ones.

        Raises:
            SourceError: the file has gone. DecodeError: its pixel format cannot be converted.
        """
        last = -1
        for cares in ((Care.FAST, Care.CAREFUL), (Care.LINEAR,)):
            with contextlib.suppress(Doubt):
                for idx, frame in self._stored(_after(last, idxs), cares):
                    last = idx
                    yield idx, self._upright(frame, idx)
                return

    def close(self) -> None:
        """Nothing is held open."""

    def _stored(
        self, idxs: Sequence[int], cares: Sequence[Care]
    ) -> Iterator[tuple[int, VideoFrame]]:
        """Yield frames as the codec stores them.

        Raises:
            Doubt: when the surest of the cares does not do.
        """
        info = self._info
        # Stored as 4:2:0, mostly: one level for each pixel and half a level for its colour.
        fitting = _MOST_HELD_BYTES * 2 // max(1, info.height_px * info.width_px * 3)
        max_items = max(2, min(_MOST_HELD_FRAMES, fitting))
        runs, num_workers = self._runs(idxs, max_items, is_linear=cares[0] is Care.LINEAR)
        wanted = threading.Event()
        wanted.set()
        threads = "AUTO" if num_workers == 1 else "NONE"
        workers = [_Worker(self._source, info, cares, threads, wanted) for _ in range(num_workers)]
        frames = in_order(runs, workers, max_items=max_items)
        try:
            yield from frames
        finally:
            wanted.clear()  # a long run would first be decoded to its next frame
            frames.close()

    def _runs(
        self, idxs: Sequence[int], max_items: int, *, is_linear: bool
    ) -> tuple[tuple[Run, ...], int]:
        """Return the runs, and how many are read at once."""
        if is_linear:  # one run, from the start of the file
            num_keys = len(self._info.keyframe_idxs)
            return plan_runs(self._info, idxs, join_packets=sys.maxsize, keys_back=num_keys), 1
        runs = plan_runs(self._info, idxs)
        num_workers = min(num_cores(), len(runs), _MOST_WORKERS)
        # The first run's reader hands over as it reads; the others' frames have to wait.
        num_waiting = len(idxs) / max(1, len(runs)) * (num_workers - 1)
        if num_workers > 1 and num_waiting <= max_items:
            return runs, num_workers
        return plan_runs(self._info, idxs, join_packets=_SEEK_WORTH_PACKETS), 1

    def _upright(self, frame: VideoFrame, idx: int) -> Frame:
        info = self._info
        try:
            pixels = rgb_of(frame)
        except (av.error.FFmpegError, ValueError) as cause:
            raise DecodeError(
                f"{self._source.name}: pixels of {frame.format.name} cannot become RGB.",
                "convert the file to yuv420p.",
                pts_s=float(info.pts_s[idx]),
            ) from cause
        return fit_size(
            turn(pixels, info.rotation_deg, info.mirrored), info.height_px, info.width_px
        )


class _Worker:
    """What one thread reads runs with: a container for each degree of care that was needed."""

    def __init__(
        self,
        source: Source,
        info: TrackInfo,
        cares: Sequence[Care],
        thread_type: str,
        wanted: threading.Event,
    ) -> None:
        self._source, self._info, self._cares = source, info, cares
        self._thread_type, self._wanted = thread_type, wanted
        self._passes: dict[Care, Pass] = {}
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._open.close()

    def __call__(self, run: Run) -> Iterator[tuple[int, VideoFrame]]:
        """Yield the frames of a run, each with the least care that gives it.

        Raises:
            Doubt: none of the cares does.
        """
        last, doubt = -1, Doubt()
        for care in self._cares:
            if care is Care.CAREFUL:
                # Whatever lies between is decoded too: it may be what the others refer to.
                rest = _after(last, run.idxs)
                (run,) = plan_runs(self._info, rest, join_packets=sys.maxsize, keys_back=1)
            try:
                for idx, frame in self._pass(care).frames(run):
                    last = idx
                    yield idx, frame
                return
            except Doubt as error:
                doubt = error
                _log.debug("%s: %s, reading %s", self._source.name, error, care.name)
        raise doubt

    def _pass(self, care: Care) -> Pass:
        if care not in self._passes:
            container = self._open.enter_context(open_container(self._source))
            self._passes[care] = Pass(
                container, self._info, care, self._thread_type, self._wanted.is_set
            )
        return self._passes[care]


def _after(last: int, idxs: Sequence[int]) -> Sequence[int]:
    return idxs[bisect.bisect_right(idxs, last) :]
