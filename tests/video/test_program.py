"""A program of ours in a process: started without secrets, heard, ended whatever it does."""

import os
import sys
import time
from pathlib import Path

import pytest
from stream_servers import is_gone

from llava_video.video.program import Program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

ADDRESS = {"kind": "tcp", "shown": "", "url": "tcp://mute", "format": None, "options": {}}


def test_it_is_heard_and_ends_when_it_is_told_to() -> None:
    program = Program("stream_stubs", {})
    message = program.receive(30)
    assert message is not None
    assert message.values["is"] == "ready"
    assert program.is_alive
    pid = program.pid
    program.send({"do": "open", "address": ADDRESS})
    assert program.receive(0.05) is None  # it sleeps, and would for long
    begun_s = time.monotonic()
    program.kill()
    program.kill()  # once more does no harm
    assert time.monotonic() - begun_s < 1.0
    assert is_gone(pid)
    assert not program.is_alive


def test_its_end_is_heard() -> None:
    program = Program("stream_stubs", {})
    program.receive(30)
    program.send({"do": "open", "address": {**ADDRESS, "url": "tcp://crashes"}})
    program.receive(30)
    with pytest.raises(EOFError):
        program.receive(30)
    assert program.reap() == -6  # SIGABRT
    program.kill()


def test_others_see_no_order_in_its_command_line() -> None:
    program = Program("stream_stubs", {})
    program.receive(30)
    program.send({"do": "open", "address": {**ADDRESS, "url": "tcp://mute:SECRET"}})
    shown = Path(f"/proc/{program.pid}/cmdline").read_bytes()
    shown += Path(f"/proc/{program.pid}/environ").read_bytes()
    program.kill()
    assert b"stream_stubs" in shown
    assert b"SECRET" not in shown
    assert os.getpid()  # and this process goes on
