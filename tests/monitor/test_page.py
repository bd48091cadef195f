"""The page shows what is there, to those it is meant for, and takes nothing for markup."""

import http.client
import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from monitor_cases import message_of

from llava_video.errors import ConfigError
from llava_video.monitor.board import Board
from llava_video.monitor.judge import Judged
from llava_video.monitor.page import LivePage, is_local, page_address
from llava_video.monitor.rules import Observation
from llava_video.video.stream_events import StreamCounts, StreamFrame, StreamStatus

EVIL = "<img src=x onerror=alert(1)>"
PICTURE = b"\xff\xd8 a picture"
NAME = f"{1:032x}-snapshot.jpg"


@pytest.fixture
def page(tmp_path: Path) -> Iterator[LivePage]:
    (tmp_path / "secret.txt").write_text("secret")
    evidence = tmp_path / "evidence"
    evidence.mkdir()
    (evidence / NAME).write_bytes(PICTURE)
    status = StreamStatus(name="rtsp://10.0.0.7/", state="live", counts=StreamCounts())
    board = Board(
        [EVIL],
        statuses=lambda: {EVIL: status},
        messages=lambda: [message_of(1, rule=EVIL, files=[]).facts],
    )
    picture = np.zeros((36, 64, 3), np.uint8)
    board.saw(EVIL, StreamFrame(idx=0, picture=picture, pts_s=0.0, wall_s=100.0))
    with LivePage(board, evidence) as page:
        yield page


def get(
    page: LivePage, path: str, host: str | None = None, method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=10)
    connection.request(method, path, headers={"Host": host} if host else {})
    response = connection.getresponse()
    found = response.status, dict(response.headers), response.read()
    connection.close()
    return found


def test_the_page_needs_nothing_from_elsewhere(page: LivePage) -> None:
    site = resources.files("llava_video.monitor").joinpath("site")
    for path, name in (("/", "index.html"), ("/page.js", "page.js"), ("/page.css", "page.css")):
        status, headers, body = get(page, path)
        assert (status, body) == (200, site.joinpath(name).read_bytes())
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert not re.search(rb"https?://|//[a-z]+\.", body)
    script = site.joinpath("page.js").read_text()
    # What would take words for markup or code.
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", script)
    html = site.joinpath("index.html").read_text()
    assert not re.search(r"<script(?! src)|\son\w+=|style=", html)


def test_facts_and_frames(page: LivePage) -> None:
    status, headers, body = get(page, "/state")
    facts = json.loads(body)
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert [camera["name"] for camera in facts["cameras"]] == [EVIL]
    assert [alert["rule"] for alert in facts["alerts"]] == [EVIL]
    status, headers, body = get(page, "/frame/0.jpg?0")
    assert (status, headers["Content-Type"], body[:2]) == (200, "image/jpeg", b"\xff\xd8")
    assert get(page, f"/evidence/{NAME}")[2] == PICTURE


@pytest.mark.parametrize(
    "path",
    [
        "/evidence/../secret.txt", "/evidence/%2e%2e/secret.txt", "/evidence/..%2fsecret.txt",
        f"/evidence/{2:032x}-snapshot.jpg", "/evidence/", "/frame/1.jpg", "/frame/-1.jpg",
        "/frame/99999.jpg", "/site/page.js", "/nowhere", "//evil.example/",
    ],
)  # fmt: skip
def test_nothing_else_is_there(page: LivePage, path: str) -> None:
    assert get(page, path)[0] == 404


def test_another_sites_name_is_refused(page: LivePage) -> None:
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", ""):
        assert get(page, "/state", host)[0] == (421 if host else 200)
    for host in ("localhost", f"127.0.0.1:{page.port}", "[::1]"):
        assert get(page, "/state", host)[0] == 200


def test_only_reading(page: LivePage) -> None:
    assert get(page, "/state", method="POST")[0] == 501
    status, headers, body = get(page, "/state", method="HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 10


def test_health_is_whether_a_camera_is_live_and_answers_come(page: LivePage) -> None:
    status, _, body = get(page, "/health")
    well = {"ok": True, "cameras": {EVIL: "live"}, "failing": []}
    assert (status, json.loads(body)) == (200, well)
    lost = Observation(start_s=96.0, at_s=100.0, kind="failed", reason="no server")
    one = Judged(
        camera=EVIL, window_idx=1, at_s=100.0, kind="failed", seen={"person": lost}, decisions=()
    )
    for status_then in (200, 200, 503, 503):
        page.board.judged(one)
        assert get(page, "/health")[0] == status_then
    assert json.loads(get(page, "/health")[2]) == {**well, "ok": False, "failing": [EVIL]}
    page.board.judged(replace(one, kind="asked", seen={}))
    assert get(page, "/health")[0] == 200
    page.board.end()
    assert get(page, "/health")[0] == 503


def test_metrics(page: LivePage) -> None:
    pytest.importorskip("prometheus_client", reason="prometheus_client is absent")
    status, headers, body = get(page, "/metrics")
    assert (status, headers["Content-Type"][:10]) == (200, "text/plain")
    assert b"llava_video_watch_frames_total" in body


def test_events_come_with_news_and_end_with_the_watch(page: LivePage) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=10)
    connection.request("GET", "/events")
    response = connection.getresponse()
    assert response.headers["Content-Type"] == "text/event-stream"

    def next_facts() -> dict[str, object]:
        while not (line := response.fp.readline()).startswith(b"data: "):
            assert line
        return dict(json.loads(line[6:]))

    assert next_facts()["ended"] is False
    started_s = time.monotonic()
    page.board.end()
    assert next_facts()["ended"] is True
    assert time.monotonic() - started_s < 2.0
    assert response.fp.read() in (b"", b"\n")


def test_viewers_are_bounded(page: LivePage) -> None:
    taken = 0
    while page.viewers.acquire(blocking=False):
        taken += 1
    assert taken == 16
    assert get(page, "/events")[0] == 503
    assert get(page, "/state")[0] == 200


def test_addresses() -> None:
    assert page_address("8080") == ("127.0.0.1", 8080)
    assert page_address("cam.example:80") == ("cam.example", 80)
    for wrong in ("", "cam.example", ":70000", ":-1", "a:b"):
        with pytest.raises(ConfigError, match="--page"):
            page_address(wrong)
    assert [is_local(host) for host in ("localhost", "127.0.0.9", "::1")] == [True] * 3
    assert [is_local(host) for host in ("0.0.0.0", "10.0.0.7", "cam.example")] == [False] * 3


def test_a_port_that_is_taken_says_so(page: LivePage, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot listen"):
        LivePage(page.board, tmp_path, port=page.port)
