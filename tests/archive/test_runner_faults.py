"""What goes wrong around a run is told, harms nothing that was done, and the next run goes on."""

import dataclasses
import datetime
import errno
import http.server
import itertools
import multiprocessing
import os
import random
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from archive_runs import (
    QUESTION,
    command_slowly,
    command_without_room,
    contents_in,
    oracle,
    rows_in,
    sick_model,
    truth,
    write_clips,
)
from other_user import as_nobody
from stream_servers import FileServer

from llava_video.api import LlavaVideo
from llava_video.archive import content, row
from llava_video.archive.ledger_view import LedgerView
from llava_video.archive.progress import ArchiveProgress
from llava_video.archive.replay import replay
from llava_video.archive.retrying import retry_failed
from llava_video.archive.runner import RunSummary, run_archive
from llava_video.archive.settings import ArchiveSettings
from llava_video.archive.shards import sealed
from llava_video.archive.verify import verify
from llava_video.errors import CapacityError
from llava_video.model.spec import read_spec

NUM_CLIPS = 24
ASK = ArchiveSettings(task="ask", prompts=(QUESTION,), sandbox=False, in_flight=4, shard_units=8)
NEEDS_FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="the other user is forked")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults") / "clips"
    write_clips(folder, NUM_CLIPS)
    return folder


@pytest.fixture
def model(tiny_model: LlavaVideo) -> LlavaVideo:
    return oracle(tiny_model.spec)


def run(inputs: Any, out: Path, model: LlavaVideo, **more: Any) -> RunSummary:
    return run_archive(inputs, out, settings=ASK, model=model, max_new_tokens=64, **more)


def assert_whole(out: Path) -> None:
    """See that every clip has its answer, and no file is half written."""
    assert [r["answers"][0]["text"] for r in rows_in(out)] == [truth(n) for n in range(NUM_CLIPS)]
    assert verify(out) == []
    assert list(out.rglob(".*")) == []


def arguments_of(clips: Path, tiny_folder: Path, out: Path) -> list[str]:
    asked = ["--task", "ask", "-p", QUESTION, "--max-new-tokens", "64"]
    where = ["--out", str(out), "-m", str(tiny_folder)]
    return ["archive", str(clips), *where, *asked, "--in-flight", "4", "--no-sandbox"]


def status_of(target: Any, *arguments: Any) -> int | None:
    """Run something in a process of its own; return its exit status."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["archive_runs", "llava_video.archive.runner"])
    process = context.Process(target=target, args=arguments)
    process.start()
    process.join(120)
    return process.exitcode


@pytest.mark.skipif(sys.platform == "win32", reason="limits of files are POSIX's")
@pytest.mark.parametrize("most_bytes", [100_000, 300_000])
def test_a_full_disk_ends_a_run_that_goes_on(
    clips: Path, tiny_folder: Path, model: LlavaVideo, tmp_path: Path, most_bytes: int
) -> None:
    said, out = tmp_path / "said.txt", tmp_path / "out"
    arguments = arguments_of(clips, tiny_folder, out)
    assert status_of(command_without_room, arguments, most_bytes, said) == 1
    assert "ledger.sqlite cannot be used" in said.read_text()
    assert "make room on its disk, and start again: what was done is kept" in said.read_text()
    assert "Traceback" not in said.read_text()
    for path in sealed(out):
        assert path.read_bytes().endswith(b"\n")
    assert status_of(command_slowly, arguments, 0.0) == 0
    assert_whole(out)


def test_a_shard_without_room_is_not_there(
    clips: Path, model: LlavaVideo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("llava_video.archive.shards.os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            run(clips, tmp_path, model)
    assert sealed(tmp_path) == []
    assert list((tmp_path / "rows").iterdir()) == []
    before = Counting(model)
    run(clips, tmp_path, before.model)
    assert before.num_asked < NUM_CLIPS  # what had ended was not worked again
    assert_whole(tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the other user is a forked process")
def test_a_folder_that_may_not_be_written_is_refused(
    clips: Path, tiny_folder: Path, open_folder: Path
) -> None:
    inputs = open_folder / "clips"
    shutil.copytree(clips, inputs)
    shutil.copytree(tiny_folder, open_folder / "model")
    model = oracle(read_spec(open_folder / "model"))
    done, new = open_folder / "done", open_folder / "closed/new"
    run(inputs, done, model)
    before = contents_in(done)
    new.parent.mkdir()
    for path in (*open_folder.rglob("*"), open_folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for out in (new, done):
        told = as_nobody(lambda out=out: run(inputs, out, model).progress.line)
        assert "LedgerError" in told
        assert "name another folder" in told
    assert not new.exists()
    for path in (open_folder, *open_folder.rglob("*")):
        path.chmod(0o755)
    assert contents_in(done) == before
    run(inputs, new, model)
    assert_whole(new)


def test_a_clock_that_jumps_changes_nothing(
    clips: Path, model: LlavaVideo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = tmp_path / "clips"
    shutil.copytree(clips, inputs)
    for number, path in enumerate(sorted(inputs.iterdir())):
        os.utime(path, (0, 0) if number % 2 else (4e9, 4e9))
    dice, jumps = random.Random(3), itertools.count()
    now_s, told = time.time(), list[ArchiveProgress]()

    def jumping() -> float:
        next(jumps)
        return now_s + dice.uniform(-1e9, 1e9)

    class Jumping(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> "Jumping":
            return cls.fromtimestamp(jumping(), tz)

    monkeypatch.setattr(time, "time", jumping)
    monkeypatch.setattr(row, "datetime", Jumping)
    monkeypatch.setattr("llava_video.archive.runner._TICK_S", 0.01)
    first = run(inputs, tmp_path / "out", model, on_progress=told.append)
    again = Counting(model)
    second = run(inputs, tmp_path / "out", again.model)
    monkeypatch.undo()
    assert next(jumps) >= NUM_CLIPS
    assert (first.exit_status, second.exit_status, again.num_asked) == (0, 0, 0)
    assert all(0 <= one.elapsed_s < 300 and (one.eta_s or 0) >= 0 for one in told)
    assert all(-1 <= timing < 300 for r in rows_in(tmp_path / "out") for timing in timings(r))
    run(inputs, tmp_path / "steady", model)
    assert contents_in(tmp_path / "out") == contents_in(tmp_path / "steady")


def timings(row_: dict[str, Any]) -> list[float]:
    return list(row_["timings"].values())


def test_a_second_command_names_the_first_and_harms_nothing(
    clips: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    out, said = tmp_path / "out", tmp_path / "said.txt"
    arguments = arguments_of(clips, tiny_folder, out)
    refused: list[int | None] = []

    def again(_: ArchiveProgress) -> None:
        if not refused:
            refused.append(status_of(command_without_room, arguments, 2**40, said))

    settings = dataclasses.replace(ASK, shard_units=1000)
    summary = run_archive(
        clips,
        out,
        settings=settings,
        model=oracle(read_spec(tiny_folder)),
        max_new_tokens=64,
        on_progress=again,
    )
    assert (refused, summary.exit_status) == ([1], 0)
    assert f"{out} is worked on by process {os.getpid()}" in said.read_text()
    assert "wait until it ends" in said.read_text()
    assert_whole(out)


def test_a_file_that_grows_while_it_is_hashed_fails_alone(
    clips: Path, model: LlavaVideo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = tmp_path / "clips"
    shutil.copytree(clips, inputs)
    growing, hash_file = inputs / "007.mp4", content._hash_file

    def while_it_grows(path: Path) -> Any:
        found = hash_file(path)
        if path == growing:
            with growing.open("ab") as file:
                file.write(b"more")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(content, "_hash_file", while_it_grows)
        summary = run(inputs, tmp_path / "out", model)
    assert summary.exit_status == 3
    assert summary.progress.failures == {"ChangedFileError": 1}
    (failed,) = (r for r in rows_in(tmp_path / "out") if r["status"] == "failed")
    assert failed["video"]["name"] == growing.name
    assert "changed while it was read" in failed["error"]["message"]
    assert "retry" in failed["error"]["hint"]
    shutil.copy(clips / growing.name, growing)
    assert run(inputs, tmp_path / "out", model).exit_status == 0
    assert_whole(tmp_path / "out")


class Serving(http.server.BaseHTTPRequestHandler):
    """Gives the bodies it was told, one after the other, the last one for ever."""

    bodies: ClassVar[list[bytes]] = []

    def do_GET(self) -> None:
        body = self.bodies.pop(0) if len(self.bodies) > 1 else self.bodies[0]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, type[Serving]]]:
    """Return the address of a clip on this machine, and what is served there."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = type("Handler", (Serving,), {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/a.mp4", handler
        server.shutdown()


def test_an_address_of_the_own_network_is_worked_where_it_is_allowed(
    clips: Path, model: LlavaVideo, tmp_path: Path, serving: tuple[str, type[Serving]]
) -> None:
    url, handler = serving
    handler.bodies = [(clips / "003.mp4").read_bytes()]
    assert run(url, tmp_path / "no", model).progress.failures == {"SourceError": 1}
    assert run(url, tmp_path / "out", model, allow_private=True).exit_status == 0
    (found,) = rows_in(tmp_path / "out")
    assert found["answers"][0]["text"] == truth(3)
    assert replay(found, model, allow_private=True) == []
    assert "status" in [one.field for one in replay(found, model)]


def test_other_bytes_than_were_hashed_have_no_row(
    clips: Path, model: LlavaVideo, tmp_path: Path, serving: tuple[str, type[Serving]]
) -> None:
    url, handler = serving
    handler.bodies = [(clips / f"{number:03d}.mp4").read_bytes() for number in (3, 4)]
    summary = run(url, tmp_path / "out", model, allow_private=True)
    assert summary.progress.failures == {"ChangedFileError": 1}
    # Now it stays as it is: another unit, with an answer of its own.
    assert run(url, tmp_path / "out", model, allow_private=True).exit_status == 0
    assert rows_in(tmp_path / "out")[0]["answers"][0]["text"] == truth(4)


class Counting:
    """A model that counts what it is asked."""

    num_asked = 0

    def __init__(self, model: LlavaVideo) -> None:
        engine, counting = model.engine, self

        class Noting:
            def run(self, requests: Any) -> Any:
                def noted() -> Any:
                    for request in requests:
                        counting.num_asked += 1
                        yield request

                return engine.run(noted())

        Noting.__name__ = type(engine).__name__  # a run keeps the kind of its engine
        self.model = LlavaVideo(model.spec, Noting())


def test_a_broken_device_ends_the_run_and_fails_nothing(
    clips: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    healed = tmp_path / "healed"
    with pytest.raises(CapacityError, match=r"device is broken.*CUDA error"):
        run(clips, tmp_path / "out", sick_model(tiny_folder, healed))
    with LedgerView(tmp_path / "out") as view:
        counts = view.counts()
        assert (counts["failed"], counts["done"], counts["running"]) == (0, 0, 0)
    assert run(clips, tmp_path / "out", sick_model(tiny_folder, healed)).exit_status == 0


def test_what_fails_whatever_it_is_given_ends_the_run(
    clips: Path, model: LlavaVideo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: Any, **__: Any) -> None:
        raise TypeError("a fault of the program")

    with monkeypatch.context() as broken:
        broken.setattr("llava_video.archive.work.answer_item", breaks)
        broken.setattr("llava_video.archive.breaker.MOST_ALIKE", 10)
        with pytest.raises(CapacityError, match="10 units in a row ended with TypeError"):
            run(clips, tmp_path / "out", model)
    with LedgerView(tmp_path / "out") as view:
        assert view.counts()["failed"] == 10
    retry_failed(tmp_path / "out", "TypeError")
    assert run(clips, tmp_path / "out", model).exit_status == 0


def test_what_a_download_may_ask_holds_for_hashes_too(
    clips: Path, model: LlavaVideo, tmp_path: Path
) -> None:
    with FileServer(clips) as server:
        url = f"{server.url}/003.mp4"
        assert run(url, tmp_path / "refused", model).exit_status == 3
        assert run(url, tmp_path / "out", model, allow_private=True).exit_status == 0
    (row,) = rows_in(tmp_path / "out")
    assert row["answers"][0]["text"] == truth(3)
