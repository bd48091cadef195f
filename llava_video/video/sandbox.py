"""A `Source` → a `Decoder` whose probing and decoding happen in a process that can be killed.

A file that hangs, crashes or bloats its decoder costs one worker, which is replaced, and is told as
a `DecodeError` within a second of the limit. Here is who lends workers; what a worker does stands
in `sandbox_worker.py`, and how it is asked in `sandboxed_decoder.py`.
"""

import threading
from collections import deque
from typing import Self

from llava_video.errors import CapacityError, ConfigError
from llava_video.values import VideoInfo
from llava_video.video.decoder import Decoder, open_decoder
from llava_video.video.sandbox_process import WorkerProcess
from llava_video.video.sandboxed_decoder import SandboxedDecoder
from llava_video.video.settings import BackendName, SandboxSettings
from llava_video.video.source import Source

_DEFAULT = SandboxSettings()
_OPENER = "llava_video.video.decoder:open_decoder"


def open_sandboxed(
    source: Source,
    *,
    backend: BackendName = "auto",
    info: VideoInfo | None = None,
    settings: SandboxSettings = _DEFAULT,
) -> Decoder:
    """Open one source in a worker of its own, which ends with the decoder.

    As `open_decoder`, but for the time a worker takes to start; for many videos, use a
    `DecoderPool`. Frames that are decoded already need no worker.

    Args:
        source: from `open_source`.
        backend: "auto" chooses; a named backend never falls back.
        info: of an earlier `probe` of the same source, which saves another one.
        settings: the limits.

    Raises:
        SourceError, DecodeError, BackendMissingError, ConfigError: as `open_decoder`.
        ConfigError: for torchcodec, which needs torch.
        DecodeError: a limit, a hang or a crash.
        CapacityError: no worker can be started now.
    """
    if source.frames is not None:
        return open_decoder(source, backend=backend, info=info)
    _check_backend(backend)
    worker = WorkerProcess(settings, _OPENER)
    return SandboxedDecoder(worker, WorkerProcess.kill, source, backend, info)


def _check_backend(backend: BackendName) -> None:
    if backend == "torchcodec":
        raise ConfigError(
            "torchcodec needs torch, which the sandbox's workers do not load.",
            'reader="auto", or sandbox=False.',
        )


class DecoderPool:
    """Workers that decode many videos, for whatever runs unattended; any thread may use it.

    A worker is lent to one video at a time, from `open` to the decoder's `close`. It is replaced
    after a kill and after `settings.videos_per_worker` videos.

    Args:
        settings: the limits, and how many workers.
        opener: which function a worker opens sources with, "module:function".
    """

    def __init__(self, settings: SandboxSettings = _DEFAULT, *, opener: str = _OPENER) -> None:
        self._settings, self._opener = settings, opener
        self._changed = threading.Condition()
        self._idle: deque[WorkerProcess] = deque()
        self._num_lent = 0
        self._is_closed = False

    def __repr__(self) -> str:
        return f"DecoderPool({self._num_lent} of {self._settings.num_workers} workers are lent)"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def open(
        self, source: Source, *, backend: BackendName = "auto", info: VideoInfo | None = None
    ) -> Decoder:
        """Open a source in a worker, waiting for a free one.

        Raises:
            SourceError, DecodeError, BackendMissingError, ConfigError: as `open_decoder`.
            DecodeError: a limit, a hang or a crash.
            CapacityError: all workers are lent, or none can be started now.
            ConfigError: the pool is closed; for torchcodec, which needs torch.
        """
        if source.frames is not None:
            return open_decoder(source, backend=backend, info=info)
        _check_backend(backend)
        return SandboxedDecoder(self._lend(), self._take_back, source, backend, info)

    def close(self) -> None:
        """End the workers; those that are lent end with their decoders."""
        with self._changed:
            self._is_closed = True
            while self._idle:
                self._idle.pop().kill()
            self._changed.notify_all()

    def _lend(self) -> WorkerProcess:
        settings = self._settings
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_closed or self._num_lent < settings.num_workers,
                settings.wait_timeout_s,
            )
            if self._is_closed:
                raise ConfigError("the pool of decoders is closed.", "make another one.")
            if self._num_lent >= settings.num_workers:
                raise CapacityError(
                    f"all {settings.num_workers} decoding workers are busy, and none came free in "
                    f"{settings.wait_timeout_s:g} s.",
                    "close decoders that are done with, or pass SandboxSettings(num_workers=…).",
                )
            self._num_lent += 1
            worker = self._idle.popleft() if self._idle else None
        if worker is not None and worker.is_alive:
            return worker
        try:
            if worker is not None:
                worker.kill()  # died while nobody used it
            return WorkerProcess(settings, self._opener)
        except BaseException:
            self._take_back(None)
            raise

    def _take_back(self, worker: WorkerProcess | None) -> None:
        with self._changed:
            self._num_lent -= 1
            self._changed.notify_all()
            if worker is None:
                return
            is_spent = worker.num_videos >= self._settings.videos_per_worker
            if worker.is_alive and not is_spent and not self._is_closed:
                self._idle.append(worker)
                return
        worker.kill()
