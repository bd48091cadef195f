"""The truth is painted into the frames: each shows its own index."""

import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import synthetic
from av.video.frame import PictureType

from llava_video.errors import DecodeError, SourceError
from llava_video.video import decode_pyav
from llava_video.video.decode_pass import Pass
from llava_video.video.decode_pyav import PyavReader
from llava_video.video.probe import probe
from llava_video.video.source import Source, open_source

KINDS = [
    ("mp4", "libx264"),
    ("mkv", "libx264"),
    ("mov", "libx264"),
    ("ts", "libx264"),
    ("flv", "libx264"),
    ("avi", "libx264"),
    ("webm", "libvpx-vp9"),
    ("mp4", "libvpx-vp9"),
    ("webm", "libvpx"),
    ("mp4", "libx265"),
    ("mkv", "libx265"),
    ("ts", "libx265"),
    ("mp4", "mpeg4"),
    ("avi", "mpeg4"),
    ("mpg", "mpeg2video"),
    ("ts", "mpeg2video"),
    ("mp4", "libsvtav1"),
    ("webm", "libsvtav1"),
]


def _read(source: Source, idxs: list[int]) -> dict[int, np.ndarray[Any, np.dtype[np.uint8]]]:
    return dict(PyavReader(source, probe(source)).frames(idxs))


def _passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the care of every pass that is begun."""
    begun: list[str] = []

    class Noting(Pass):
        def __init__(self, container: Any, info: Any, care: Any, *rest: Any) -> None:
            begun.append(care.name)
            super().__init__(container, info, care, *rest)

    monkeypatch.setattr(decode_pyav, "Pass", Noting)
    return begun


def _cores(monkeypatch: pytest.MonkeyPatch, num_cores: int) -> None:
    monkeypatch.setattr(decode_pyav, "num_cores", lambda: num_cores)


@pytest.mark.parametrize(("suffix", "encoder"), KINDS)
def test_the_right_frames(tmp_path: Path, suffix: str, encoder: str) -> None:
    if not synthetic.can_encode(encoder):
        pytest.skip(f"this PyAV has no {encoder}")
    path = synthetic.write_video(tmp_path / f"a.{suffix}", 120, codec=encoder)
    source = open_source(path)
    every = _read(source, list(range(120)))
    assert [synthetic.read_index(frame) for frame in every.values()] == list(range(120))
    chance = random.Random(0)
    for num in (1, 2, 5, 20):
        idxs = sorted(chance.sample(range(120), num))
        some = _read(source, idxs)
        assert list(some) == idxs
        # Not only the index: every pixel, whether seeked to or decoded through.
        assert all((some[idx] == every[idx]).all() for idx in idxs)


@pytest.mark.parametrize("x264", ["open-gop=1:bframes=3", "intra-refresh=1"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_keyframes_that_are_no_clean_start(tmp_path: Path, suffix: str, x264: str) -> None:
    options = {"preset": "veryfast", "x264-params": f"keyint=12:scenecut=0:{x264}"}
    path = synthetic.write_video(tmp_path / f"a.{suffix}", 96, codec_options=options)
    source = open_source(path)
    every = _read(source, list(range(96)))
    assert len(every) == 96
    for idx in range(3, 96, 11):
        assert (_read(source, [idx])[idx] == every[idx]).all()


def test_runs_are_read_side_by_side_or_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A keyframe every 12. Four runs for two cores; on one core those that lie close are joined.
    source = open_source(synthetic.write_video(tmp_path / "a.mp4", 120))
    read: list[tuple[int, ...]] = []
    real = Pass.frames

    def noting(self: Any, run: Any) -> Any:
        read.append(run.idxs)
        return real(self, run)

    monkeypatch.setattr(Pass, "frames", noting)
    begun = _passes(monkeypatch)
    _cores(monkeypatch, 2)
    idxs = [0, 5, 11, 13, 100, 101, 119]
    side_by_side = _read(source, idxs)
    assert sorted(read) == [(0, 5, 11), (13,), (100, 101), (119,)]
    assert begun in (["FAST"], ["FAST", "FAST"])  # one may have been quicker than the other began
    read.clear(), begun.clear()
    _cores(monkeypatch, 1)
    joined = _read(source, idxs)
    assert read == [(0, 5, 11, 13), (100, 101, 119)]
    assert begun == ["FAST"]
    assert list(side_by_side) == list(joined) == idxs
    assert all((side_by_side[idx] == joined[idx]).all() for idx in idxs)


def test_every_frame_of_a_large_picture_is_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Held frames of the second run would not fit: the codec's own threads read them all.
    source = open_source(synthetic.write_video(tmp_path / "a.mp4", 60))
    monkeypatch.setattr(decode_pyav, "_MOST_HELD_BYTES", 5 * 96 * 160 * 3 // 2)
    _cores(monkeypatch, 2)
    begun = _passes(monkeypatch)
    every = _read(source, list(range(60)))
    assert [synthetic.read_index(frame) for frame in every.values()] == list(range(60))
    assert begun == ["FAST"]


def test_pictures_nobody_refers_to_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"x264-params": "b-pyramid=none"}
    source = open_source(synthetic.write_video(tmp_path / "a.mp4", 120, codec_options=options))
    every = _read(source, list(range(120)))
    with av.open(str(source.path)) as container:
        kinds = [frame.pict_type for frame in container.decode(video=0)]
    num_fed: list[int] = []
    real = Pass._frames_of

    def counting(self: Any, packet: Any) -> Any:
        num_fed.append(bool(packet.size))
        return real(self, packet)

    monkeypatch.setattr(Pass, "_frames_of", counting)
    b_frames = [idx for idx in range(48, 60) if kinds[idx] == PictureType.B]
    assert len(b_frames) >= 4
    for idx in (b_frames[-1], b_frames[0], 59):
        num_fed.clear()
        assert (_read(source, [idx])[idx] == every[idx]).all()
        # From keyframe 48 to the frame: no B-frame is referred to. A B-frame
        # stands behind the picture that is shown after it.
        ahead = next(i for i in range(idx, 60) if kinds[i] != PictureType.B)
        others = [i for i in range(48, ahead + 1) if kinds[i] != PictureType.B]
        assert sum(num_fed) == len({*others, idx})


def test_a_seek_that_lands_wrong_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(synthetic.write_video(tmp_path / "a.mp4", 120))
    info = probe(source)
    # A container that always seeks a second too far.
    late = tuple(ticks + round(1 / info.tick_s) for ticks in info.key_ticks)
    object.__setattr__(info, "key_ticks", late)
    begun = _passes(monkeypatch)
    frames = dict(PyavReader(source, info).frames([50, 80]))
    assert [synthetic.read_index(frames[idx]) for idx in (50, 80)] == [50, 80]
    assert (begun[0], begun[-1], begun.count("LINEAR")) == ("FAST", "LINEAR", 1)
    assert "CAREFUL" in begun


def _damaged(path: Path, packet_idxs: list[int], *, keep: int = 12) -> bytes:
    """Overwrite the inside of some packets with noise, leaving their first bytes."""
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    for idx in packet_idxs:
        at, size = packets[idx]
        noise = random.Random(idx).randbytes(size)
        content[at + keep : at + size] = noise[: size - keep]
    return bytes(content)


def _shuffled(path: Path, **options: Any) -> Path:
    """Write bars over noise that differs in every frame, so that no frame can stand for another."""
    rng = np.random.default_rng(0)

    def frames() -> Any:
        for idx in range(60):
            noise = rng.integers(0, 64, (96, 160, 3), dtype=np.uint8)
            yield synthetic.paint_frame(idx) // 2 + noise

    from llava_video.world.clip import write_clip

    gop = {"preset": "veryfast", "g": "20", "bf": "0", "sc_threshold": "0"}
    write_clip(path, frames(), codec_options=gop | options)
    return path


def test_after_damage_nothing_is_shown_until_the_next_keyframe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _shuffled(tmp_path / "a.mp4")
    truth = _read(open_source(path), list(range(60)))
    begun = _passes(monkeypatch)
    # The slice header goes too: the packet of frame 25 cannot be decoded at all.
    got = _read(open_source(_damaged(path, [25], keep=4)), list(range(60)))
    assert (begun.count("CAREFUL"), begun.count("LINEAR")) == (1, 0)
    assert set(range(25)) <= set(got)
    assert set(range(40, 60)) <= set(got)
    assert not set(range(25, 40)) & set(got)
    assert all((got[idx] == truth[idx]).all() for idx in got)


def test_a_picture_that_is_marked_damaged_is_left_out(tmp_path: Path) -> None:
    path = _shuffled(tmp_path / "a.mp4")
    got = _read(open_source(_damaged(path, [25], keep=400)), list(range(60)))
    assert 25 not in got
    assert {24, 40, 59} <= set(got)


def test_what_lies_behind_the_damage_is_reached_by_a_seek(tmp_path: Path) -> None:
    path = _shuffled(tmp_path / "a.mp4")
    got = _read(open_source(_damaged(path, [25], keep=4)), [30, 45, 59])
    assert list(got) == [45, 59]


def test_frames_told_by_their_order_are_counted_over_the_damage(tmp_path: Path) -> None:
    path = _shuffled(tmp_path / "a.avi")
    truth = _read(open_source(path), list(range(60)))
    source = open_source(_damaged(path, [25], keep=12))
    assert probe(source).by_order
    got = _read(source, list(range(60)))
    assert set(got) >= set(range(25)) | set(range(40, 60))
    assert all((got[idx] == truth[idx]).all() for idx in (*range(25), *range(40, 60)))


def test_a_first_keyframe_that_is_damaged(tmp_path: Path) -> None:
    path = _shuffled(tmp_path / "a.mp4")
    truth = _read(open_source(path), list(range(60)))
    source = open_source(_damaged(path, [0], keep=4))
    # The first second cannot be decoded by anybody: the video begins at its second keyframe.
    assert probe(source).num_frames == 40
    got = _read(source, list(range(40)))
    assert list(got) == list(range(40))
    assert all((got[idx] == truth[idx + 20]).all() for idx in got)


@pytest.mark.parametrize("suffix", ["mkv", "ts", "avi"])
def test_a_truncated_file_gives_what_it_holds(tmp_path: Path, suffix: str) -> None:
    path = synthetic.write_video(tmp_path / f"a.{suffix}", 100, codec_options={"g": "5"})
    content = path.read_bytes()
    source = open_source(content[: len(content) * 7 // 10])
    info = probe(source)
    assert 20 < info.num_frames < 100
    got = _read(source, list(range(info.num_frames)))
    assert len(got) >= info.num_frames - 1  # the last one may be cut short
    # Of the last reordered packets some are missing: the times tell which.
    shown = np.rint(info.pts_s * 30).astype(int)
    assert all(synthetic.read_index(frame) == shown[idx] for idx, frame in got.items())


def test_joined_recordings(tmp_path: Path) -> None:
    one = synthetic.write_video(tmp_path / "a.ts", 60).read_bytes()
    info = probe(open_source(one + one))
    assert (info.num_frames, info.by_order) == (120, True)
    assert np.diff(info.pts_s) == pytest.approx(1 / 30, abs=1e-4)
    got = _read(open_source(one + one), [3, 59, 60, 61, 119])
    assert [synthetic.read_index(frame) for frame in got.values()] == [3, 59, 0, 1, 59]


def test_a_stream_without_times(tmp_path: Path) -> None:
    source = open_source(synthetic.write_video(tmp_path / "a.h264", 40))
    info = probe(source)
    assert info.by_order
    assert "no times" in info.faults[0]
    got = _read(source, [0, 7, 39])
    assert [synthetic.read_index(frame) for frame in got.values()] == [0, 7, 39]


@pytest.mark.parametrize("rotation_deg", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_frames_are_upright(tmp_path: Path, rotation_deg: int, mirrored: bool) -> None:
    path = synthetic.write_video(
        tmp_path / "a.mp4", 40, rotation_deg=rotation_deg, mirrored=mirrored
    )
    for idx, frame in _read(open_source(path), [5, 38]).items():
        assert frame.shape == (96, 160, 3)
        assert synthetic.read_index(frame) == idx
        assert synthetic.is_upright(frame)


@pytest.mark.parametrize(("height_px", "width_px"), [(95, 159), (33, 47), (96, 161)])
def test_odd_sizes(tmp_path: Path, height_px: int, width_px: int) -> None:
    path = synthetic.write_video(
        tmp_path / "a.mp4", 20, height_px=height_px, width_px=width_px, pixel_format="yuv444p"
    )
    got = _read(open_source(path), [0, 19])
    assert [frame.shape for frame in got.values()] == [(height_px, width_px, 3)] * 2
    assert [synthetic.read_index(frame) for frame in got.values()] == [0, 19]


@pytest.mark.parametrize("rotation_deg", [0, 90])
def test_pixels_become_square(tmp_path: Path, rotation_deg: int) -> None:
    path = synthetic.write_video(
        tmp_path / "a.mp4",
        20,
        height_px=160,
        width_px=120,
        rotation_deg=rotation_deg,
        sample_aspect=Fraction(4, 3),
    )
    frame = _read(open_source(path), [13])[13]
    # The stored width is stretched: the shown width, or the shown height after a quarter turn.
    assert frame.shape == ((160, 160, 3) if rotation_deg == 0 else (213, 120, 3))
    assert synthetic.read_index(frame) == 13


def test_ten_bits_keep_their_levels(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    grey = np.repeat(np.arange(0, 256, 4, dtype=np.uint8), 4)[None, :, None]
    picture = np.ascontiguousarray(grey.repeat(64, axis=0).repeat(3, axis=2))
    from llava_video.world.clip import write_clip

    write_clip(path, [picture] * 3, codec="ffv1", pixel_format="yuv420p10le")
    frame = _read(open_source(path), [1])[1]
    # 8 bits of full range are 219 steps of limited range: one level, and one of rounding.
    assert np.abs(frame.astype(int) - picture).max() <= 2


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_rate_and_a_late_start(tmp_path: Path, suffix: str) -> None:
    times_s = [2 + i * 0.033 for i in range(15)] + [3 + i * 0.4 for i in range(15)]
    path = synthetic.write_video(tmp_path / f"a.{suffix}", 30, times_s=times_s)
    got = _read(open_source(path), [0, 14, 15, 29])
    assert [synthetic.read_index(frame) for frame in got.values()] == [0, 14, 15, 29]


def test_one_frame(tmp_path: Path) -> None:
    path = synthetic.write_video(tmp_path / "a.mp4", 1)
    assert synthetic.read_index(_read(open_source(path), [0])[0]) == 0


def test_a_size_that_changes_midway(tmp_path: Path) -> None:
    parts = [
        synthetic.write_video(tmp_path / f"{w}.h264", 10, height_px=h, width_px=w).read_bytes()
        for h, w in ((96, 160), (48, 80))
    ]
    got = _read(open_source(b"".join(parts)), [4, 15])
    assert [frame.shape for frame in got.values()] == [(96, 160, 3)] * 2
    assert [synthetic.read_index(frame) for frame in got.values()] == [4, 5]


def test_a_file_that_has_gone(tmp_path: Path) -> None:
    path = synthetic.write_video(tmp_path / "a.mp4", 5)
    source = open_source(path)
    reader = PyavReader(source, probe(source))
    path.unlink()
    with pytest.raises(SourceError, match="No such file"):
        next(reader.frames([0]))


def test_pixels_that_cannot_become_rgb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(synthetic.write_video(tmp_path / "a.mp4", 5))
    reader = PyavReader(source, probe(source))
    frame = next(av.open(str(source.path)).decode(video=0))

    def refuses(_: object) -> None:
        raise ValueError("Conversion to numpy array not supported")

    monkeypatch.setattr("llava_video.video.decode_pyav.rgb_of", refuses)
    with pytest.raises(DecodeError, match="yuv420p cannot become RGB") as caught:
        reader._upright(frame, 3)
    assert caught.value.pts_s == pytest.approx(0.1)


def test_readers_do_not_disturb_one_another(tmp_path: Path) -> None:
    source = open_source(synthetic.write_video(tmp_path / "a.mp4", 60))
    reader = PyavReader(source, probe(source))
    one, other = reader.frames([1, 30, 59]), reader.frames([0, 29, 58])
    seen = [
        (synthetic.read_index(a[1]), synthetic.read_index(b[1]))
        for a, b in zip(one, other, strict=True)
    ]
    assert seen == [(1, 0), (30, 29), (59, 58)]
