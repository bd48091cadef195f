"""Every unit ends in one row, the right one, whatever is broken and whoever stops the run."""

import dataclasses
import json
import os
import shutil
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from archive_runs import (
    QUESTION,
    Slow,
    contents_in,
    oracle,
    rows_in,
    truth,
    write_clips,
)

from llava_video.api import LlavaVideo
from llava_video.archive.progress import ArchiveProgress
from llava_video.archive.runner import RunSummary, run_archive
from llava_video.archive.settings import ArchiveSettings
from llava_video.archive.work import Outcome, Worker
from llava_video.errors import CapacityError, ConfigError, LedgerBusyError
from llava_video.video.sandbox import DecoderPool
from llava_video.video.settings import SandboxSettings

NUM_CLIPS = 60
ASK = ArchiveSettings(task="ask", prompts=(QUESTION,), sandbox=False, in_flight=4, shard_units=16)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of clips; read only."""
    folder = tmp_path_factory.mktemp("archive") / "clips"
    write_clips(folder, NUM_CLIPS)
    return folder


@pytest.fixture
def model(tiny_model: LlavaVideo) -> LlavaVideo:
    return oracle(tiny_model.spec)


def run(
    inputs: Any, out: Path, model: Any, settings: ArchiveSettings = ASK, **more: Any
) -> RunSummary:
    return run_archive(inputs, out, settings=settings, model=model, max_new_tokens=64, **more)


def never_loaded() -> LlavaVideo:
    raise AssertionError("a model was loaded")


def test_every_row_has_its_own_answer(clips: Path, model: LlavaVideo, tmp_path: Path) -> None:
    told: list[ArchiveProgress] = []
    summary = run(clips, tmp_path / "out", model, on_progress=told.append)
    assert (summary.exit_status, summary.interrupted) == (0, False)
    assert (summary.progress.done, summary.progress.total) == (NUM_CLIPS, NUM_CLIPS)
    assert told[-1] == summary.progress
    rows = rows_in(tmp_path / "out")
    assert [row["number"] for row in rows] == list(range(NUM_CLIPS))
    for number, row in enumerate(rows):
        assert row["status"] == "done"
        assert row["video"]["address"] == str(clips / f"{number:03d}.mp4")
        (answer,) = row["answers"]
        assert (answer["prompt"], answer["text"]) == (QUESTION, truth(number))
        assert answer["times_s"] == [0.0, 1.0, 2.0, 3.0]
    names = sorted(path.name for path in (tmp_path / "out" / "rows").iterdir())
    assert names == [f"0000{shard}.jsonl" for shard in range(4)]


def test_a_finished_run_asks_nothing_again(clips: Path, model: LlavaVideo, tmp_path: Path) -> None:
    some = f"{clips}/00*.mp4"
    run(some, tmp_path / "out", model)
    before = contents_in(tmp_path / "out")
    asked = Counting(model)
    summary = run(some, tmp_path / "out", asked.model)
    assert (summary.exit_status, asked.prompts) == (0, [])
    assert contents_in(tmp_path / "out") == before


def test_moved_files_cost_nothing_and_have_their_new_names(
    clips: Path, model: LlavaVideo, tmp_path: Path
) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    for number in range(20):
        shutil.copy(clips / f"{number:03d}.mp4", folder)
    run(folder, tmp_path / "out", model)
    folder.rename(tmp_path / "new")
    asked = Counting(model)
    run(tmp_path / "new", tmp_path / "out", asked.model)
    assert asked.prompts == []
    rows = rows_in(tmp_path / "out")
    assert [row["video"]["address"] for row in rows] == [
        str(tmp_path / "new" / f"{number:03d}.mp4") for number in range(20)
    ]
    assert all(row["answers"][0]["text"] == truth(n) for n, row in enumerate(rows))


def test_another_prompt_redoes_what_it_is_asked_of(
    clips: Path, model: LlavaVideo, tmp_path: Path
) -> None:
    lines = [{"video": str(clips / f"{number:03d}.mp4")} for number in range(8)]
    lines[3]["prompt"] = "How many frames?"
    manifest = manifest_of(tmp_path, lines)
    run(manifest, tmp_path / "out", model)
    lines[5]["prompt"] = "What is the first index?"
    asked = Counting(model)
    run(manifest_of(tmp_path, lines), tmp_path / "out", asked.model)
    assert len(asked.prompts) == 1
    texts = [row["answers"][0]["text"] for row in rows_in(tmp_path / "out")]
    wanted = [truth(number) for number in range(8)]
    wanted[3], wanted[5] = "4", "20"
    assert texts == wanted

    # The task's own prompt is asked of the entries that have none.
    other = ArchiveSettings(
        task="ask", prompts=("What is the last index?",), sandbox=False, shard_units=16
    )
    again = Counting(model)
    run(manifest, tmp_path / "out", again.model, other)
    assert len(again.prompts) == 6
    texts = [row["answers"][0]["text"] for row in rows_in(tmp_path / "out")]
    assert texts == ["3", "7", "11", "4", "19", "20", "27", "31"]


def test_duplicates_are_worked_once(clips: Path, model: LlavaVideo, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    for name, clip in (("a", 1), ("b", 2), ("c", 1), ("d", 1)):
        shutil.copy(clips / f"{clip:03d}.mp4", folder / f"{name}.mp4")
    asked = Counting(model)
    summary = run(folder, tmp_path / "out", asked.model)
    assert len(asked.prompts) == 2
    assert (summary.exit_status, summary.progress.duplicates) == (0, 2)
    rows = rows_in(tmp_path / "out")
    assert [row["status"] for row in rows] == ["done", "done", "duplicate", "duplicate"]
    assert [row["duplicate_of"] for row in rows] == [None, None, 0, 0]
    assert rows[3]["video"]["address"].endswith("d.mp4")


def test_bad_files_are_named_with_their_class(
    clips: Path, model: LlavaVideo, tmp_path: Path
) -> None:
    folder = tmp_path / "clips"
    shutil.copytree(clips, folder)
    whole = (folder / "007.mp4").read_bytes()
    (folder / "003.mp4").write_bytes(b"")
    (folder / "013.mp4").write_bytes(b"no video at all" * 100)
    (folder / "023.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "033.mp4").unlink()
    (folder / "033.mp4").mkdir()
    (folder / "043.mp4").unlink()
    (folder / "043.mp4").symlink_to(folder / "nowhere.mp4")
    (folder / "053.mp4").write_bytes(bytes(5000))
    bad = {3, 13, 23, 33, 43, 53}
    lines = [{"video": str(folder / f"{number:03d}.mp4")} for number in range(NUM_CLIPS)]
    settings = ArchiveSettings(task="ask", prompts=(QUESTION,), in_flight=4)
    summary = run(manifest_of(tmp_path, lines), tmp_path / "out", model, settings)
    assert summary.exit_status == 3
    assert (summary.progress.done, summary.progress.failed) == (NUM_CLIPS - 6, 6)
    rows = rows_in(tmp_path / "out")
    failed = {row["number"]: row["error"] for row in rows if row["status"] == "failed"}
    assert set(failed) == bad
    assert {error["kind"] for error in failed.values()} == {"SourceError"}
    assert all(error["message"] for error in failed.values())
    assert Counter(e["kind"] for e in failed.values()) == Counter(summary.progress.failures)
    assert all(r["answers"][0]["text"] == truth(n) for n, r in enumerate(rows) if n not in bad)


def test_what_kills_its_decoder_twice_is_quarantined(
    clips: Path, model: LlavaVideo, tmp_path: Path
) -> None:
    limits = SandboxSettings(num_workers=4)
    with DecoderPool(limits, opener="archive_stubs:open_unless_poison") as pool:
        folder = tmp_path / "clips"
        folder.mkdir()
        for number in range(6):
            name = "poison" if number == 2 else str(number)
            shutil.copy(clips / f"{number:03d}.mp4", folder / f"{name}.mp4")
        summary = run(folder, tmp_path / "out", model, sandbox=pool)
    assert (summary.exit_status, summary.progress.quarantined, summary.progress.done) == (3, 1, 5)
    assert summary.progress.failures == {"WorkerCrashed": 1}
    (row,) = [row for row in rows_in(tmp_path / "out") if row["status"] == "quarantined"]
    assert row["video"]["name"] == "poison.mp4"
    assert row["run"]["attempts"] == 2


def test_many_questions_share_one_look(clips: Path, model: LlavaVideo, tmp_path: Path) -> None:
    asks = ("What is the first index?", QUESTION, "How many frames?")
    settings = ArchiveSettings(task="ask", prompts=asks, sandbox=False)
    run([clips / "004.mp4", clips / "009.mp4"], tmp_path / "out", model, settings)
    texts = [[a["text"] for a in row["answers"]] for row in rows_in(tmp_path / "out")]
    assert texts == [["16", truth(4), "4"], ["36", truth(9), "4"]]


def test_timelines_have_tracks(clips: Path, model: LlavaVideo, tmp_path: Path) -> None:
    settings = ArchiveSettings(task="timeline", prompts=(QUESTION,), window_s=2.0, sandbox=False)
    run(clips / "005.mp4", tmp_path / "out", model, settings)
    (row,) = rows_in(tmp_path / "out")
    assert [(a["start_s"], a["end_s"], a["text"]) for a in row["answers"]] == [
        (0.0, 2.0, "20, 21"),
        (2.0, 4.0, "22, 23"),
    ]
    suffixes = sorted(path.suffix for path in (tmp_path / "out" / "videos").iterdir())
    assert suffixes == [".md", ".srt", ".vtt"]


def test_shards_of_several_machines_are_the_whole(
    clips: Path, model: LlavaVideo, tmp_path: Path
) -> None:
    seen: list[str] = []
    for own in range(3):
        settings = ArchiveSettings(prompts=(QUESTION,), sandbox=False, shard=f"{own}/3")
        run(clips, tmp_path / "out", model, settings)
        rows = rows_in(tmp_path / "out" / f"shard-{own}-of-3")
        assert [row["number"] for row in rows] == list(range(20))
        seen += [row["video"]["name"] for row in rows]
        texts = [row["answers"][0]["text"] for row in rows]
        assert texts == [truth(3 * number + own) for number in range(20)]
    assert sorted(seen) == [f"{number:03d}.mp4" for number in range(NUM_CLIPS)]


@pytest.mark.parametrize(
    ("settings", "options", "difference"),
    [
        ({"task": "caption"}, {}, "task = 'ask', not 'caption'"),
        ({"shard_units": 7}, {}, "shard_units = 16, not 7"),
        ({}, {"num_frames": 2}, "options.num_frames = None, not 2"),
    ],
)
def test_the_folder_of_another_run_is_refused(
    clips: Path, model: LlavaVideo, tmp_path: Path, settings: Any, options: Any, difference: str
) -> None:
    run(clips / "000.mp4", tmp_path / "out", model)
    other = dataclasses.replace(ASK, **settings)
    with pytest.raises(ConfigError, match=difference):
        run(clips / "000.mp4", tmp_path / "out", never_loaded, other, **options)


def test_what_makes_no_work_is_refused(clips: Path, model: LlavaVideo, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no question"):
        run(clips, tmp_path / "out", model, ArchiveSettings(task="ask"))
    with pytest.raises(TypeError, match="num_frames"):
        run(clips, tmp_path / "out", model, num_frame=3)
    assert not (tmp_path / "out").exists()


def test_two_runs_at_once_are_refused(clips: Path, model: LlavaVideo, tmp_path: Path) -> None:
    slow = LlavaVideo(model.spec, Slow(model.spec, 0.2))
    refused: list[BaseException] = []

    def again(_: ArchiveProgress) -> None:
        if not refused:
            with pytest.raises(LedgerBusyError, match=str(os.getpid())) as caught:
                run(clips, tmp_path / "out", never_loaded)
            refused.append(caught.value)

    run([clips / f"{n:03d}.mp4" for n in range(8)], tmp_path / "out", slow, on_progress=again)
    assert refused


def test_a_file_that_changes_meanwhile_has_no_row_of_another(
    clips: Path, model: LlavaVideo, tmp_path: Path
) -> None:
    path = tmp_path / "clip.mp4"
    shutil.copy(clips / "001.mp4", path)

    class Changing(Slow):
        def run(self, requests: Any) -> Iterator[Any]:
            for event in super().run(requests):
                path.write_bytes((clips / "002.mp4").read_bytes())
                yield event

    summary = run(path, tmp_path / "out", LlavaVideo(model.spec, Changing(model.spec, 0.0)))
    assert summary.progress.failures == {"ChangedFileError": 1}
    run(path, tmp_path / "out", model)
    (row,) = rows_in(tmp_path / "out")
    assert (row["status"], row["answers"][0]["text"]) == ("done", truth(2))


def test_what_may_pass_is_tried_again(clips: Path, model: LlavaVideo, tmp_path: Path) -> None:
    tries: Counter[str] = Counter()

    class Full(Slow):
        def run(self, requests: Any) -> Iterator[Any]:
            tries["all"] += 1
            if tries["all"] <= self.most:
                raise CapacityError("no room.", "later.")
            yield from super().run(requests)

    settings = dataclasses.replace(ASK, retry_wait_s=0.0)
    for most, status, name in ((2, 0, "two"), (99, 3, "ever")):
        tries.clear()
        engine = Full(model.spec, 0.0)
        engine.most = most
        summary = run(clips / "000.mp4", tmp_path / name, LlavaVideo(model.spec, engine), settings)
        assert (summary.exit_status, tries["all"]) == (status, 3)
    assert summary.progress.failures == {"CapacityError": 1}


def test_a_stopped_run_finishes_what_is_under_way_and_goes_on(
    clips: Path, model: LlavaVideo, tmp_path: Path
) -> None:
    stop = threading.Event()
    slow = LlavaVideo(model.spec, Slow(model.spec, 0.03))
    threading.Timer(0.3, stop.set).start()
    summary = run(clips, tmp_path / "out", slow, stopping=stop)
    assert summary.interrupted
    assert 0 < summary.progress.done < NUM_CLIPS
    assert summary.progress.running == 0
    run(clips, tmp_path / "out", model)
    run(clips, tmp_path / "whole", model)
    assert contents_in(tmp_path / "out") == contents_in(tmp_path / "whole")


def test_what_does_not_end_in_time_waits_for_the_next_run(
    clips: Path, model: LlavaVideo, tmp_path: Path
) -> None:
    stop = threading.Event()
    hanging = LlavaVideo(model.spec, Slow(model.spec, 30.0))
    threading.Timer(0.3, stop.set).start()
    began_s = time.monotonic()
    settings = dataclasses.replace(ASK, finish_s=0.3)
    summary = run(clips, tmp_path / "out", hanging, settings, stopping=stop)
    assert time.monotonic() - began_s < 5.0
    assert (summary.interrupted, summary.progress.done, summary.exit_status) == (True, 0, 3)
    assert run(clips, tmp_path / "out", model).progress.done == NUM_CLIPS


class Counting:
    """A model that notes what its engine is asked."""

    def __init__(self, model: LlavaVideo) -> None:
        self.prompts: list[str] = []
        decode, engine = model.spec.tokenizer.decode, model.engine

        class Noting:
            def run(_, requests: Any) -> Iterator[Any]:  # `self` is the outer one
                def noted() -> Iterator[Any]:
                    for request in requests:
                        self.prompts.append(decode(request.text_ids))
                        yield request

                return engine.run(noted())

        # The engine's kind is among what a run must keep.
        Noting.__name__ = type(engine).__name__
        self.model = LlavaVideo(model.spec, Noting())


def manifest_of(folder: Path, lines: list[dict[str, Any]]) -> Path:
    path = folder / "inputs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_memory_does_not_grow_with_the_number_of_units(
    clips: Path, model: LlavaVideo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that answers at once; 600 units, each a span of one file."""
    run(clips / "000.mp4", tmp_path / "one", model)
    (row,) = rows_in(tmp_path / "one")
    monkeypatch.setattr(
        Worker, "work", lambda _, unit: Outcome(unit=unit, row=row | {"number": unit.number})
    )
    lines = [{"video": str(clips / "000.mp4"), "start": number / 1000} for number in range(600)]
    manifest = manifest_of(tmp_path, lines)
    del lines
    held: dict[int, int] = {}

    def note(progress: ArchiveProgress) -> None:
        held[progress.ended] = tracemalloc.get_traced_memory()[0]

    monkeypatch.setattr("llava_video.archive.runner._TICK_S", 0.05)
    settings = dataclasses.replace(ASK, shard_units=50)
    tracemalloc.start()
    try:
        summary = run(manifest, tmp_path / "out", model, settings, on_progress=note)
    finally:
        tracemalloc.stop()
    assert summary.progress.done == 600
    early = min(bytes_ for ended, bytes_ in held.items() if 100 <= ended <= 300)
    late = min(bytes_ for ended, bytes_ in held.items() if ended >= 450)
    assert late - early < 250_000  # a row takes 10 kB or more
