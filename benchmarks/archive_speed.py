"""How many clips an hour does an archive make, beside a plain loop over `describe_video`?

Two cases, runs taken in turn. Describing clips of the small world with the demo model, which writes
most of the time: the loop has the loaded model and one video; an archive has eight videos under
way, which share the steps of that same model; and an archive of worker processes has eight in each,
one for each core, their start and the loading of their models in its time. And 1080p footage with a
stand-in for the model that takes every frame and answers at once: the archive beside the frame path
by itself, which opens, plans and decodes the same frames of the same files in the same processes,
and does nothing else. Good: at least 2 x the loop with workers; at least 0.95 of the frame path.

    python benchmarks/archive_speed.py [--clips 256] [--films 16] [--repeats 2] [--in-flight 8]
        [--workers 2] [--append] [--check]
"""

import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from footage import write_footage
from harness import Timing, interleaved, parser_of, ratio, report
from seeing import seen

from llava_video.api import LlavaVideo, describe_video, load
from llava_video.archive.hands import NamedModel
from llava_video.archive.runner import run_archive
from llava_video.archive.settings import ArchiveSettings
from llava_video.archive.shards import iter_rows
from llava_video.cores import num_cores
from llava_video.engine.request import Event, Request
from llava_video.exchange import open_exchange
from llava_video.options import Options, settings_of
from llava_video.video.sandbox import DecoderPool
from llava_video.video.settings import SandboxSettings
from llava_video.world.dataset import write_world

MIN_RATIO, MIN_SHARE = 2.0, 0.95
_CAPTION = "Describe the video in detail."
# As the demo model was trained; and 32 frames of a film of ten seconds.
_CLIP_OPTIONS: Options = {"fps": 2.0, "max_frames": 24, "max_new_tokens": 128}
_FILM_OPTIONS: Options = {"num_frames": 32, "max_new_tokens": 1}


class Taker:
    """An engine that takes all frames of a request and answers at once; an `Engine`."""

    def run(self, requests: Iterable[Request]) -> Iterator[Event]:
        """Answer requests one after another."""
        for request in requests:
            take(request)
            yield seen(request)


def take(request: Request) -> int:
    """Draw every frame of a request; return how many there were."""
    return sum(len(clip.frames) for visual in request.visuals for clip in visual.clips())


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 where the archive is too slow."""
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="demo", help="of the clips")
    parser.add_argument("--clips", type=int, default=256)
    parser.add_argument("--films", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--workers", type=int, default=num_cores())
    asked = parser.parse_args(arguments)
    if asked.check:
        asked.clips, asked.films, asked.repeats, asked.in_flight = 3, 2, 1, 2
        asked.workers = 1
    with tempfile.TemporaryDirectory() as scratch, load(asked.model, device="cpu") as model:
        clips = clips_case(model, Path(scratch), asked)
        films = films_case(model, Path(scratch), asked)
    row = {
        "clips": clips,
        "films": films,
        "in_flight": asked.in_flight,
        "workers": asked.workers,
        "check": asked.check,
    }
    for name, case, what in (("clips", clips, "a plain loop"), ("films", films, "the frame path")):
        for ours, per_h in case["per_h"].items():
            if ours != "beside":
                print(f"{name}, {ours}: {per_h:,.0f} an hour, {case['ratio'][ours]:.2f} x {what}'s "
                      f"{case['per_h']['beside']:,.0f} ({case['ratio_of_best'][ours]:.2f} of the "
                      "best)")  # fmt: skip
    report("archive_speed", row, append=asked.append)
    is_good = clips["ratio"]["workers"] >= MIN_RATIO and films["ratio"]["archive"] >= MIN_SHARE
    return 0 if is_good or asked.check else 1


def clips_case(model: LlavaVideo, folder: Path, asked: Any) -> dict[str, Any]:
    """Describe clips of the small world by archives and by a loop; all must say the same."""
    write_world(folder / "clips", asked.clips, split="heldout", seed=0)
    paths = sorted((folder / "clips/videos").iterdir())
    said: list[str] = []

    def loop() -> None:
        answers = [describe_video(p, _CAPTION, model=model, **_CLIP_OPTIONS) for p in paths]
        said[:] = [answer.text for answer in answers]

    plain = ArchiveSettings(prompts=(_CAPTION,), in_flight=asked.in_flight)
    named = NamedModel(asked.model, {"device": "cpu"})
    crowd = replace(plain, workers=asked.workers)
    contenders = {
        "beside": loop,
        "archive": archives_of(model, paths, folder / "archive", plain, _CLIP_OPTIONS),
        "workers": archives_of(named, paths, folder / "workers", crowd, _CLIP_OPTIONS),
    }
    row = compared(contenders, asked, len(paths))
    for name in ("archive", "workers"):
        told = [row["answers"][0]["text"] for row in iter_rows(folder / name / "0")]
        row[f"same_answers_of_{name}"] = sum(map(str.__eq__, said, told))
    return row | {"clips": len(paths)}


def films_case(model: LlavaVideo, folder: Path, asked: Any) -> dict[str, Any]:
    """Take the frames of 1080p films by an archive, and by the frame path alone."""
    films = folder / "films"
    films.mkdir()
    seconds = 2 if asked.check else 10
    first = write_footage(films / "000.mp4", seconds=seconds, gop_frames=60, clip_s=seconds)
    for number in range(1, asked.films):
        # Other bytes, the same pictures: what was hashed before would not be worked again.
        (films / f"{number:03d}.mp4").write_bytes(first.read_bytes() + bytes([number]))
    paths = sorted(films.iterdir())
    taking = LlavaVideo(model.spec, Taker())
    with DecoderPool(SandboxSettings(num_workers=asked.in_flight)) as pool:
        settings = settings_of({**_FILM_OPTIONS, "sandbox": pool})

        def take_one(path: Path) -> int:
            with open_exchange(model.spec, str(path), _CAPTION, settings) as exchange:
                return take(exchange.request())

        def frame_path() -> None:
            with ThreadPoolExecutor(asked.in_flight) as threads:
                taken = list(threads.map(take_one, paths))
            if set(taken) != {32}:
                raise RuntimeError(f"{taken} frames")

        # Processes that are there already: their start is once for a run, however long.
        options: Options = {**_FILM_OPTIONS, "sandbox": pool}
        plain = ArchiveSettings(prompts=(_CAPTION,), in_flight=asked.in_flight)
        runs = archives_of(taking, paths, folder / "film_runs", plain, options)
        contenders = {"beside": frame_path, "archive": runs}
        return compared(contenders, asked, len(paths)) | {"films": len(paths)}


def archives_of(
    model: LlavaVideo | NamedModel,
    paths: Sequence[Path],
    folder: Path,
    settings: ArchiveSettings,
    options: Options,
) -> Callable[[], None]:
    """Return a function that runs a new archive each time, in folders 0, 1, …."""
    numbers = count()

    def run() -> None:
        out = folder / str(next(numbers))
        summary = run_archive(list(paths), out, settings=settings, model=model, **options)
        if summary.exit_status:
            raise RuntimeError(summary.progress.line)

    return run


def compared(
    contenders: dict[str, Callable[[], None]], asked: Any, num_videos: int
) -> dict[str, Any]:
    """Time them in turn; ratios are to what is "beside"."""
    timings = interleaved(contenders, warm_up=1, repeats=asked.repeats, budget_s=3600)
    theirs = timings["beside"]
    ours = {name: timing for name, timing in timings.items() if name != "beside"}
    return {
        "ratio": {name: ratio(theirs, timing) for name, timing in ours.items()},
        "ratio_of_best": {name: theirs.best_s / timing.best_s for name, timing in ours.items()},
        "per_h": {name: _per_hour(num_videos, timing) for name, timing in timings.items()},
        "timings": {name: timing.to_json() for name, timing in timings.items()},
    }


def _per_hour(num_videos: int, timing: Timing) -> float:
    return 3600 * num_videos / timing.p50_s


if __name__ == "__main__":
    sys.exit(main())
