"""`llava-video archive`: runs, what it says of them, and how it is stopped."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from archive_runs import QUESTION, command_slowly, contents_in, rows_in, truth, write_clips
from chat_server import MODEL, serving

from llava_video.archive.ledger_view import LedgerView
from llava_video.archive.row import make_row
from llava_video.errors import LedgerError
from llava_video.lock import RunLock
from llava_video.model.tokenizer import Tokenizer

NUM_CLIPS = 12


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("command") / "clips"
    write_clips(folder, NUM_CLIPS)
    return folder


@pytest.fixture
def asked(tiny_folder: Path, tmp_path: Path) -> list[str]:
    """Return what every run of the tiny model is given."""
    out = str(tmp_path / "out")
    return ["--out", out, "-m", str(tiny_folder), "--device", "cpu", "--num-frames", "2",
            "--max-new-tokens", "3", "--no-loop-guard"]  # fmt: skip


def test_a_run_and_what_is_said_of_it(run, clips: Path, asked: list[str], tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"nothing")
    outcome = run("archive", clips, bad, *asked, "--no-sandbox")
    assert outcome.status == 3
    assert outcome.out.startswith(f"{NUM_CLIPS + 1} of {NUM_CLIPS + 1} videos, ")
    assert f"{bad}: " in outcome.err
    assert "SourceError" in outcome.err
    rows = rows_in(tmp_path / "out")
    assert [row["status"] for row in rows] == ["done"] * NUM_CLIPS + ["failed"]
    assert all(len(row["answers"][0]["frame_idxs"]) == 2 for row in rows[:-1])

    said = run("archive", "status", tmp_path / "out").out.split()
    assert said[said.index("done") + 1] == str(NUM_CLIPS)
    assert said[said.index("SourceError") + 1] == "1"
    assert run("archive", "verify", tmp_path / "out").out == "ledger and rows agree.\n"

    for action, name in (("report", "report.html"), ("table", "answers.csv")):
        assert run("archive", action, tmp_path / "out").status == 0
        assert bad.name in (tmp_path / "out" / name).read_text(encoding="utf-8")

    refused = run("archive", "retry", tmp_path / "out", "--only", "Hiccup")
    assert (refused.status, "there are: SourceError" in refused.err) == (1, True)
    assert run("archive", "retry", tmp_path / "out", "--only", "SourceError").status == 0
    bad.write_bytes((clips / "003.mp4").read_bytes())  # mended: the same as another one
    outcome = run("archive", clips, bad, *asked, "--no-sandbox")
    assert (outcome.status, outcome.err) == (0, "")
    assert rows_in(tmp_path / "out")[-1]["duplicate_of"] == 3


def test_machines_get_a_line_a_second(run, clips: Path, asked: list[str]) -> None:
    outcome = run("archive", clips / "001.mp4", *asked, "--no-sandbox", "--json-progress")
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    assert lines[-1]["event"] == "end"
    assert (lines[-1]["done"], lines[-1]["total"], lines[-1]["failures"]) == (1, 1, {})


def test_what_is_told_of_rows_and_of_their_warnings(
    run, clips: Path, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def warn(*arguments: Any) -> Any:
        row = make_row(*arguments)
        return row | {"warnings": ["3 of 4 frames are dark."]}

    monkeypatch.setattr("llava_video.archive.work.make_row", warn)
    said = run("archive", clips / "001.mp4", *asked, "--no-sandbox").out
    told = f"; rows in {tmp_path / 'out' / 'rows'}; 1 carry warnings, 1 of them: 3 of 4 frames"
    assert told in said
    line = run("archive", clips / "001.mp4", *asked, "--no-sandbox", "--json-progress").out
    assert json.loads(line.splitlines()[-1])["with_warnings"] == 1


def test_shards_are_looked_at_together(run, clips: Path, asked: list[str], tmp_path: Path) -> None:
    for shard in ("0/2", "1/2"):
        run("archive", clips / "001.mp4", clips / "002.mp4", *asked, "--no-sandbox",
            "--shard", shard)  # fmt: skip
    for action, said in (("status", "done"), ("verify", "agree"), ("table", ".csv")):
        outcome = run("archive", action, tmp_path / "out")
        assert (outcome.status, outcome.out.count(said)) == (0, 2)
        assert outcome.out.startswith("shard-0-of-2:\n")
    assert run("archive", "retry", tmp_path / "out").out.startswith("0 wait again")
    assert "shard-0-of-2, shard-1-of-2" in run("replay", tmp_path / "out", "0").err


def test_damage_is_found(run, clips: Path, asked: list[str], tmp_path: Path) -> None:
    run("archive", clips, *asked, "--no-sandbox")
    path = tmp_path / "out" / "rows" / "00000.jsonl"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"number":3,', '"number":30,', 1), encoding="utf-8")
    outcome = run("archive", "verify", tmp_path / "out")
    assert outcome.status == 3
    assert "row 3 is not what the ledger holds: number" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--task", "ask"], "give questions"),
        (["--shard", "3/3"], "0/4 to 3/4"),
        (["--set", "attempts=1"], "--config"),
        (["-p", "a", "-p", "b"], "'ask'"),
        (["--column", "video"], "video=path"),
        (["--task", "timeline", "--overlap", "40"], "shorter than a window"),
    ],
)
def test_what_makes_no_sense_is_refused(
    refused, clips: Path, asked: list[str], arguments: list[str], hint: str
) -> None:
    assert hint in refused("archive", clips, *asked, *arguments)


def test_a_folder_that_is_not_free_is_told_before_a_model_is_loaded(
    run, refused, clips: Path, asked: list[str], tmp_path: Path
) -> None:
    one, out = clips / "001.mp4", tmp_path / "out"
    run("archive", one, *asked, "--no-sandbox")
    asked[3] = str(tmp_path / "no-model")
    assert "num_frames = 2, not 3" in refused("archive", one, *asked, "--num-frames", "3")
    with RunLock(out):
        assert "is worked on by" in refused("archive", one, *asked)
    assert "no-model" in refused("archive", one, *asked)


def test_inputs_and_an_output_are_needed(run, refused, clips: Path, tmp_path: Path) -> None:
    assert "--out is missing" in refused("archive", clips)
    outcome = run("archive", tmp_path / "none", "--out", tmp_path / "out")
    assert (outcome.status, "is not there" in outcome.err) == (1, True)
    assert not (tmp_path / "out").exists()
    assert "holds no archive" in refused("archive", "status", tmp_path)


def started(clips: Path, tiny_folder: Path, out: Path, seconds: float) -> BaseProcess:
    """Begin a slow run in a process of its own, and wait until it works."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["archive_runs", "llava_video.archive.runner"])
    arguments = ["archive", str(clips), "--out", str(out), "-m", str(tiny_folder), "--task", "ask",
                 "-p", QUESTION, "--max-new-tokens", "64", "--in-flight", "2",
                 "--no-sandbox"]  # fmt: skip
    process = context.Process(target=command_slowly, args=(arguments, seconds))
    process.start()
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        try:
            with LedgerView(out) as view:
                if view.counts()["running"]:
                    break
        except LedgerError:
            pass
        time.sleep(0.01)
    return process


def test_ctrl_c_finishes_what_is_under_way(
    run, clips: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    process = started(clips, tiny_folder, tmp_path / "out", 0.3)
    os.kill(process.pid or 0, signal.SIGINT)
    process.join(10)
    assert process.exitcode == 130
    with LedgerView(tmp_path / "out") as view:
        counts = view.counts()
    assert (counts["done"], counts["running"]) == (2, 0)
    said = run("archive", "table", tmp_path / "out")
    assert (said.status, said.err) == (0, "")
    assert run("search", tmp_path / "out", truth(0)).status == 0
    assert run("archive", "report", tmp_path / "out").status == 0

    process = started(clips, tiny_folder, tmp_path / "out", 0.0)
    process.join(60)
    assert process.exitcode == 0
    texts = [row["answers"][0]["text"] for row in rows_in(tmp_path / "out")]
    assert texts == [truth(number) for number in range(NUM_CLIPS)]


def test_a_second_ctrl_c_stops_at_once(clips: Path, tiny_folder: Path, tmp_path: Path) -> None:
    process = started(clips, tiny_folder, tmp_path / "out", 60.0)
    os.kill(process.pid or 0, signal.SIGINT)
    time.sleep(0.3)
    assert process.is_alive()
    began_s = time.monotonic()
    os.kill(process.pid or 0, signal.SIGINT)
    process.join(10)
    assert time.monotonic() - began_s < 3.0
    assert process.exitcode == 130
    process = started(clips, tiny_folder, tmp_path / "out", 0.0)
    process.join(60)
    assert process.exitcode == 0
    assert len(rows_in(tmp_path / "out")) == NUM_CLIPS


def test_workers_make_the_same_rows(run, clips: Path, asked: list[str], tmp_path: Path) -> None:
    outcome = run("archive", clips, *asked, "--no-sandbox", "--workers", "2", "--in-flight", "2")
    assert (outcome.status, outcome.err) == (0, "")
    many = contents_in(tmp_path / "out")
    asked[1] = str(tmp_path / "alone")
    assert run("archive", clips, *asked, "--no-sandbox").status == 0
    assert contents_in(tmp_path / "alone") == many
    # Who works is a matter of the run: one process finds nothing left to do.
    asked[1] = str(tmp_path / "out")
    assert run("archive", clips, *asked, "--no-sandbox").status == 0


@pytest.mark.slow
@pytest.mark.parametrize("hands", [["--workers", "2"], ["--ray", "auto"]])
def test_ctrl_c_ends_all_hands_in_time(
    clips: Path, asked: list[str], tmp_path: Path, hands: list[str]
) -> None:
    """The signal of a terminal goes to all processes of the group."""
    entries = [{"video": str(clips / "000.mp4"), "start": idx / 1000} for idx in range(900)]
    manifest = tmp_path / "inputs.jsonl"
    manifest.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    program = subprocess.Popen(
        [sys.executable, "-m", "llava_video", "archive", str(manifest), *asked, "--no-sandbox",
         *hands],
        start_new_session=True, env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
    )  # fmt: skip
    try:
        wait_until(tmp_path / "out", "done", 60.0)
        os.killpg(program.pid, signal.SIGINT)
        assert program.wait(15) == 130  # 10 s, and the end of a cluster
    finally:
        program.kill()
    with LedgerView(tmp_path / "out") as view:
        counts = view.counts()
    assert counts["running"] == counts["failed"] == counts["quarantined"] == 0
    assert 0 < counts["done"] < len(entries)


def wait_until(out: Path, state: str, seconds: float) -> None:
    """Wait until a run has a unit in a state."""
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        try:
            with LedgerView(out) as view:
                if view.counts()[state]:
                    return
        except LedgerError:
            pass
        time.sleep(0.01)
    raise AssertionError(f"nothing is {state} yet")


def test_a_server_can_answer(run, clips: Path, tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with serving(Tokenizer(tiny_folder)) as server:
        server.piece_s = 0.01
        engine = ("--engine", "openai", "--base-url", server.url, "--plan-as", tiny_folder)
        asked = ("--task", "ask", "-p", QUESTION, "--max-new-tokens", "64", "--no-sandbox")
        few = ("--in-flight", "2")
        done = run("archive", clips, "--out", out, *asked, *engine, "-m", MODEL, *few)
        assert (done.status, server.most_working) == (0, 2)
        rows = rows_in(out)
        assert [row["answers"][0]["text"] for row in rows] == [truth(n) for n in range(NUM_CLIPS)]
        unnamed = run("replay", out, "3")
        assert unnamed.status == 1
        assert f"--engine openai --base-url {server.url} --plan-as {tiny_folder}" in unnamed.err
        assert run("replay", out, "3", *engine).out == "the same.\n"
        other = run("replay", out, "3", *engine, "--picture", "png")
        assert other.status == 3
        assert other.out.startswith("provenance.server.frames.")
        server.key = "sk-another"
        refused = run("archive", clips, "--out", tmp_path / "new", *asked, *engine, "-m", MODEL)
        assert refused.status == 1
        assert "export LLAVA_VIDEO_API_KEY" in refused.err
        assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_workers_can_ask_a_server(run, clips: Path, tiny_folder: Path, tmp_path: Path) -> None:
    with serving(Tokenizer(tiny_folder)) as server:
        engine = ("--engine", "openai", "--base-url", server.url, "--plan-as", tiny_folder)
        asked = ("--task", "ask", "-p", QUESTION, "--max-new-tokens", "64", "--no-sandbox")
        out = tmp_path / "out"
        done = run("archive", clips, "--out", out, *asked, *engine, "-m", MODEL, "--workers", "2")
        assert (done.status, done.err) == (0, "")
        texts = [row["answers"][0]["text"] for row in rows_in(out)]
        assert texts == [truth(number) for number in range(NUM_CLIPS)]
        assert all(row["provenance"]["server"] for row in rows_in(out))
        more = ("--device", "cpu")
        refused = run("archive", clips, "--out", out, *asked, *engine, *more, "--workers", "2")
        assert (refused.status, "--device is for weights" in refused.err) == (1, True)
