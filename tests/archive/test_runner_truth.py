"""Five hundred clips whose pixels and times say which they are: no row has another one's answer."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from archive_runs import QUESTION, oracle, rows_in

from llava_video.api import LlavaVideo
from llava_video.archive.runner import run_archive
from llava_video.archive.settings import ArchiveSettings
from llava_video.archive.verify import verify
from llava_video.world.bars import paint_index
from llava_video.world.clip import write_clip

NUM_CLIPS = 500
FRAMES = 5
RATES_HZ = (1, 2, 4, 5)
WHOLE = "Describe all of it."


def indices(clip: int) -> list[int]:
    """Return what a clip's frames show: its own number twice over, so that no two are alike."""
    return [clip % 256, clip // 256, (7 * clip + 3) % 256, (clip + 100) % 256, clip % 251]


def rate_hz(clip: int) -> int:
    return RATES_HZ[clip % len(RATES_HZ)]


def span(clip: int) -> tuple[int, int]:
    """Return the frames that an entry asks of: every third entry leaves out the first and last."""
    return (1, FRAMES - 1) if clip % 3 == 2 else (0, FRAMES)


def truth(clip: int, start: int, stop: int) -> tuple[str, str]:
    """Return the oracle's answers to both questions about frames [start, stop) of a clip."""
    listed = ", ".join(map(str, indices(clip)[start:stop]))
    first_s, last_s = start / rate_hz(clip), (stop - 1) / rate_hz(clip)
    seen = f"{stop - start} frames from {first_s:.2f} s to {last_s:.2f} s show the indices"
    return listed, f"{seen} {listed}."


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a list of clips in another order than their files'."""
    folder = tmp_path_factory.mktemp("truth")
    lines: list[dict[str, Any]] = []
    for clip in range(NUM_CLIPS):
        frames = [paint_index(idx, 32, 64) for idx in indices(clip)]
        name = f"{(clip * 263) % NUM_CLIPS:03d}.mp4"
        options = {"preset": "ultrafast"}
        write_clip(folder / name, frames, frame_rate_hz=Fraction(rate_hz(clip)),
                   codec_options=options)  # fmt: skip
        line: dict[str, Any] = {"video": name, "name": f"clip {clip}"}
        start, stop = span(clip)
        if start:
            line |= {"start": start / rate_hz(clip), "end": stop / rate_hz(clip)}
        lines.append(line)
    path = folder / "clips.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.mark.slow
def test_five_hundred_clips_have_their_own_answers(
    manifest: Path, tiny_model: LlavaVideo, tmp_path: Path
) -> None:
    settings = ArchiveSettings(task="ask", prompts=(QUESTION, WHOLE), shard_units=64)
    summary = run_archive(
        manifest, tmp_path, settings=settings, model=oracle(tiny_model.spec), fps=8.0,
        max_new_tokens=128,
    )  # fmt: skip
    assert (summary.exit_status, summary.progress.done) == (0, NUM_CLIPS)
    rows = rows_in(tmp_path)
    assert [row["video"]["name"] for row in rows] == [f"clip {n}" for n in range(NUM_CLIPS)]
    for clip, row in enumerate(rows):
        first, second = row["answers"]
        start, stop = span(clip)
        assert (first["text"], second["text"]) == truth(clip, start, stop)
        times_s = [frame / rate_hz(clip) for frame in range(start, stop)]
        assert first["times_s"] == second["times_s"] == pytest.approx(times_s)
        assert first["start_s"] == pytest.approx(times_s[0])
    assert verify(tmp_path) == []


@pytest.mark.slow
def test_windows_of_a_hundred_clips_have_their_own_answers(
    manifest: Path, tiny_model: LlavaVideo, tmp_path: Path
) -> None:
    lines = [json.loads(line) for line in manifest.read_text().splitlines()[:100]]
    own = manifest.with_name("windows.jsonl")
    own.write_text("".join(json.dumps({"video": line["video"]}) + "\n" for line in lines))
    settings = ArchiveSettings(
        task="timeline", prompts=(WHOLE,), window_s=1.0, summary=False, sandbox=False
    )
    summary = run_archive(
        own, tmp_path, settings=settings, model=oracle(tiny_model.spec), fps=8.0,
        max_new_tokens=128,
    )  # fmt: skip
    assert summary.exit_status == 0
    for clip, row in enumerate(rows_in(tmp_path)):
        step = rate_hz(clip)
        starts = range(0, FRAMES, step)
        told = [truth(clip, start, min(start + step, FRAMES))[1] for start in starts]
        assert [answer["text"] for answer in row["answers"]] == told
        assert [answer["start_s"] for answer in row["answers"]] == [
            float(n) for n in range(len(told))
        ]
    assert len(list((tmp_path / "videos").glob("*.vtt"))) == 100
