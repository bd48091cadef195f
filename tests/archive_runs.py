"""Archives for tests: clips whose truth is known, an engine that reads it, and what a run left."""

import json
import os
import signal
import time
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from llava_video.api import LlavaVideo
from llava_video.archive.row import content_of, read_row
from llava_video.archive.settings import ArchiveSettings, Task
from llava_video.archive.shards import sealed
from llava_video.engine.oracle import OracleEngine
from llava_video.engine.request import Event, Failed, Finished, Request
from llava_video.model.spec import ModelSpec, read_spec
from llava_video.world.bars import paint_index
from llava_video.world.clip import write_clip

FRAMES = 4
_POISON = 5
QUESTION = "Which indices are shown?"


def first_index(clip: int) -> int:
    """Return the index that a clip's first frame shows; no two of 63 clips share any."""
    return clip * FRAMES


def truth(clip: int) -> str:
    """Return the oracle's answer to `QUESTION` of a clip."""
    return ", ".join(str(first_index(clip) + frame) for frame in range(FRAMES))


def write_clips(folder: Path, num_clips: int) -> list[Path]:
    """Write clips 000.mp4, 001.mp4, … of four frames, one a second."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{clip:03d}.mp4" for clip in range(num_clips)]
    for clip, path in enumerate(paths):
        frames = [paint_index(first_index(clip) + frame, 32, 64) for frame in range(FRAMES)]
        write_clip(path, frames, frame_rate_hz=Fraction(1), codec_options={"preset": "ultrafast"})
    return paths


def oracle(spec: ModelSpec) -> LlavaVideo:
    """Return a model that answers from the truth."""
    return LlavaVideo(spec, OracleEngine(spec.tokenizer))


class Slow:
    """The oracle, which takes its time for every answer, s."""

    def __init__(self, spec: ModelSpec, seconds: float) -> None:
        self._oracle, self._seconds = OracleEngine(spec.tokenizer), seconds

    def __init_subclass__(cls) -> None:
        cls.__name__ = OracleEngine.__name__

    def run(self, requests: Iterable[Request]) -> Iterator[Event]:
        """See `Engine`."""
        for event in self._oracle.run(requests):
            if isinstance(event, Finished):
                time.sleep(self._seconds)
            yield event


# A run goes on only with the kind of engine that it was begun with.
Slow.__name__ = OracleEngine.__name__


class Deadly(Slow):
    """The slow oracle, which kills its process when it is asked about poison."""

    def __init__(self, spec: ModelSpec, seconds: float) -> None:
        super().__init__(spec, seconds)
        self._decode = spec.tokenizer.decode

    def run(self, requests: Iterable[Request]) -> Iterator[Event]:
        """See `Engine`."""

        def tasted() -> Iterator[Request]:
            for request in requests:
                if "poison" in self._decode(request.text_ids):
                    os.kill(os.getpid(), signal.SIGKILL)
                yield request

        return super().run(tasted())


def slow_model(checkpoint: Path, seconds: float) -> LlavaVideo:
    """Load the slow oracle, wherever it is wanted."""
    spec = read_spec(checkpoint)
    return LlavaVideo(spec, Deadly(spec, seconds))


class Sick(Slow):
    """The oracle on a device that breaks at the first request, as long as a file is not there."""

    def __init__(self, spec: ModelSpec, healed: Path) -> None:
        super().__init__(spec, 0.0)
        self._healed, self._is_broken = healed, not healed.exists()

    def run(self, requests: Iterable[Request]) -> Iterator[Event]:
        """See `Engine`."""
        if self._is_broken:
            self._healed.write_text("the next process is well")
            for request in requests:
                error = RuntimeError("CUDA error: an illegal memory access was encountered")
                yield Failed(request.request_id, error)
        else:
            yield from super().run(requests)


def sick_model(checkpoint: Path, healed: Path) -> LlavaVideo:
    """Load the oracle on a device that is broken for the first process."""
    spec = read_spec(checkpoint)
    return LlavaVideo(spec, Sick(spec, healed))


class Joint(Slow):
    """The slow oracle, which answers nothing before several processes have loaded it."""

    def __init__(self, spec: ModelSpec, seconds: float, loaded: Path, number: int) -> None:
        super().__init__(spec, seconds)
        self._loaded, self._number = loaded, number
        (loaded / str(os.getpid())).touch()

    def run(self, requests: Iterable[Request]) -> Iterator[Event]:
        """See `Engine`."""
        until_s = time.monotonic() + 60
        while len(list(self._loaded.iterdir())) < self._number:
            assert time.monotonic() < until_s, "alone"
            time.sleep(0.02)
        yield from super().run(requests)


def joint_model(checkpoint: Path, seconds: float, loaded: Path, number: int) -> LlavaVideo:
    """Load the oracle that waits for the same in other processes, which a folder tells of."""
    spec = read_spec(checkpoint)
    return LlavaVideo(spec, Joint(spec, seconds, loaded, number))


def endless_model() -> LlavaVideo:
    """Load for a minute, as a large model does."""
    time.sleep(60)
    raise AssertionError("nobody waits so long")


def poisoned_list(clips: Path, path: Path, num_clips: int) -> Path:
    """Write a list of the first clips, of which one asks what kills `slow_model`'s process."""
    lines = [{"video": str(clips / f"{number:03d}.mp4")} for number in range(num_clips)]
    lines[_POISON]["prompt"] = f"poison! {QUESTION}"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def assert_only_poison_is_quarantined(out: Path) -> None:
    """See that the run of a poisoned list gave up that entry, after two tries, and no other."""
    for number, row in enumerate(rows_in(out)):
        if number == _POISON:
            assert (row["status"], row["run"]["attempts"]) == ("quarantined", 2)
        else:
            assert row["answers"][0]["text"] == truth(number)


def rows_in(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's sealed shards, in order."""
    return [read_row(line) for path in sealed(folder) for line in path.read_bytes().splitlines()]


def contents_in(folder: Path) -> str:
    """Return the rows' text without times and machines."""
    return "\n".join(json.dumps(content_of(row), sort_keys=True) for row in rows_in(folder))


def run_slowly(checkpoint: Path, clips: Path, out: Path, sandbox: bool, task: Task = "ask") -> None:
    """Ask every clip for its indices, slowly enough to be killed meanwhile; for a child process.

    A timeline's tracks and Parquet twins are written too.
    """
    from llava_video.archive.runner import run_archive

    spec = read_spec(checkpoint)
    more: dict[str, Any] = {}
    if task == "timeline":
        more = {"window_s": 2.0, "summary": False, "parquet": True}
    settings = ArchiveSettings(
        task=task, prompts=(QUESTION,), sandbox=sandbox, in_flight=4, shard_units=16, **more
    )
    model = LlavaVideo(spec, Slow(spec, 0.02))
    run_archive(clips, out, settings=settings, model=model, max_new_tokens=64)


def run_poisoned(checkpoint: Path, manifest: Path, out: Path) -> None:
    """Work a list of which an entry may kill this very process; for a child process."""
    from llava_video.archive.runner import run_archive

    settings = ArchiveSettings(task="ask", prompts=(QUESTION,), sandbox=False, in_flight=3)
    run_archive(
        manifest, out, settings=settings, model=slow_model(checkpoint, 0.0), max_new_tokens=64
    )


def command_slowly(arguments: list[str], seconds: float) -> None:
    """Run the command line with the oracle in place of a model; for a child process."""
    import sys
    from contextlib import contextmanager

    from llava_video.cli import archive
    from llava_video.cli.main import main

    @contextmanager
    def load_slow(_: Any, named: Any) -> Iterator[LlavaVideo]:
        spec = read_spec(named["model"])
        yield LlavaVideo(spec, Slow(spec, seconds))

    archive.load_model = load_slow  # type: ignore[assignment]  # a stand-in
    sys.exit(main(arguments))


def command_without_room(arguments: list[str], most_bytes: int, said: Path) -> None:
    """Run the command line where no file may grow beyond a size; for a child process.

    Args:
        arguments: of the command.
        most_bytes: of any file, as a full disk would have it.
        said: gets what the command writes to stderr.
    """
    import os
    import resource
    import sys

    sys.stderr.flush()
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT, 0o644), 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    command_slowly(arguments, 0.0)
