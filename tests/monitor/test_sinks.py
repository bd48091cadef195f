"""A file, a command and a terminal take messages whole, or say why not."""

import io
import json
import os
import sys
import time
from pathlib import Path

import pytest
from monitor_cases import message_of

from llava_video.errors import ConfigError, SinkError
from llava_video.monitor.message import Message
from llava_video.monitor.sink_settings import SinkSettings
from llava_video.monitor.sinks import CommandSink, JsonlSink, TerminalSink, open_sink
from llava_video.monitor.webhook import WebhookSink


def send(sink: JsonlSink | CommandSink | TerminalSink, message: Message) -> None:
    sink.send(message, message.body.encode())


def ids_in(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def test_lines_are_added_to_a_file(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    sink = JsonlSink("log", path)
    for number in (1, 2):
        send(sink, message_of(number, description="two\nlines"))
    assert ids_in(path) == [message_of(1).id, message_of(2).id]
    sink.close()


def test_a_line_is_not_written_twice_even_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    for _ in range(2):
        sink = JsonlSink("log", path)
        for _ in range(2):
            send(sink, message_of(1))
    assert ids_in(path) == [message_of(1).id]


@pytest.mark.parametrize("torn", ['{"id": "00', "{", '{"id": ' + '"x' * 70_000])
def test_half_a_line_of_a_killed_process_is_taken_away(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "alerts.jsonl"
    path.write_text(f"{message_of(1).body}\n{torn}")
    send(JsonlSink("log", path), message_of(2))
    assert ids_in(path) == [message_of(1).id, message_of(2).id]


def test_somebody_elses_last_line_stays(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    path.write_text("# begun by hand")
    send(JsonlSink("log", path), message_of(1))
    assert path.read_text() == f"# begun by hand\n{message_of(1).body}\n"


def test_a_file_that_cannot_be_written_is_told_by_its_sink(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="sink 'log' cannot write: No such file"):
        send(JsonlSink("log", tmp_path / "none" / "a.jsonl"), message_of(1))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_a_refusal() -> None:
    with pytest.raises(SinkError, match="No space left"):
        send(JsonlSink("log", Path("/dev/full")), message_of(1))


@pytest.mark.skipif(sys.platform == "win32", reason="files have no largest size there")
@pytest.mark.parametrize("room", [1, 100])
def test_a_line_that_fits_by_half_spoils_nothing(tmp_path: Path, room: int) -> None:
    import resource

    path = tmp_path / "alerts.jsonl"
    sink = JsonlSink("log", path)
    send(sink, message_of(1))
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + room, hard))
    try:
        with pytest.raises(SinkError, match="cannot write"):
            send(sink, message_of(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
    assert ids_in(path) == [message_of(1).id]
    send(sink, message_of(2))
    assert ids_in(path) == [message_of(1).id, message_of(2).id]


def test_a_line_that_did_not_reach_the_disk_is_not_written_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "alerts.jsonl"
    sink = JsonlSink("log", path)
    with monkeypatch.context() as broken:
        broken.setattr(
            "os.fsync", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error"))
        )
        with pytest.raises(SinkError, match="Input/output error"):
            send(sink, message_of(1))
    send(sink, message_of(1))
    assert ids_in(path) == [message_of(1).id]


def python(code: str, timeout_s: float = 30.0) -> CommandSink:
    return CommandSink("siren", (sys.executable, "-S", "-c", code), timeout_s)


def test_a_command_gets_the_message_on_its_input(tmp_path: Path) -> None:
    path = tmp_path / "got $(touch x); x"
    sink = CommandSink(
        "siren",
        (sys.executable, "-S", "-c",
         "import os,sys; open(sys.argv[1],'w').write("
         "sys.stdin.read() + os.environ['LLAVA_VIDEO_ALERT_ID'])", str(path)),
        30.0,
    )  # fmt: skip
    send(sink, message_of(1))
    assert path.read_text() == message_of(1).body + message_of(1).alert_id
    assert [one.name for one in tmp_path.iterdir()] == [path.name]  # no shell touched x


def test_a_command_that_fails_says_its_last_words_without_tricks() -> None:
    with pytest.raises(SinkError, match=r"ended with 3\. \[2Jno horn") as caught:
        send(
            python(r"import sys; sys.stderr.write('\x1b[2Jno\n horn'); sys.exit(3)"), message_of(1)
        )
    assert "\x1b" not in str(caught.value)


def test_a_command_that_reads_nothing_is_fine() -> None:
    sink = python("import sys; sys.stdin.close()")
    sink.send(message_of(1), b"x" * 1_000_000)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no children that stay")
def test_a_command_may_leave_something_running() -> None:
    # It holds the error stream long beyond the timeout.
    code = "import subprocess, sys; subprocess.Popen(['sleep', '20'])"
    send(python(code, timeout_s=10.0), message_of(1))


def test_a_command_that_is_not_there_is_told() -> None:
    with pytest.raises(SinkError, match="cannot start its command: No such file"):
        send(CommandSink("siren", ("/nowhere/siren",), 1.0), message_of(1))


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="there are no groups of processes")
def test_a_command_that_hangs_is_killed_with_what_it_started(tmp_path: Path) -> None:
    path = tmp_path / "child"
    code = (
        "import subprocess,sys; p = subprocess.Popen(['sleep', '60']); "
        f"open({str(path)!r}, 'w').write(str(p.pid)); p.wait()"
    )
    with pytest.raises(SinkError, match=r"took more than 1\.5 s"):
        send(python(code, timeout_s=1.5), message_of(1))
    child = int(path.read_text())
    for _ in range(100):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("what it started is still there")


def test_a_terminal_shows_one_line_that_steers_nothing() -> None:
    stream = io.StringIO()
    sink = TerminalSink("screen", stream)
    send(sink, message_of(1, warnings=["\x1b[31mred\r\nnew line"]))
    send(sink, message_of(1, "update", description="A \x9bperson.", problem=""))
    send(sink, message_of(2, "update", description="", problem="no memory"))
    sink.close()
    lines = stream.getvalue().splitlines()
    assert lines[0] == (
        '2026-01-01T00:00:00.000Z WARNING alert 00000000 | gate: person | "yes" (90%) | '
        "[31mred new line"
    )
    assert lines[1].endswith("| gate: person | A person.")
    assert lines[2].endswith("| no memory")
    stream.close()
    with pytest.raises(SinkError, match="terminal"):
        send(sink, message_of(3))


def test_each_kind_is_opened_by_its_settings(tmp_path: Path) -> None:
    hook = SinkSettings(name="h", kind="webhook", address="http://h", secret="${S}")
    assert isinstance(open_sink(hook, {"S": "x"}), WebhookSink)
    with pytest.raises(ConfigError, match="no S"):
        open_sink(hook, {})
    path = str(tmp_path / "a")
    assert isinstance(open_sink(SinkSettings(name="j", kind="jsonl", path=path), {}), JsonlSink)
    run = SinkSettings(name="c", kind="command", command=("true",))
    assert isinstance(open_sink(run, {}), CommandSink)
    stream = io.StringIO()
    send(open_sink(SinkSettings(name="t"), {}, stream=stream), message_of(1))
    assert "gate: person" in stream.getvalue()
