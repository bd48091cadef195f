"""What is sent comes whole, what is no message is refused, and nothing is unpickled."""

import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
from sandbox_cases import plain

from llava_video import errors
from llava_video.errors import DecodeError, LlavaVideoError, SourceError
from llava_video.video.probe import TrackInfo, probe
from llava_video.video.sandbox_channel import (
    BrokenMessageError,
    Channel,
    end_with,
    pack_error,
    pack_info,
    unpack_error,
    unpack_info,
)
from llava_video.video.source import open_source


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel, socket.socket]]:
    """Return a parent's end, a worker's end, and the worker's socket."""
    ours, theirs = socket.socketpair()
    parent, worker = Channel(ours), Channel(theirs, takes_descriptors=True)
    yield parent, worker, theirs
    parent.close()
    worker.close()


def test_values_and_arrays_come_as_they_were(ends: Any) -> None:
    parent, worker, _ = ends
    times = np.arange(5.0)
    parent.send({"do": "read", "name": "ü"}, {"t": times, "k": np.array([], dtype=np.int64)})
    parent.send({"do": "next"})
    message = worker.receive(1)
    assert message.values == {"do": "read", "name": "ü"}
    assert message.arrays["t"].tolist() == times.tolist()
    assert message.arrays["k"].dtype == np.int64
    assert worker.receive(1).values == {"do": "next"}


def test_a_message_larger_than_the_lines_buffer(ends: Any) -> None:
    parent, worker, _ = ends
    sender = threading.Thread(target=parent.send, args=({}, {"t": np.arange(10**6)}))
    sender.start()
    assert worker.receive(5).arrays["t"][-1] == 999_999
    sender.join()


def test_nothing_in_time_is_none(ends: Any) -> None:
    parent, _, theirs = ends
    assert parent.receive(0) is None
    theirs.sendall(struct.pack("!II", 10, 0) + b"{")  # half a message is none
    assert parent.receive(0.05) is None


def test_one_that_does_not_read_does_not_hold_us(ends: Any) -> None:
    parent, _, _ = ends
    with pytest.raises(TimeoutError):
        parent.send({}, {"t": np.arange(10**6)}, timeout_s=0.05)


def test_the_end_of_the_line(ends: Any) -> None:
    parent, worker, _ = ends
    worker.close()
    with pytest.raises(EOFError):
        parent.receive(1)


def test_descriptors_go_to_the_worker_only(ends: Any) -> None:
    parent, worker, theirs = ends
    read_end, write_end = os.pipe()
    parent.send({"do": "open"}, descriptors=[write_end])
    os.close(write_end)
    message = worker.receive(1)
    os.write(message.descriptors[0], b"x")
    assert os.read(read_end, 1) == b"x"
    os.close(message.descriptors[0])
    num_before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        socket.send_fds(theirs, [_raw({"is": "x"})], [read_end, read_end])
        assert parent.receive(1).descriptors == []
    assert len(list(Path("/proc/self/fd").iterdir())) == num_before
    os.close(read_end)


def _raw(values: Any, head: bytes | None = None) -> bytes:
    text = (
        json.dumps({"_arrays": {}, "_descriptors": 0, **values}).encode() if head is None else head
    )
    return struct.pack("!II", len(text), 0) + text


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack("!II", 2**31, 0),
        struct.pack("!II", 2, 2**31),
        _raw({}, b"no json"),
        _raw({}, b"[1]"),
        _raw({}, b'{"is": "frame"}'),
        _raw({}, b"[" * 100_000),
        _raw({"_arrays": {"a": ["O", 1]}}),
        _raw({"_arrays": {"a": ["<f8", 10]}}),
        _raw({"_arrays": {"a": ["<f8", -1]}}),
        _raw({"_descriptors": "many"}),
        _raw({"_arrays": {"a": ["<f8", 2**70]}}),
        _raw({"_arrays": {"a": ["(1,", 1]}}),
        _raw({"_descriptors": float("inf")}),
    ],
)
def test_what_is_no_message(ends: Any, sent: bytes) -> None:
    parent, _, theirs = ends
    theirs.sendall(sent)
    with pytest.raises(BrokenMessageError):
        parent.receive(1)


def _info(tmp_path: Path) -> TrackInfo:
    path = synthetic.write_video(
        tmp_path / "a.mp4", 100, codec_options={"g": "1"}, sample_aspect=Fraction(4, 3)
    )
    return replace(probe(open_source(path)), faults=("odd.",))


def test_an_info_comes_back_complete(tmp_path: Path) -> None:
    info = _info(tmp_path)
    assert len(info.keyframe_idxs) > 32  # those go as an array
    values, arrays = pack_info(info)
    back = unpack_info(json.loads(json.dumps(values)), arrays)
    assert plain(back) == plain(info)
    assert type(back.keyframe_idxs) is tuple
    assert back.sample_aspect == Fraction(4, 3)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_frames": 99},
        {"height_px": 0},
        {"width_px": "wide"},
        {"pts_s": np.zeros(100)},
        {"pts_s": np.arange(100)},
        {"pts_s": np.append(np.arange(99.0), np.nan)},
        {"pts_s": np.append(np.arange(99.0), np.inf)},
        {"keyframe_idxs": (100,)},
        {"keyframe_idxs": (-1,)},
        {"keyframe_idxs": (2**70,)},
        {"sample_aspect": "1/0"},
        {"tick_s": 0.0},
        {"tick_s": float("nan")},
        {"duration_s": float("nan")},
        {"packet_idxs": np.arange(99)},
        {"packet_idxs": np.arange(100.0)},
        {"unheard_of": 1},
    ],
)
def test_facts_that_cannot_be(tmp_path: Path, changes: dict[str, Any]) -> None:
    values, arrays = pack_info(_info(tmp_path))
    for name, value in changes.items():
        arrays.pop(name, None)
        if isinstance(value, np.ndarray):
            arrays[name] = value
        else:
            values["plain"][name] = value
    with pytest.raises(BrokenMessageError):
        unpack_info(values, arrays)


@pytest.mark.parametrize("kind", [DecodeError, SourceError, errors.BackendMissingError])
def test_errors_come_back(kind: type[LlavaVideoError]) -> None:
    back = unpack_error(json.loads(json.dumps(pack_error(kind("found.", "do.")))))
    assert type(back) is kind
    assert (back.message, back.hint) == ("found.", "do.")


def test_an_error_keeps_its_place_and_an_unknown_one_is_a_decode_error() -> None:
    back = unpack_error(pack_error(DecodeError("found.", pts_s=1.5)))
    assert isinstance(back, DecodeError)
    assert back.pts_s == 1.5
    lie = unpack_error({"error": "SystemExit", "message": 3, "pts_s": "soon"})
    assert type(lie) is DecodeError
    assert (lie.message, lie.pts_s) == ("3", None)


def test_a_process_ends_with_its_lifeline() -> None:
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write_end)
        end_with(read_end)
        while True:
            pass
    os.close(read_end)
    import time

    time.sleep(0.2)
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    os.close(write_end)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
