"""An archive through a server: every row right, whatever the server does meanwhile."""

import json
import multiprocessing
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from archive_runs import QUESTION, contents_in, oracle, rows_in, truth, write_clips
from chat_server import MODEL, ChatServer, drop, serving, status, truncate

from llava_video.api import LlavaVideo
from llava_video.archive.ledger_view import STATES, LedgerView
from llava_video.archive.replay import replay
from llava_video.archive.retrying import retry_failed
from llava_video.archive.runner import RunSummary, run_archive
from llava_video.archive.settings import ArchiveSettings
from llava_video.archive.verify import verify
from llava_video.connecting import connect
from llava_video.errors import CapacityError, ConfigError, ServerRefusedError
from llava_video.model.spec import read_spec
from llava_video.model.tokenizer import Tokenizer
from llava_video.remote.settings import RemoteSettings

NUM_CLIPS = 24
ASK = ArchiveSettings(
    task="ask", prompts=(QUESTION,), sandbox=False, in_flight=4, shard_units=10, retry_wait_s=0.05
)
PATIENT = RemoteSettings(retry_wait_s=0.01, max_retry_wait_s=0.1, retry_for_s=30.0)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "clips"
    write_clips(folder, NUM_CLIPS)
    return folder


@pytest.fixture
def server(tiny_folder: Path) -> Iterator[ChatServer]:
    with serving(Tokenizer(tiny_folder)) as running:
        yield running


@pytest.fixture
def model(server: ChatServer, tiny_folder: Path) -> Iterator[LlavaVideo]:
    with connect(server.url, MODEL, plan_as=tiny_folder, settings=PATIENT) as connected:
        yield connected


def run(
    inputs: Any, out: Path, model: LlavaVideo, settings: ArchiveSettings = ASK, **more: Any
) -> RunSummary:
    return run_archive(inputs, out, settings=settings, model=model, max_new_tokens=64, **more)


def check_rows(out: Path) -> list[dict[str, Any]]:
    """See that every clip has its one row, and its own answer."""
    rows = rows_in(out)
    assert [row["number"] for row in rows] == list(range(len(rows)))
    texts = [[answer["text"] for answer in row["answers"]] for row in rows]
    assert texts == [[truth(number)] for number in range(NUM_CLIPS)]
    assert verify(out) == []
    return rows


def test_every_row_is_right_and_says_who_answered(
    clips: Path, model: LlavaVideo, server: ChatServer, tmp_path: Path
) -> None:
    server.piece_s = 0.002
    summary = run(clips, tmp_path / "out", model)
    assert (summary.exit_status, summary.interrupted) == (0, False)
    for row in check_rows(tmp_path / "out"):
        served = row["provenance"]["server"]
        assert (row["provenance"]["model"], served["engine"]) == (MODEL, "openai")
        assert (served["base_url"], served["says"]) == (server.url, {"owned_by": "vllm"})
        assert row["answers"][0]["usage"]["new_tokens"] == 7  # the server's own count
        assert "an estimate" in " ".join(row["answers"][0]["warnings"])
    assert 1 < server.most_working <= ASK.in_flight
    asked = len(server.bodies)
    run(clips, tmp_path / "out", model)
    assert len(server.bodies) == asked == NUM_CLIPS
    assert replay(rows_in(tmp_path / "out")[7], model) == []


def test_questions_and_timelines(
    clips: Path, model: LlavaVideo, server: ChatServer, tmp_path: Path
) -> None:
    some = [str(clips / "003.mp4"), str(clips / "004.mp4")]
    several = ArchiveSettings(task="ask", prompts=(QUESTION, "last index"), sandbox=False)
    assert run(some, tmp_path / "ask", model, several).exit_status == 0
    texts = [[answer["text"] for answer in row["answers"]] for row in rows_in(tmp_path / "ask")]
    assert texts == [[truth(3), "15"], [truth(4), "19"]]
    line = ArchiveSettings(task="timeline", prompts=(QUESTION,), window_s=2.0, sandbox=False)
    assert run(some, tmp_path / "line", model, line).exit_status == 0
    texts = [[answer["text"] for answer in row["answers"]] for row in rows_in(tmp_path / "line")]
    assert texts == [["12, 13", "14, 15"], ["16, 17", "18, 19"]]


def test_storms_and_broken_answers_pass(
    clips: Path, model: LlavaVideo, server: ChatServer, tmp_path: Path
) -> None:
    storm = [status(429, retry_after="0.02"), status(503), drop, truncate(2), status(502)]
    server.faults += random.Random(3).choices(storm, k=2 * NUM_CLIPS)
    assert run(clips, tmp_path / "out", model).exit_status == 0
    rows = check_rows(tmp_path / "out")
    assert [row["run"]["attempts"] for row in rows] == [1] * NUM_CLIPS


def test_a_server_that_is_killed_and_started_again(
    clips: Path, model: LlavaVideo, server: ChatServer, tmp_path: Path, tiny_folder: Path
) -> None:
    server.piece_s = 0.005
    summaries: list[RunSummary] = []
    thread = threading.Thread(
        target=lambda: summaries.append(run(clips, tmp_path / "out", model)), daemon=True
    )
    thread.start()
    while server.answered < NUM_CLIPS // 3:
        time.sleep(0.005)
    server.kill()
    time.sleep(0.3)
    with serving(Tokenizer(tiny_folder), port=server.server_port) as again:
        thread.join(60)
        assert again.answered > 0
    assert [summary.exit_status for summary in summaries] == [0]
    check_rows(tmp_path / "out")


def test_a_server_that_is_gone_fails_units_which_can_be_tried_again(
    clips: Path, server: ChatServer, tmp_path: Path, tiny_folder: Path
) -> None:
    some, port = f"{clips}/00*.mp4", server.server_port
    hasty = RemoteSettings(retry_wait_s=0.01, retry_for_s=0.05)
    with connect(server.url, MODEL, plan_as=tiny_folder, settings=hasty) as model:
        server.kill()
        assert run(some, tmp_path / "out", model).exit_status == 3
        failed = rows_in(tmp_path / "out")
        assert {row["error"]["kind"] for row in failed} == {"ServerError"}
        assert {row["run"]["attempts"] for row in failed} == {ASK.attempts}
        assert failed[0]["provenance"]["server"]["base_url"] == server.url
        assert retry_failed(tmp_path / "out", "ServerError") == 10
        with serving(Tokenizer(tiny_folder), port=port):
            assert run(some, tmp_path / "out", model).exit_status == 0
    assert [row["answers"][0]["text"] for row in rows_in(tmp_path / "out")] == [
        truth(number) for number in range(10)
    ]


def test_a_lost_key_ends_the_run_and_fails_nothing(
    clips: Path, model: LlavaVideo, server: ChatServer, tmp_path: Path
) -> None:
    server.key = "sk-changed-meanwhile"
    with pytest.raises(CapacityError, match="the server is closed") as caught:
        run(f"{clips}/00*.mp4", tmp_path / "out", model)
    assert "LLAVA_VIDEO_API_KEY" in str(caught.value)
    with LedgerView(tmp_path / "out") as view:
        assert view.counts() == {**dict.fromkeys(STATES, 0), "waiting": 10}
    server.key = ""
    assert run(f"{clips}/00*.mp4", tmp_path / "out", model).exit_status == 0
    assert [row["run"]["attempts"] for row in rows_in(tmp_path / "out")] == [1] * 10


def test_no_row_and_no_file_has_the_key(
    clips: Path, server: ChatServer, tmp_path: Path, tiny_folder: Path, monkeypatch
) -> None:
    server.key = "sk-open-sesame"
    monkeypatch.setenv("LLAVA_VIDEO_API_KEY", server.key)
    with connect(server.url, MODEL, plan_as=tiny_folder, settings=PATIENT) as model:
        server.faults += [status(429), status(400, {"message": "you are sk-open-sesame"})]
        run(f"{clips}/00*.mp4", tmp_path / "out", model)
    rows = rows_in(tmp_path / "out")
    assert [row["status"] for row in rows].count("failed") == 1
    for path in (tmp_path / "out").rglob("*"):
        assert not path.is_file() or b"sesame" not in path.read_bytes(), path


def test_a_wrong_key_is_refused_before_work(
    clips: Path, server: ChatServer, tmp_path: Path, tiny_folder: Path
) -> None:
    server.key = "sk-open-sesame"
    with pytest.raises(ServerRefusedError, match="export LLAVA_VIDEO_API_KEY"):
        run(clips, tmp_path / "out", connect(server.url, MODEL, plan_as=tiny_folder))
    assert not (tmp_path / "out").exists()


def test_a_run_goes_on_only_with_what_it_was_begun_with(
    clips: Path, model: LlavaVideo, server: ChatServer, tmp_path: Path, tiny_folder: Path
) -> None:
    some, out = f"{clips}/000.mp4", tmp_path / "out"
    run(some, out, oracle(read_spec(tiny_folder)))
    with pytest.raises(ConfigError, match=r"engine = 'OracleEngine', not 'openai'") as raised:
        run(some, out, model)
    assert f"base_url = None, not '{server.url}'" in str(raised.value)
    run(some, tmp_path / "other", model)
    fine = RemoteSettings(picture="png")
    with (
        connect(server.url, MODEL, plan_as=tiny_folder, settings=fine) as another,
        pytest.raises(ConfigError, match=r"frames.picture = 'jpeg', not 'png'"),
    ):
        run(some, tmp_path / "other", another)


def serve(folder: str, port: int) -> None:
    """Be a server until somebody kills it; for a child process."""
    server = ChatServer(Tokenizer(folder), port)
    server.piece_s = 0.1
    server.serve_forever(0.01)


@contextmanager
def child(folder: Path, port: int) -> Iterator[Any]:
    process = multiprocessing.get_context("spawn").Process(
        target=serve, args=(str(folder), port), daemon=True
    )
    process.start()
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1.0).close()
                break
            except OSError:
                assert process.is_alive()
                time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.join()


@pytest.mark.slow
def test_a_server_killed_at_random_moments(
    clips: Path, server: ChatServer, tmp_path: Path, tiny_folder: Path
) -> None:
    dice, port = random.Random(5), server.server_port
    settings = RemoteSettings(retry_wait_s=0.05, max_retry_wait_s=0.5, retry_for_s=120.0)
    summaries: list[RunSummary] = []
    with connect(server.url, MODEL, plan_as=tiny_folder, settings=settings) as model:
        assert run(clips, tmp_path / "whole", model).exit_status == 0
        server.kill()
        thread = threading.Thread(
            target=lambda: summaries.append(run(clips, tmp_path / "broken", model)), daemon=True
        )
        thread.start()
        for _ in range(4):
            with child(tiny_folder, port):
                time.sleep(dice.uniform(0.1, 0.8))
                assert thread.is_alive()  # there is something to break
        with child(tiny_folder, port):
            thread.join(120)
    assert [summary.exit_status for summary in summaries] == [0]
    check_rows(tmp_path / "broken")
    assert json.dumps(contents_in(tmp_path / "broken")) == json.dumps(
        contents_in(tmp_path / "whole")
    )
