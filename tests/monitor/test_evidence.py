"""Pictures are written whole, removed oldest first, and never stand in the way of an alert."""

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monitor_cases import message_of
from PIL import Image

from llava_video.contact_sheet import write_contact_sheet
from llava_video.errors import ConfigError, SourceError
from llava_video.monitor.evidence import RESERVE, EvidenceStore
from llava_video.monitor.message import FileKind, StoredFile
from llava_video.monitor.settings import RetentionSettings
from llava_video.monitor.spool import Batch, Spool

FRAMES = np.stack([np.full((48, 64, 3), level, np.uint8) for level in (40, 120, 200)])


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool(tmp_path) as opened:
        yield opened


def store_in(spool: Spool, **settings: float) -> EvidenceStore:
    return EvidenceStore(spool, RetentionSettings(**{"reserve_bytes": 5000, **settings}))


def alert(number: int) -> str:
    return f"{number:032x}"


def keep(
    store: EvidenceStore, spool: Spool, number: int, size: int = 100, kind: FileKind = "clip"
) -> StoredFile:
    """Write and name a file of a size, made in second `number`."""
    kept = store.write(alert(number), kind, ".bin", lambda p: p.write_bytes(b"x" * size), number)
    assert kept is not None
    spool.put(Batch(files=[kept]))
    return kept


def names_in(store: EvidenceStore) -> list[int]:
    return sorted(int(path.name[:32], 16) for path in store.folder.iterdir())


def test_a_snapshot_is_the_frame(spool: Spool) -> None:
    store = store_in(spool)
    kept = store.snapshot(alert(7), FRAMES[1], 5.0)
    assert kept is not None
    assert kept.name == f"{alert(7)}-snapshot.jpg"
    picture = np.asarray(Image.open(store.folder / kept.name))
    assert picture.shape == (48, 64, 3)
    assert np.abs(picture.astype(int) - 120).max() <= 3
    assert kept.num_bytes == (store.folder / kept.name).stat().st_size


def test_a_sheet_has_every_frame_with_its_wall_clock_time(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[list[str]] = []

    def noted(frames: Any, times_s: Any, path: Any, *, captions: list[str]) -> None:
        told.append(captions)
        write_contact_sheet(frames, times_s, path, captions=captions)

    monkeypatch.setattr("llava_video.monitor.evidence.write_contact_sheet", noted)
    store = store_in(spool)
    kept = store.sheet(alert(1), FRAMES, [1_790_000_000.0, 1_790_000_001.25, 1_790_086_399.5], 5.0)
    assert kept is not None
    assert told == [["14:13:20.00", "14:13:21.25", "14:13:19.50"]]
    sheet = np.asarray(Image.open(store.folder / kept.name).convert("L"))
    assert {40, 120, 200} <= {int(level) for level in np.unique(sheet // 10 * 10)}


def test_a_clip_is_a_video_of_the_frames_at_their_times(spool: Spool) -> None:
    from llava_video.video.probe import probe
    from llava_video.video.source import open_source

    store = store_in(spool)
    odd = np.pad(FRAMES, ((0, 0), (0, 1), (0, 1), (0, 0)))
    kept = store.clip(alert(1), odd, [100.0, 100.5, 102.0], 5.0)
    assert kept is not None
    info = probe(open_source(store.folder / kept.name))
    assert (info.height_px, info.width_px) == (48, 64)
    assert info.pts_s.tolist() == pytest.approx([0.0, 0.5, 2.0])


@pytest.mark.parametrize(
    ("times_s", "starts_s"),
    [
        ([10.0, 11.0, 10.5], [0.0, 1.0, 2.0]),
        ([100.0, 40.0, 42.0], [0.0, 2.0, 4.0]),
        ([10.0, 10.0, 10.0], [0.0, 1.0, 2.0]),
        ([10.0, 10.5, 1.7e9], [0.0, 0.5, 1.0]),
    ],
)
def test_a_clip_goes_forward_at_its_pace_though_the_clock_was_set(
    spool: Spool, times_s: list[float], starts_s: list[float]
) -> None:
    from llava_video.video.probe import probe
    from llava_video.video.source import open_source

    store = store_in(spool)
    kept = store.clip(alert(1), FRAMES, times_s, 5.0)
    assert kept is not None
    assert probe(open_source(store.folder / kept.name)).pts_s.tolist() == pytest.approx(starts_s)


def test_a_video_that_cannot_be_written_is_told_and_a_full_disk_makes_room(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import av.error

    found: list[Exception] = [av.error.ArgumentError(errno.EINVAL, "Invalid argument")]

    def fails(*_: object, **__: object) -> None:
        raise found[0]

    monkeypatch.setattr("llava_video.world.clip.write_clip", fails)
    store = store_in(spool)
    with pytest.raises(SourceError, match=r"the clip of alert 0+1 cannot be written"):
        store.clip(alert(1), FRAMES, [1.0, 2.0, 3.0], 5.0)
    found[0] = av.error.OSError(errno.ENOSPC, "No space left on device")
    assert store.clip(alert(1), FRAMES, [1.0, 2.0, 3.0], 5.0) is None
    assert store.was_full


def test_a_fault_that_is_no_full_disk_is_told(spool: Spool) -> None:
    store = store_in(spool)

    def denied(path: Path) -> None:
        raise PermissionError(errno.EACCES, "no")

    with pytest.raises(PermissionError):
        store.write(alert(1), "clip", ".bin", denied, 1.0)
    with pytest.raises(ConfigError):
        store.sheet(alert(1), FRAMES, [1.0], 5.0)
    assert list(store.folder.iterdir()) == []


def test_the_oldest_goes_when_the_disk_is_full_and_what_is_waited_for_last(spool: Spool) -> None:
    store = store_in(spool)
    for number in (1, 2, 3):
        keep(store, spool, number, size=700_000)
    spool.put(Batch(messages=[(message_of(1), ["a"])]))  # 1 is waited for
    tries = []

    def full(path: Path) -> None:
        tries.append(names_in_without_hidden(store))
        if len(tries) < 4:
            raise OSError(errno.ENOSPC, "full")
        path.write_bytes(b"new")

    kept = store.write(alert(9), "clip", ".bin", full, 9.0)
    # A mebibyte goes at once: 2 and 3, then 1, and then there is nothing left.
    assert tries == [[1, 2, 3], [1], []]
    assert kept is None
    assert store.num_bytes == 0


def names_in_without_hidden(store: EvidenceStore) -> list[int]:
    return sorted(int(p.name[:32], 16) for p in store.folder.iterdir() if p.name[0] != ".")


def test_room_for_alerts_is_the_last_to_be_given(spool: Spool) -> None:
    store = store_in(spool)
    reserve = spool.folder / RESERVE
    assert reserve.stat().st_size == 5000
    assert reserve.read_bytes() == bytes(5000)
    keep(store, spool, 1)
    assert spool.free()
    assert names_in(store) == []
    assert reserve.exists()
    assert spool.free()
    assert not reserve.exists()
    assert not spool.free()
    store.tend(10.0)
    assert reserve.stat().st_size == 5000


def test_tending_removes_by_age_and_bytes_and_takes_names_off_the_list(spool: Spool) -> None:
    store = store_in(spool, days=1, most_bytes=250)
    for number in (1, 2, 3, 4):
        keep(store, spool, number)
    assert store.tend(5.0) == 2
    assert names_in(store) == [3, 4]
    assert [one.made_at_s for one in spool.files()] == [3, 4]
    assert store.num_bytes == 200
    assert store.tend(86_400.0 + 3) == 1
    assert names_in(store) == [4]
    assert store.tend(86_400.0 + 3) == 0


def test_what_a_killed_process_left_is_removed_at_the_start(spool: Spool) -> None:
    store = store_in(spool)
    keep(store, spool, 1)
    lost = keep(store, spool, 2)
    (store.folder / lost.name).unlink()
    (store.folder / f"{alert(3)}-snapshot.jpg").write_bytes(b"never named")
    (store.folder / ".0123abcd.jpg").write_bytes(b"half")
    (store.folder / "notes.txt").write_bytes(b"somebody's")
    again = store_in(spool)
    assert sorted(path.name for path in again.folder.iterdir()) == [
        f"{alert(1)}-clip.bin", "notes.txt",
    ]  # fmt: skip
    assert again.num_bytes == 100
    again.tend(5.0)
    assert len(spool.files()) == 1
