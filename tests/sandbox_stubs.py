"""Openers that a sandbox's worker is told to use in tests: each misbehaves in its own way.

Named to the worker as "sandbox_stubs:hangs". Decoders that misbehave give two true frames first.
"""

import ctypes
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from llava_video.errors import BackendMissingError, DecodeError
from llava_video.values import Clip
from llava_video.video import decoder as decoder_module
from llava_video.video.container import open_container, packets_of

GOOD_FRAMES = 2


class Misbehaving:
    """A true decoder that does something else after two frames."""

    def __init__(self, source: Any, backend: Any, info: Any, then: Callable[[Any], Any]) -> None:
        self._decoder = decoder_module.open_decoder(source, backend="pyav", info=info)
        self.info, self._then, self._source = self._decoder.info, then, source
        self.backend, self.reason = "stub", "a test."

    def clips_at(self, times_s: Sequence[float], *, chunk_frames: int = 8) -> Iterator[Clip]:
        clips = self._decoder.clips_at(times_s, chunk_frames=chunk_frames)
        for num, clip in enumerate(clips):
            if num == GOOD_FRAMES:
                time.sleep(0.3)  # both are on their way by then
                self._then(self._source)
            yield clip

    def close(self) -> None:
        self._decoder.close()


def _after_two(then: Callable[[Any], Any]) -> Callable[..., Misbehaving]:
    def open_stub(source: Any, *, backend: Any, info: Any = None) -> Misbehaving:
        return Misbehaving(source, backend, info, then)

    return open_stub


def _sleep_in_c(_: Any) -> None:
    # PyDLL keeps the interpreter's lock: no thread of this process can do anything.
    ctypes.PyDLL(None).sleep(1000)


def _busy(_: Any) -> None:
    while True:
        pass


def _crash(_: Any) -> None:
    ctypes.string_at(0)


def _allocate(_: Any) -> None:
    held = []
    while True:
        held.append(np.ones(2**20))


def _walk_for_ever(source: Any) -> None:
    while True:
        with open_container(source) as container:
            for _ in packets_of(container, [container.streams.video[0]]):
                pass


def _read_for_ever(source: Any) -> None:
    # In gusts: a loop that never waits has kept a machine of two cores from counting what it read.
    while True:
        for _ in range(50):
            Path(source.path).read_bytes()
        time.sleep(0.001)


def _fail(_: Any) -> None:
    raise KeyError("nobody thought of this")


def _refuse(_: Any) -> None:
    raise DecodeError("no more.", "stop here.", pts_s=0.5)


def _missing(_: Any) -> None:
    raise BackendMissingError("av went away.", "pip install av")


sleeps_in_c = _after_two(_sleep_in_c)
is_busy = _after_two(_busy)
aborts = _after_two(lambda _: os.abort())
crashes = _after_two(_crash)
exits = _after_two(lambda _: os._exit(7))
is_killed = _after_two(lambda _: os.kill(os.getpid(), 9))
allocates = _after_two(_allocate)
walks_for_ever = _after_two(_walk_for_ever)
reads_for_ever = _after_two(_read_for_ever)
fails = _after_two(_fail)
refuses = _after_two(_refuse)
misses = _after_two(_missing)


def hangs_at_once(source: Any, *, backend: Any, info: Any = None) -> Any:
    time.sleep(1000)


def crashes_at_once(source: Any, *, backend: Any, info: Any = None) -> Any:
    os.abort()


def lies_about_the_size(source: Any, *, backend: Any, info: Any = None) -> Any:
    """Tell of frames of a terapixel, past the worker's own check."""
    from llava_video.video.sandbox_channel import pack_info

    true = decoder_module.open_decoder(source, backend="pyav").info
    facts, arrays = pack_info(replace(true, height_px=10**6, width_px=10**6))
    answer = {"is": "opened", "info": facts, "backend": "stub", "reason": "a test."}
    _line().send(answer, arrays)
    time.sleep(1000)


def gives_nothing(source: Any, *, backend: Any, info: Any = None) -> Any:
    stub = Misbehaving(source, backend, info, lambda _: None)
    stub.clips_at = lambda times_s, chunk_frames=8: iter(())  # type: ignore[method-assign]
    return stub


def tells(source: Any, *, backend: Any, info: Any = None) -> Any:
    """Say in `reason` what the worker is like."""
    stub = Misbehaving(source, backend, info, lambda _: None)
    stub.reason = json.dumps(
        {
            "modules": sorted({name.split(".")[0] for name in sys.modules}),
            "main": sorted(vars(sys.modules["__main__"])),
            "pid": os.getpid(),
            "session": os.getsid(0),
            "status": Path("/proc/self/status").read_text(),
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        }
    )
    return stub


def by_content(source: Any, *, backend: Any, info: Any = None) -> Any:
    """Behave as a file's name says: hang.mp4 hangs, crash.mp4 crashes, others are read."""
    stem = Path(source.name).stem
    opener = {"hang": sleeps_in_c, "crash": crashes, "fail": fails}.get(stem)
    if opener is None:
        return decoder_module.open_decoder(source, backend=backend, info=info)
    return opener(source, backend=backend, info=info)


def _line() -> Any:
    """Return the worker's own line to its parent."""
    import gc

    from llava_video.video.sandbox_channel import Channel

    return next(found for found in gc.get_objects() if isinstance(found, Channel))


def _flood_pulses(_: Any) -> None:
    line = _line()
    while True:
        line.send({"is": "pulse"})


def _flood_bytes(_: Any) -> None:
    line = _line()._line
    while True:
        line.sendall(b"\xff" * 65536)


def _send(**values: Any) -> Callable[[Any], None]:
    def then(_: Any) -> None:
        _line().send(values)
        time.sleep(1000)

    return then


floods_pulses = _after_two(_flood_pulses)
floods_bytes = _after_two(_flood_bytes)
lies_about_the_frame = _after_two(_send(**{"is": "frame", "idx": 10**6}))
ends_without_a_word = _after_two(_send(**{"is": "end"}))
says_something_else = _after_two(_send(**{"is": "opened"}))
