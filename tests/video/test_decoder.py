import contextlib
import random
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic

from llava_video import backends
from llava_video.errors import BackendMissingError, ConfigError, DecodeError, SourceError
from llava_video.video import decoder as decoder_module
from llava_video.video.decoder import decord_objection, open_decoder
from llava_video.video.probe import TrackInfo, probe
from llava_video.video.source import open_source

HAS_DECORD = backends.version("decord") is not None
needs_decord = pytest.mark.skipif(not HAS_DECORD, reason="decord is not installed")
needs_torchcodec = pytest.mark.skipif(
    backends.version("torchcodec") is None, reason="torchcodec is not installed"
)
BACKENDS = [
    pytest.param("decord", marks=needs_decord),
    "pyav",
    pytest.param("torchcodec", marks=needs_torchcodec),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return synthetic.write_video(tmp_path / "a.mp4", 60)


@needs_decord
@pytest.mark.parametrize(
    ("suffix", "encoder"),
    [("mp4", "libx264"), ("mov", "libx264"), ("mkv", "libx264"), ("webm", "libvpx-vp9")],
)
def test_decord_reads_what_it_reads_exactly(tmp_path: Path, suffix: str, encoder: str) -> None:
    source = open_source(synthetic.write_video(tmp_path / f"a.{suffix}", 30, codec=encoder))
    with open_decoder(source) as decoder:
        assert decoder.backend == "pyav"
        assert decoder.reason == "PyAV is exact, and faster than decord."
    with open_decoder(source, backend="decord") as decoder:
        assert (decoder.backend, decoder.reason) == ("decord", "asked for.")
        assert synthetic.indices(decoder.clips_at([0.0, 0.5])) == [0, 15]


@pytest.mark.parametrize(
    ("suffix", "options", "reason"),
    [
        ("mp4", {"codec": "libx265"}, "the codec is hevc"),
        ("mp4", {"codec": "mpeg4"}, "the codec is mpeg4"),
        ("ts", {}, "the container is mpegts"),
        ("avi", {}, "the container is avi"),
        ("mp4", {"pixel_format": "yuv420p10le"}, "the pixels are yuv420p10le"),
        ("mp4", {"pixel_format": "yuv444p"}, "the pixels are yuv444p"),
        ("mp4", {"mirrored": True}, "mirrored"),
        ("mkv", {"codec_options": {"x264-params": "open-gop=1:bframes=2"}}, "open GOP"),
        ("mkv", {"codec_options": {"x264-params": "intra-refresh=1"}}, "open GOP"),
    ],
)
def test_pyav_reads_the_rest_and_says_why(
    tmp_path: Path, suffix: str, options: dict[str, Any], reason: str
) -> None:
    source = open_source(synthetic.write_video(tmp_path / f"a.{suffix}", 30, **options))
    decoder = open_decoder(source)
    assert decoder.backend == "pyav"
    assert decoder.reason.startswith("PyAV is exact, decord is not: ")
    assert reason in decoder.reason
    assert synthetic.indices(decoder.clips_at([0.0, 0.5])) == [0, 15]
    # A named backend never falls back.
    with pytest.raises(DecodeError, match=rf'not read .* exactly: .*{reason}.*reader="auto"'):
        open_decoder(source, backend="decord")


@needs_decord
def test_interlaced_pictures_go_to_pyav(tmp_path: Path) -> None:
    options = {"preset": "veryfast", "x264-params": "interlaced=1"}
    rng = np.random.default_rng(0)
    from llava_video.world.clip import write_clip

    frames = [rng.integers(0, 255, (24, 40, 3), np.uint8).repeat(4, 0).repeat(4, 1)] * 3
    write_clip(tmp_path / "a.mp4", frames, codec_options=options)
    decoder = open_decoder(open_source(tmp_path / "a.mp4"))
    assert decoder.backend == "pyav"
    assert "its pictures are interlaced" in decoder.reason


@needs_decord
def test_a_first_frame_that_differs_refuses_decord(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llava_video.video.decode_pyav import PyavReader

    real = PyavReader.frames

    def turned(self: Any, idxs: Sequence[int]) -> Any:
        return ((idx, frame[::-1]) for idx, frame in real(self, idxs))

    monkeypatch.setattr(PyavReader, "frames", turned)
    with pytest.raises(DecodeError, match="its first frame differs from PyAV's"):
        open_decoder(open_source(path), backend="decord")


def test_truncated_files_go_to_pyav(tmp_path: Path) -> None:
    content = synthetic.write_video(tmp_path / "a.mkv", 60).read_bytes()
    decoder = open_decoder(open_source(content[: len(content) // 2]))
    assert decoder.backend == "pyav"
    assert "faulty: truncated" in decoder.reason


def _info(**changes: Any) -> TrackInfo:
    facts: dict[str, Any] = {
        "duration_s": 1.0,
        "num_frames": 3,
        "frame_rate_hz": 3.0,
        "height_px": 9,
        "width_px": 9,
        "codec": "h264",
        "container": "mov,mp4,m4a,3gp,3g2,mj2",
        "pixel_format": "yuv420p",
        "pts_s": np.array([0.0, 1 / 3, 2 / 3]),
        "tick_s": 1 / 90000,
    }
    return TrackInfo(**(facts | changes))


def test_every_objection() -> None:
    assert decord_objection(_info()) is None
    for good in ({"pixel_format": "yuvj420p"}, {"codec": "vp9", "container": "matroska,webm"}):
        assert decord_objection(_info(**good)) is None
    for bad in (
        {"codec": "av1"},
        {"pixel_format": None},
        {"container": "mpegts"},
        {"by_order": True},
        {"num_hidden": 1},
        {"mirrored": True},
        {"clean_keys": False},
        {"faults": ("odd.",)},
    ):
        assert decord_objection(_info(**bad)) is not None


@pytest.mark.parametrize(
    ("pts_s", "differ"),
    [
        ([0.0, np.float32(1 / 3), np.float32(2 / 3)], False),
        ([0.0, 1 / 3], True),
        ([0.0, 1 / 3, 2 / 3 + 1e-4], True),
        ([0.0, 0.33, 0.66], True),
    ],
)
def test_times_are_compared_to_the_precision_decord_has(
    pts_s: Sequence[float], differ: bool
) -> None:
    assert (decoder_module._times_differ(np.array(pts_s), _info()) is not None) == differ


def test_times_late_in_a_long_file() -> None:
    # Four hours in, float32 steps are a millisecond: decord's rounding is no objection, a frame is.
    pts_s = np.arange(14400, 14401, 1 / 30) - 14400 + 14400.0
    info = _info(pts_s=pts_s, num_frames=len(pts_s))
    rounded = pts_s.astype(np.float32).astype(np.float64)
    assert decoder_module._times_differ(rounded, info) is None
    assert decoder_module._times_differ(rounded + 1 / 30, info) is not None


def test_decord_missing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = backends.require

    def absent(name: str) -> Any:
        if name == "decord":
            raise BackendMissingError("decord cannot be imported.", 'pip install "decord"')
        return real(name)

    monkeypatch.setattr(backends, "require", absent)
    decoder = open_decoder(open_source(path))
    assert decoder.backend == "pyav"
    assert synthetic.indices(decoder.clips_at([1.0])) == [30]
    with pytest.raises(BackendMissingError, match="pip install"):
        open_decoder(open_source(path), backend="decord")


@needs_decord
def test_damage_that_decord_meets_on_the_way(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llava_video.video.decode_decord import DecordReader

    real = DecordReader.frames

    def failing(self: Any, idxs: Sequence[int]) -> Any:
        for idx, frame in real(self, idxs):
            if idx >= 20:
                raise DecodeError("decord cannot decode a.mp4 at 0.67 s.", "", pts_s=0.67)
            yield idx, frame

    monkeypatch.setattr(DecordReader, "frames", failing)
    decoder = open_decoder(open_source(path), backend="decord")
    times_s = decoder.info.pts_s[[0, 10, 20, 30, 59]].tolist()
    with pytest.raises(DecodeError, match=r"at 0\.67 s"):
        list(decoder.clips_at(times_s))


@pytest.mark.parametrize("backend", BACKENDS)
class TestContract:
    """What every backend does alike."""

    def test_the_frame_shown_at_a_time(self, path: Path, backend: Any) -> None:
        with open_decoder(open_source(path), backend=backend) as decoder:
            assert decoder.backend == backend
            assert decoder.info.num_frames == 60
            # 30 frames a second: t shows frame floor(30 t); before the start the first, after the
            # end the last; equal times repeat the frame.
            times_s = [-1.0, 0.0, 0.02, 0.034, 0.5, 0.5, 1.99, 2.5]
            clips = list(decoder.clips_at(times_s, chunk_frames=3))
        assert synthetic.indices(clips) == [0, 0, 0, 1, 15, 15, 59, 59]
        assert [len(clip.frames) for clip in clips] == [3, 3, 2]
        assert clips[0].frames.dtype == np.uint8
        assert clips[1].pts_s == pytest.approx([1 / 30, 0.5, 0.5])
        assert clips[1].frame_idxs.tolist() == [1, 15, 15]

    def test_upright(self, tmp_path: Path, backend: Any) -> None:
        for rotation_deg in (0, 90, 180, 270):
            path = synthetic.write_video(tmp_path / "r.mp4", 20, rotation_deg=rotation_deg)
            with open_decoder(open_source(path), backend=backend) as decoder:
                clip = next(decoder.clips_at([0.5]))
            assert clip.frames.shape == (1, 96, 160, 3)
            assert synthetic.read_index(clip.frames[0]) == 15
            assert synthetic.is_upright(clip.frames[0])

    def test_square_pixels(self, tmp_path: Path, backend: Any) -> None:
        path = synthetic.write_video(
            tmp_path / "s.mp4", 20, width_px=120, sample_aspect=Fraction(4, 3)
        )
        with open_decoder(open_source(path), backend=backend) as decoder:
            clip = next(decoder.clips_at([0.5]))
        assert clip.frames.shape == (1, 96, 160, 3)
        assert synthetic.read_index(clip.frames[0]) == 15

    def test_full_range_and_tagged_colours(self, tmp_path: Path, backend: Any) -> None:
        path = synthetic.write_video(tmp_path / "j.mp4", 5, pixel_format="yuvj420p")
        with open_decoder(open_source(path), backend=backend) as decoder:
            frame = next(decoder.clips_at([0.1])).frames[0]
        assert frame.min() <= 2
        assert frame.max() >= 253

    def test_bytes(self, path: Path, backend: Any) -> None:
        with open_decoder(open_source(path.read_bytes()), backend=backend) as decoder:
            assert synthetic.indices(decoder.clips_at([1.0])) == [30]

    def test_nothing_asked_nothing_given(self, path: Path, backend: Any) -> None:
        with open_decoder(open_source(path), backend=backend) as decoder:
            assert list(decoder.clips_at([])) == []

    def test_times_must_ascend(self, path: Path, backend: Any) -> None:
        with (
            open_decoder(open_source(path), backend=backend) as decoder,
            pytest.raises(ConfigError, match="ascending"),
        ):
            decoder.clips_at([1.0, 0.5])

    def test_an_info_at_hand_saves_the_probe(
        self, path: Path, backend: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = open_source(path)
        info = probe(source)
        monkeypatch.setattr(decoder_module, "probe", lambda _: pytest.fail("probed again"))
        with open_decoder(source, backend=backend, info=info) as decoder:
            assert decoder.info is info
            assert synthetic.indices(decoder.clips_at([0.5])) == [15]

    @pytest.mark.parametrize(
        "content", [b"just text\n" * 50, bytes(range(256)) * 20, b"\0\0\0\x18ftypmp42" + bytes(60)]
    )
    def test_broken_files(self, backend: Any, content: bytes) -> None:
        with pytest.raises(SourceError):
            open_decoder(open_source(content), backend=backend)


def test_frames_of_the_caller() -> None:
    frames = np.stack([synthetic.paint_frame(idx) for idx in range(5)])
    source = open_source((frames, [10.0, 10.5, 11.0, 12.0, 20.0]))
    with open_decoder(source) as decoder:
        assert (decoder.backend, decoder.reason) == ("frames", "decoded by the caller.")
        assert synthetic.indices(decoder.clips_at([0.0, 0.6, 1.9, 9.9, 10.0])) == [0, 1, 2, 3, 4]
    with pytest.raises(ConfigError, match=r"reader = 'pyav' for frames.*use reader=.auto"):
        open_decoder(source, backend="pyav")


def test_unknown_backend(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"reader = 'ffmpeg'.*pyav"):
        open_decoder(open_source(path), backend="ffmpeg")  # type: ignore[arg-type]


def test_an_info_that_is_no_probe_is_probed_again(path: Path) -> None:
    from llava_video.values import VideoInfo

    source = open_source(path)
    info = probe(source)
    plain = VideoInfo(**{name: getattr(info, name) for name in VideoInfo.__dataclass_fields__})
    decoder = open_decoder(source, backend="pyav", info=replace(plain))
    assert isinstance(decoder.info, TrackInfo)


def test_nothing_decodes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llava_video.video.decode_pyav import PyavReader

    monkeypatch.setattr(PyavReader, "frames", lambda *_: iter(()))
    decoder = open_decoder(open_source(path), backend="pyav")
    with pytest.raises(DecodeError, match=r"a\.mp4: none of the 1 frames") as caught:
        list(decoder.clips_at([1.0]))
    assert caught.value.pts_s == pytest.approx(1.0)


def test_a_clip_is_yielded_before_the_next_is_decoded(path: Path) -> None:
    decoder = open_decoder(open_source(path), backend="pyav")
    clips = decoder.clips_at(decoder.info.pts_s.tolist(), chunk_frames=5)
    assert len(next(clips).frames) == 5
    clips.close()  # type: ignore[attr-defined]  # frees the container at once


def _broken(content: bytes, seed: int) -> bytes:
    """Overwrite, cut out or push in a few bytes anywhere."""
    chance, broken = random.Random(seed), bytearray(content)
    for _ in range(chance.choice([1, 3, 20])):
        at, num = chance.randrange(len(broken)), chance.choice([1, 4, 50])
        end = at if seed % 3 == 0 else at + num
        broken[at:end] = b"" if seed % 3 == 1 else chance.randbytes(num)
    return bytes(broken)


@pytest.mark.parametrize(
    ("suffix", "encoder"),
    [("mp4", "libx264"), ("mkv", "libx264"), ("webm", "libvpx-vp9"), ("ts", "mpeg2video")],
)
def test_whatever_is_broken_the_error_is_ours(tmp_path: Path, suffix: str, encoder: str) -> None:
    path = synthetic.write_video(tmp_path / f"a.{suffix}", 40, codec=encoder)
    content, num_read = path.read_bytes(), 0
    for seed in range(40):
        # Anything but our own two errors fails the test.
        with contextlib.suppress(SourceError, DecodeError):
            with open_decoder(open_source(_broken(content, seed))) as decoder:
                times_s = decoder.info.pts_s[:: max(1, decoder.info.num_frames // 5)]
                clips = list(decoder.clips_at(times_s.tolist()))
            assert sum(len(clip.frames) for clip in clips) <= len(times_s)
            num_read += 1
    assert num_read > 5


# Which of them decord may read when it is asked to.
REAL = {
    "safari.mp4": True,
    "llava_next_demo.mp4": True,
    "flipping_a_pancake.mkv": True,
    "corrupted.mp4": False,
    "unordered.mov": True,
    "video_0.mov": True,
    "video_90.mov": True,
    "video_180.mov": True,
    "video_270.mov": True,
    "av1_video.mkv": False,
    "h265_10bits.mp4": False,
    "bt709_full_range.mp4": True,
}


@needs_decord
@pytest.mark.parametrize("name", REAL)
def test_real_files(videos: Path, name: str) -> None:
    decord_may = REAL[name]
    source = open_source(videos / name)
    with open_decoder(source) as decoder:
        assert decoder.backend == "pyav"
        # Of the damaged one decord can only be known by trying.
        assert ("decord is not" in decoder.reason) == (not decord_may and name != "corrupted.mp4")
    first = "decord" if decord_may else "auto"
    with open_decoder(source, backend=first) as decoder, open_decoder(source, backend="pyav") as av:
        info = decoder.info
        idxs = np.unique(np.linspace(0, info.num_frames - 1, 24).astype(int))
        times_s = info.pts_s[idxs].tolist()
        ours, theirs = list(decoder.clips_at(times_s)), list(av.clips_at(times_s))
    frames = np.concatenate([clip.frames for clip in ours])
    assert frames.shape[1:] == (info.height_px, info.width_px, 3)
    assert (frames == np.concatenate([clip.frames for clip in theirs])).all()
    given = np.concatenate([clip.frame_idxs for clip in ours]).tolist()
    # One keyframe, at the start; the data breaks at 2.9 s and never recovers.
    wanted = [idx for idx in idxs if idx < 29] if name == "corrupted.mp4" else idxs.tolist()
    assert given == wanted
