"""Memory shared without a name, that the other side cannot take away."""

import mmap
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from llava_video.video.sandbox_memory import (
    FrameRing,
    LentFile,
    is_short_of_memory,
    nameless_file,
    status_bytes,
)
from llava_video.video.source import open_source

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.mark.parametrize(
    ("size_px", "num_frames", "num_slots"),
    [
        ((10, 10), 100, 16),
        ((10, 10), 3, 3),
        ((1080, 1920), 100, 5),  # 5 x 6,220,800 bytes are in 2^25 = 33,554,432, 6 are not
        ((4320, 7680), 100, 2),  # one of them is 99.5 MB: never fewer than two
    ],
)
def test_slots(size_px: tuple[int, int], num_frames: int, num_slots: int) -> None:
    ring = FrameRing(*size_px, num_frames)
    assert ring.num_slots == num_slots
    assert ring.slots.shape == (num_slots, *size_px, 3)
    ring.sent()


def test_what_is_written_on_the_other_side_is_seen_here() -> None:
    ring = FrameRing(4, 5, 2)
    other = np.frombuffer(mmap.mmap(ring.descriptor, 120), np.uint8).reshape(2, 4, 5, 3)
    other[1] = 9
    assert (ring.slots[1] == 9).all()
    assert not ring.slots[0].any()
    with pytest.raises(ValueError, match="read-only"):
        ring.slots[0] = 1
    ring.sent()


def test_the_other_side_cannot_cut_it_short() -> None:
    descriptor = nameless_file(4096)
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 0)
    os.close(descriptor)


def test_nothing_is_left_open() -> None:
    num_before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        FrameRing(4, 5, 2).sent()
        LentFile(open_source(b"abc")).sent()
    assert len(list(Path("/proc/self/fd").iterdir())) == num_before


def test_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mp4").write_bytes(b"abc")
    monkeypatch.chdir(tmp_path)
    lent = LentFile(open_source("a.mp4"))
    assert (lent.path, lent.descriptors) == (str(tmp_path / "a.mp4"), [])
    lent = LentFile(open_source(b"abcd"))
    assert lent.path == ""
    assert Path(f"/proc/self/fd/{lent.descriptors[0]}").read_bytes() == b"abcd"
    lent.sent()
    assert lent.descriptors == []


def test_systems_without_files_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    lent = LentFile(open_source(b"abc"))
    assert Path(lent.path).read_bytes() == b"abc"
    path = lent.path
    del lent
    assert not Path(path).exists()
    descriptor = nameless_file(10)
    assert os.fstat(descriptor).st_size == 10
    os.close(descriptor)


def test_what_a_process_has() -> None:
    own_bytes = status_bytes("VmSize")
    assert 10**6 < own_bytes == pytest.approx(status_bytes("VmSize", os.getpid()), rel=0.1)
    assert status_bytes("VmPeak") >= status_bytes("VmRSS") > 10**6
    assert status_bytes("NoSuchLine") == status_bytes("VmSize", 2**22 + 1) == 0


def test_near_the_limit() -> None:
    """Of 1000 bytes beyond the base, 800 are near the limit and not yet over it."""
    mmap.mmap(-1, 2**30).close()  # a peak that the test itself does not pass
    peak_bytes = status_bytes("VmPeak")
    assert not is_short_of_memory(peak_bytes - 800, 1000)
    assert is_short_of_memory(peak_bytes - 801, 1000)
