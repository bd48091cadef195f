"""A folder, a number of clips and a seed → videos and their LLaVA data file.

A clip depends on split, seed and number alone, and appears whole or not at all. So a run that was
stopped goes on where it was, a longer run keeps what is there, and several runs may share a folder.
"""

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

from llava_video.config import to_mapping
from llava_video.errors import ConfigError
from llava_video.files import replacing
from llava_video.world.clip import write_clip
from llava_video.world.example import make_example, records
from llava_video.world.render import iter_frames
from llava_video.world.settings import WorldSettings
from llava_video.world.splits import split_settings

_FACTS = "world.json"
# Without the last one two runs on one machine now and then differ in a few bytes.
_CODEC = {"preset": "veryfast", "x264-params": "cpu-independent=1"}


def write_world(
    folder: str | os.PathLike[str],
    num_clips: int,
    *,
    split: str = "train",
    seed: int = 0,
    settings: WorldSettings | None = None,
    num_workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a data set.

    Args:
        folder: where to; made when it is not there. Gets `videos/`, `records/` (a file a clip, its
            records) and `<split>.jsonl`, which is written last.
        num_clips: how many, >= 1.
        split: names the draws and the data file; without `settings` also what clips are like.
        seed: another one gives other clips.
        settings: what clips are like instead.
        num_workers: processes that draw and encode.
        progress: called with clips done and clips wanted.

    Returns:
        The data file.

    Raises:
        ConfigError: no clips wanted, or the folder holds clips of other settings.
        BackendMissingError: without PyAV.
    """
    if num_clips < 1 or num_workers < 1:
        raise ConfigError(
            f"num_clips = {num_clips}, num_workers = {num_workers}.", "each at least 1."
        )
    folder = Path(folder)
    settings = split_settings(split) if settings is None else settings
    for name in ("videos", "records"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    _claim(folder, {"split": split, "seed": seed, "settings": to_mapping(settings)})
    missing = [idx for idx in range(num_clips) if not _record_path(folder, idx).is_file()]
    jobs = [(folder, settings, split, seed, idx) for idx in missing]
    num_done = num_clips - len(missing)
    for _ in _run(jobs, num_workers):
        num_done += 1
        if progress is not None:
            progress(num_done, num_clips)
    path = folder / f"{split}.jsonl"
    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        for idx in range(num_clips):
            file.write(_record_path(folder, idx).read_text(encoding="utf-8"))
    return path


def read_records(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Yield the records of a data file that `write_world` wrote."""
    with Path(path).open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _record_path(folder: Path, idx: int) -> Path:
    return folder / "records" / f"{idx:06d}.jsonl"


def _claim(folder: Path, facts: dict[str, Any]) -> None:
    """Write down what the folder's clips are, or see that it is the same.

    Raises:
        ConfigError: it holds others; with the first difference.
    """
    path = folder / _FACTS
    if not path.is_file():
        with replacing(path) as unfinished:
            unfinished.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    wanted = json.loads(json.dumps(facts))
    for name in ("split", "seed"):
        if found.get(name) != wanted[name]:
            raise _other(folder, name, found.get(name), wanted[name])
    for name, value in wanted["settings"].items():
        if found["settings"].get(name) != value:
            raise _other(folder, name, found["settings"].get(name), value)


def _other(folder: Path, name: str, found: object, wanted: object) -> ConfigError:
    return ConfigError(
        f"{folder} holds clips of {name} = {found!r}, not {wanted!r}.",
        "give a new folder, or the settings in its world.json.",
    )


def _run(jobs: list[tuple[Path, WorldSettings, str, int, int]], num_workers: int) -> Iterator[None]:
    if num_workers == 1 or len(jobs) < 2:
        yield from map(_write_one, jobs)
        return
    context = multiprocessing.get_context("spawn")  # threads of this process are not copied
    with ProcessPoolExecutor(num_workers, mp_context=context) as pool:
        yield from pool.map(_write_one, jobs, chunksize=8)


def _write_one(job: tuple[Path, WorldSettings, str, int, int]) -> None:
    """Write one clip, its records last: they say that it is whole."""
    folder, settings, split, seed, idx = job
    example = make_example(settings, split, seed, idx)
    scene, video = example.scene, f"videos/{idx:06d}.mp4"
    with replacing(folder / video) as unfinished:
        write_clip(
            unfinished,
            iter_frames(scene),
            frame_rate_hz=Fraction(scene.rate_hz).limit_denominator(1000),
            codec_options={"crf": str(scene.crf), **_CODEC},
        )
    name = f"{split}-{seed}-{idx:06d}"
    lines = [json.dumps(record, ensure_ascii=False) for record in records(example, name, video)]
    with replacing(_record_path(folder, idx)) as unfinished:
        unfinished.write_text("\n".join(lines) + "\n", encoding="utf-8")
