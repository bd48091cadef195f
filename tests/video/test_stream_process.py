"""The process as its parent sees it: pictures copied out, every misdeed the end of a connection."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from stream_servers import TcpCamera, numbered, sending

from llava_video.video.settings import StreamSettings
from llava_video.video.stream_address import stream_address
from llava_video.video.stream_process import News, StreamProcess
from llava_video.world.bars import read_index

SETTINGS = StreamSettings(fps=None, stall_timeout_s=2.0, open_timeout_s=3.0)


@pytest.fixture
def stub() -> Iterator[StreamProcess]:
    process = StreamProcess("stream_stubs")
    yield process
    process.kill()


def heard(process: StreamProcess, deed: str) -> list[News]:
    process.open(stream_address(f"tcp://{deed}:1", SETTINGS), SETTINGS)
    found: list[News] = []
    until_s = time.monotonic() + 30
    while time.monotonic() < until_s:
        news = process.receive(0.2)
        if news is None and len(found) >= 2:
            break
        if news is not None:
            found.append(news)
            if news.kind == "ended":
                break
    return found


@pytest.mark.parametrize(
    ("deed", "words"),
    [
        ("crashes", r"the decoder crashed (SIGABRT)"),
        ("lies", "makes no sense"),
        ("wants-much", "makes no sense"),
    ],
)
def test_a_misdeed_ends_the_connection_and_the_process(
    stub: StreamProcess, deed: str, words: str
) -> None:
    *_, last = heard(stub, deed)
    assert last.kind == "ended"
    assert words in last.values["text"]
    assert last.values["died"]
    assert stub.pid is None
    again = stub.receive(0)
    assert again is not None
    assert again.kind == "ended"


def test_a_picture_is_a_copy(stub: StreamProcess) -> None:
    *_, last = heard(stub, "shows")
    assert last.kind == "frame"
    assert last.picture is not None
    assert last.picture.shape == (4, 6, 3)
    last.picture[:] = 9  # the reader's own


def test_one_process_reads_one_connection_after_the_other() -> None:
    process, pids = StreamProcess(), set()
    found: list[list[int]] = []
    with TcpCamera([sending(*numbered(0, 20)), sending(*numbered(100, 120))]) as camera:
        for _ in range(2):
            process.open(stream_address(camera.url, SETTINGS), SETTINGS)
            numbers: list[int] = []
            while (news := process.receive(30)) is not None and news.kind != "ended":
                pids.add(process.pid)
                if news.picture is not None:
                    numbers.append(read_index(news.picture))
            assert news is not None
            assert news.values["why"] == "end"
            found.append(numbers)
    assert found == [list(range(20)), list(range(100, 120))]
    assert len(pids) == 1
    process.close(0.5)
    assert process.pid is None


def test_an_end_in_good_order_hears_what_still_comes() -> None:
    process = StreamProcess()
    camera = TcpCamera([sending(*numbered(0, 200), pause_s=0.02)])
    with camera:
        process.open(stream_address(camera.url, SETTINGS), SETTINGS)
        while (news := process.receive(30)) is not None and news.kind != "frame":
            pass
        rest: list[Any] = []
        begun_s = time.monotonic()
        process.close(5.0, rest.append)
        assert time.monotonic() - begun_s < 4.0
    assert all(isinstance(news.picture, np.ndarray) for news in rest if news.kind == "frame")
    assert process.pid is None
