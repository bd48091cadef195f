"""A thousand entries, a tenth of them bad in every way: each with its own class, no other hurt."""

import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from archive_runs import QUESTION, oracle, rows_in, truth, write_clips

from llava_video.api import LlavaVideo
from llava_video.archive.runner import run_archive
from llava_video.archive.settings import ArchiveSettings
from llava_video.archive.verify import verify
from llava_video.video.sandbox import DecoderPool
from llava_video.video.settings import SandboxSettings

NUM_ENTRIES, NUM_CLIPS = 1000, 50
STALL_S = 8.0


def damaged(path: Path) -> None:
    """Keep the container whole and nothing of the pictures."""
    whole = path.read_bytes()
    start = whole.index(b"mdat") + 4
    stop = whole.index(b"moov", start) - 4
    path.write_bytes(whole[:start] + bytes(stop - start) + whole[stop:])


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nowhere.mp4"))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def kept(_: Path) -> None:
    """What its name does to the decoding process is bad enough."""


# How a file is made bad, how many are, and what each of them ends with.
BAD: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "empty": (lambda path: path.write_bytes(b""), 12, "SourceError"),
    "text": (lambda path: path.write_bytes(b"no video at all " * 99 + path.name.encode()), 12,
             "SourceError"),
    "zeros": (lambda path: path.write_bytes(bytes(4000 + int(path.stem[:4]))), 12, "SourceError"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[: -900 - int(path.stem[:4]) // 10]), 12,
            "SourceError"),
    "damaged": (damaged, 12, "DecodeError"),
    "folder": (folder, 12, "SourceError"),
    "dangling": (dangling, 12, "SourceError"),
    "pipe": (pipe, 6, "SourceError"),
    "poison": (kept, 6, "WorkerCrashed"),
    "hang": (kept, 4, "WorkerCrashed"),
}  # fmt: skip
# One in ten entries, one class after the other.
PLAN = dict(
    zip(
        range(3, NUM_ENTRIES, 10),
        [name for name, (_, count, _) in BAD.items() for _ in range(count)],
        strict=True,
    )
)


@pytest.fixture
def entries(tmp_path: Path) -> Path:
    """Return a list of a thousand files, no two with the same bytes."""
    clips = write_clips(tmp_path / "clips", NUM_CLIPS)
    files = tmp_path / "files"
    files.mkdir()
    lines: list[dict[str, str]] = []
    for number in range(NUM_ENTRIES):
        name = f"{number:04d}-{PLAN.get(number, 'good')}.mp4"
        # A box that readers skip makes the bytes its own.
        box = (16).to_bytes(4, "big") + b"free" + number.to_bytes(8, "big")
        (files / name).write_bytes(clips[number % NUM_CLIPS].read_bytes() + box)
        if number in PLAN:
            BAD[PLAN[number]][0](files / name)
        lines.append({"video": str(files / name)})
    shutil.rmtree(tmp_path / "clips")
    path = tmp_path / "inputs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes are POSIX's")
def test_a_tenth_is_bad_and_every_one_says_how(
    entries: Path, tiny_model: LlavaVideo, tmp_path: Path
) -> None:
    settings = ArchiveSettings(task="ask", prompts=(QUESTION,), in_flight=4, shard_units=300)
    limits = SandboxSettings(num_workers=4, stall_timeout_s=STALL_S)
    with DecoderPool(limits, opener="archive_stubs:open_unless_poison") as pool:
        summary = run_archive(
            entries, tmp_path / "out", settings=settings, model=oracle(tiny_model.spec),
            sandbox=pool, max_new_tokens=64,
        )  # fmt: skip
    rows = rows_in(tmp_path / "out")
    found = {row["number"]: row["error"]["kind"] for row in rows if row["error"]}
    assert found == {number: BAD[name][2] for number, name in PLAN.items()}
    assert summary.progress.failures == Counter(found.values())
    assert (summary.exit_status, summary.progress.done) == (3, NUM_ENTRIES - len(PLAN))
    quarantined = [row["number"] for row in rows if row["status"] == "quarantined"]
    assert quarantined == [n for n, name in PLAN.items() if name in ("poison", "hang")]
    for row in rows:
        if row["number"] not in PLAN:
            assert row["answers"][0]["text"] == truth(row["number"] % NUM_CLIPS)
    assert verify(tmp_path / "out") == []
