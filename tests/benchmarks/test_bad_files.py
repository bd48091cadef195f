"""Bad files of every kind end as they should, and the benchmark would notice if one did not."""

import json
from pathlib import Path

import bad_files
import pytest
from bad_files import BadFile, Outcome

from llava_video.errors import DecodeError, SourceError
from llava_video.video.decoder import open_decoder
from llava_video.video.sandbox import DecoderPool
from llava_video.video.sandbox_process import WorkerEndedError
from llava_video.video.settings import SandboxSettings


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return bad_files.make_clips(tmp_path_factory.mktemp("clips"))


def check(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict:
    status = bad_files.main(arguments)
    printed = capsys.readouterr().out
    row = json.loads(printed.splitlines()[-1])
    assert (status, row["faults"]) == (0, [])
    assert set(row["kinds"]) == {"cut", "flipped", "lie", "no video"}
    assert row["descriptors_left"] == 0
    for figures in row["kinds"].values():
        assert not {"crashed", "stopped", "unforeseen"} & set(figures)
    cut = row["kinds"]["cut"]
    assert cut["frames_right"] == cut["frames_given"] > 0
    assert row["kinds"]["no video"]["refused"] >= 5
    return row


def test_some_of_each(capsys: pytest.CaptureFixture[str]) -> None:
    row = check(["--check"], capsys)
    assert row["kinds"]["flipped"]["files"] == 40


@pytest.mark.slow
def test_all(capsys: pytest.CaptureFixture[str]) -> None:
    row = check([], capsys)
    assert row["kinds"]["flipped"]["files"] == 1000
    assert max(figures["longest_s"] for figures in row["kinds"].values()) < 5
    with capsys.disabled():
        print(json.dumps(row["kinds"]))


def test_the_good_clips_are_good(clips: dict[str, bytes], tmp_path: Path) -> None:
    for kind, content in clips.items():
        file = BadFile("good", f"{kind}.{bad_files.suffix_of(kind)}", content, is_intact=True)
        outcome = bad_files.read_one(tmp_path, file, open_decoder)
        assert (outcome.ending, outcome.fault, outcome.is_told) == ("whole", "", False)
        assert outcome.num_right == bad_files.NUM_FRAMES
    assert {"mp4", "mkv", "ts", "webm", "avi", "faststart", "fragments"} <= set(clips)


def test_the_corpus_is_the_same_every_time_and_bad(clips: dict[str, bytes]) -> None:
    few = {"num_flips": 20, "percent_step": 50, "lie_step": 40}
    files = list(bad_files.corpus(clips, **few))
    again = list(bad_files.corpus(clips, **few))
    assert [file.content for file in files] == [file.content for file in again]
    assert len({file.name for file in files}) == len(files)
    flipped = [file for file in files if file.kind == "flipped"]
    assert all(file.content not in clips.values() for file in flipped)


def test_flipped_bits_are_counted_by_hand() -> None:
    content = bytes(4096)
    for seed in range(20):
        num_bits = sum(byte.bit_count() for byte in bad_files.flip(content, seed))
        assert 0 <= num_bits <= 64  # a bit that is hit twice is as it was
    assert sum(byte.bit_count() for byte in bad_files.flip(content, 1)) > 0


def _outcome(error: Exception | None = None, **changes: object) -> Outcome:
    file = BadFile("cut", "a.mp4", b"", is_intact=True)
    counts = {"num_asked": 5, "num_given": 5, "num_right": 5} | changes
    return Outcome(file, 0.1, **counts, error=error)


def _ended(found: str) -> DecodeError:
    error = DecodeError(f"a.mp4: {found}.")
    error.__cause__ = WorkerEndedError(found, "")
    return error


@pytest.mark.parametrize(
    ("outcome", "ending", "is_fault", "is_told"),
    [
        (_outcome(), "whole", False, False),
        (_outcome(has_faults=True), "whole", False, True),
        (_outcome(num_given=3, num_right=3), "part", False, True),
        (_outcome(num_right=4), "whole", True, False),
        (_outcome(SourceError("a.mp4 is text.")), "refused", False, True),
        (_outcome(SourceError("is text.")), "refused", True, True),  # not named
        (_outcome(_ended("the decoder crashed (SIGSEGV)")), "crashed", True, True),
        (_outcome(_ended("the decoder said nothing for 3 s")), "stopped", True, True),
        (_outcome(DecodeError("a.mp4: not foreseen: KeyError")), "unforeseen", True, True),
    ],
)
def test_what_is_wrong_is_noticed(
    outcome: Outcome, ending: str, is_fault: bool, is_told: bool
) -> None:
    assert outcome.ending == ending
    assert bool(outcome.fault) == is_fault
    assert outcome.is_told == is_told


@pytest.mark.parametrize(
    ("stub", "ending"),
    [("sleeps_in_c", "stopped"), ("crashes", "crashed"), ("fails", "unforeseen")],
)
def test_decoders_that_hang_crash_or_fail_are_counted(
    clips: dict[str, bytes], tmp_path: Path, stub: str, ending: str
) -> None:
    settings = SandboxSettings(stall_timeout_s=0.8, num_workers=1)
    with DecoderPool(settings, opener=f"sandbox_stubs:{stub}") as pool:
        file = BadFile("stub", "a.mp4", clips["mp4"], is_intact=True)
        outcome = bad_files.read_one(tmp_path, file, pool.open)
    assert outcome.ending == ending
    assert "a.mp4" in outcome.fault
