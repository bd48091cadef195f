from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import synthetic

from llava_video.errors import DecodeError, SourceError
from llava_video.video.probe import TrackInfo, probe
from llava_video.video.source import open_source

# Container, encoder, and the names the probe gives them.
KINDS = [
    ("mp4", "libx264", "h264"),
    ("mkv", "libx264", "h264"),
    ("mov", "libx264", "h264"),
    ("ts", "libx264", "h264"),
    ("flv", "libx264", "h264"),
    ("avi", "libx264", "h264"),
    ("webm", "libvpx-vp9", "vp9"),
    ("webm", "libvpx", "vp8"),
    ("mp4", "libx265", "hevc"),
    ("mp4", "mpeg4", "mpeg4"),
    ("mpg", "mpeg2video", "mpeg2video"),
    ("mkv", "libsvtav1", "av1"),
]


def _probe(path: Path) -> TrackInfo:
    return probe(open_source(path))


@pytest.mark.parametrize(("suffix", "encoder", "codec"), KINDS)
def test_every_container_and_codec(tmp_path: Path, suffix: str, encoder: str, codec: str) -> None:
    if not synthetic.can_encode(encoder):
        pytest.skip(f"this PyAV has no {encoder}")
    path = synthetic.write_video(tmp_path / f"a.{suffix}", 30, codec=encoder, frame_rate_hz=25)
    info = _probe(path)
    assert (info.codec, info.num_frames, info.faults) == (codec, 30, ())
    assert (info.height_px, info.width_px, info.rotation_deg) == (96, 160, 0)
    assert info.pts_s == pytest.approx(np.arange(30) / 25, abs=1e-3)
    assert info.duration_s == pytest.approx(30 / 25, abs=1e-3)
    assert info.frame_rate_hz == pytest.approx(25, rel=1e-3)
    assert info.pixel_format == "yuv420p"
    assert info.by_order == (suffix == "avi")


def test_keyframes(tmp_path: Path) -> None:
    options = {"g": "10", "keyint_min": "10", "sc_threshold": "0"}
    path = synthetic.write_video(tmp_path / "a.mp4", 35, codec_options=options)
    assert _probe(path).keyframe_idxs == (0, 10, 20, 30)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_rate(tmp_path: Path, suffix: str) -> None:
    times_s = [0.0, 0.033, 0.066, 1.0, 2.5, 2.533, 7.75]
    path = synthetic.write_video(tmp_path / f"a.{suffix}", 7, times_s=times_s)
    info = _probe(path)
    assert info.pts_s == pytest.approx(times_s, abs=1e-3)
    # Mutant: index over average rate, as other stacks have it.
    assert info.pts_s != pytest.approx(np.arange(7) * 7.75 / 6, abs=0.1)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_times_count_from_the_first_frame(tmp_path: Path, suffix: str) -> None:
    times_s = [3 + i / 25 for i in range(20)]
    path = synthetic.write_video(tmp_path / f"a.{suffix}", 20, times_s=times_s)
    info = _probe(path)
    assert info.pts_s == pytest.approx(np.arange(20) / 25, abs=1e-3)
    assert info.first_ticks * info.tick_s > 2


def test_times_are_exact_to_the_last_bit(tmp_path: Path) -> None:
    rate_hz = Fraction(30000, 1001)
    path = synthetic.write_video(tmp_path / "a.mp4", 40, frame_rate_hz=rate_hz)
    expected = [float(idx / rate_hz) for idx in range(40)]
    assert _probe(path).pts_s.tolist() == expected


@pytest.mark.parametrize("rotation_deg", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_orientation(tmp_path: Path, rotation_deg: int, mirrored: bool) -> None:
    path = synthetic.write_video(
        tmp_path / "a.mp4", 3, rotation_deg=rotation_deg, mirrored=mirrored
    )
    info = _probe(path)
    assert (info.rotation_deg, info.mirrored) == (rotation_deg, mirrored)
    assert (info.height_px, info.width_px) == (96, 160)  # as shown


def test_a_tilted_picture_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        track = container.add_stream("libx264", rate=25)
        track.width, track.height, track.pix_fmt = 160, 96, "yuv420p"
        track.set_display_rotation(-30)
        frame = av.VideoFrame.from_ndarray(synthetic.paint_frame(0))
        container.mux(track.encode(frame.reformat(format="yuv420p")))
        container.mux(track.encode(None))
    info = _probe(path)
    assert info.rotation_deg == 0
    assert info.faults == ("it asks to be tilted by 30 degrees, and is not.",)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_sample_aspect(tmp_path: Path, suffix: str) -> None:
    aspect = Fraction(4, 3)
    path = synthetic.write_video(tmp_path / f"a.{suffix}", 3, width_px=120, sample_aspect=aspect)
    info = _probe(path)
    assert info.sample_aspect == aspect
    assert (info.height_px, info.width_px) == (96, 160)


def test_an_absurd_sample_aspect_is_left_alone(tmp_path: Path) -> None:
    path = synthetic.write_video(tmp_path / "a.mkv", 3, sample_aspect=Fraction(20))
    info = _probe(path)
    assert (info.width_px, info.sample_aspect) == (160, 1)
    assert "absurd" in info.faults[0]


@pytest.mark.parametrize(
    ("pixel_format", "num_bits", "colour_range"),
    [("yuv420p10le", 10, None), ("yuv420p", 8, None), ("yuvj420p", 8, "full")],
)
def test_pixels(tmp_path: Path, pixel_format: str, num_bits: int, colour_range: str | None) -> None:
    info = _probe(synthetic.write_video(tmp_path / "a.mp4", 3, pixel_format=pixel_format))
    found = (info.pixel_format, info.bit_depth, info.colour_range)
    assert found == (pixel_format, num_bits, colour_range)


def test_interlaced_pictures_are_told(tmp_path: Path) -> None:
    options = {"preset": "veryfast", "x264-params": "interlaced=1"}
    info = _probe(synthetic.write_video(tmp_path / "a.mp4", 3, codec_options=options))
    assert info.faults == ("its pictures are interlaced: two moments in one picture, and left so.",)


@pytest.mark.parametrize(
    ("suffix", "indexed"),
    [("mp4", True), ("mkv", True), ("avi", True), ("flv", True), ("ts", False), ("h264", False)],
)
def test_whether_there_is_an_index(tmp_path: Path, suffix: str, indexed: bool) -> None:
    info = _probe(synthetic.write_video(tmp_path / f"a.{suffix}", 30))
    assert info.is_indexed == indexed
    assert not any("index" in fault for fault in info.faults)


def test_a_recording_without_its_index(tmp_path: Path) -> None:
    path = synthetic.write_video(tmp_path / "a.mp4", 90)
    info = _probe(synthetic.remux(path, tmp_path / "live.mkv", live="1"))
    assert info.is_indexed is False
    assert info.faults == ("it has no index: a seek searches for its keyframes.",)
    # An MP4 of fragments has a list of them, or FFmpeg makes one.
    for flags in ("frag_keyframe+empty_moov", "frag_keyframe+empty_moov+dash+global_sidx"):
        info = _probe(synthetic.remux(path, tmp_path / "parts.mp4", movflags=flags))
        assert (info.is_indexed, info.faults, info.num_frames) == (True, (), 90)


def test_a_file_without_times_states_the_rate_that_is_assumed(tmp_path: Path) -> None:
    info = _probe(synthetic.write_video(tmp_path / "a.h264", 24))
    assert info.faults == ("the file states no times; 30 frames per second are assumed.",)
    assert (info.frame_rate_hz, info.duration_s) == (30, pytest.approx(0.8))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "webm"])
def test_one_frame(tmp_path: Path, suffix: str) -> None:
    codec = "libvpx-vp9" if suffix == "webm" else "libx264"
    info = _probe(synthetic.write_video(tmp_path / f"a.{suffix}", 1, codec=codec))
    assert (info.num_frames, info.pts_s.tolist(), info.keyframe_idxs) == (1, [0.0], (0,))


def test_open_groups_of_pictures_are_told(tmp_path: Path) -> None:
    def clean(name: str, x264: str) -> bool:
        options = {"x264-params": f"keyint=12:scenecut=0:bframes=2:{x264}"}
        return _probe(synthetic.write_video(tmp_path / name, codec_options=options)).clean_keys

    assert clean("closed.mp4", "open-gop=0")
    assert not clean("open.mp4", "open-gop=1")
    assert not clean("open.ts", "open-gop=1")
    assert not clean("refresh.mp4", "intra-refresh=1")


def test_hidden_frames(tmp_path: Path) -> None:
    # Times below zero make PyAV write an edit list that cuts those frames away.
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        track = container.add_stream("libx264", rate=25, options={"bf": "0"})
        track.width, track.height, track.pix_fmt = 160, 96, "yuv420p"
        for idx in range(10):
            frame = av.VideoFrame.from_ndarray(synthetic.paint_frame(idx))
            frame = frame.reformat(format="yuv420p")
            frame.pts, frame.time_base = idx - 3, Fraction(1, 25)
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
    info = _probe(path)
    assert (info.num_frames, info.num_hidden) == (7, 3)
    assert info.pts_s[0] == 0


def _add_sound(container: Any) -> tuple[Any, list[Any]]:
    """Add two seconds of silence."""
    track = container.add_stream("aac", rate=8000, layout="mono")
    sounds = []
    for start in range(0, 16000, 1000):
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.float32), "fltp", "mono")
        sound.sample_rate, sound.pts = 8000, start
        sounds.append(sound)
    return track, sounds


def _add_pictures(container: Any, height_px: int, width_px: int, codec: str, num: int) -> Any:
    track = container.add_stream(codec, rate=25)
    track.width, track.height = width_px, height_px
    track.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    return track, [
        av.VideoFrame.from_ndarray(synthetic.paint_frame(i, height_px, width_px)).reformat(
            format=track.pix_fmt
        )
        for i in range(num)
    ]


def _mux(container: Any, tracks: list[tuple[Any, list[Any]]]) -> None:
    for track, frames in tracks:
        for frame in frames:
            container.mux(track.encode(frame))
        container.mux(track.encode(None))


def test_sound_only(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        _mux(container, [_add_sound(container)])
    with pytest.raises(SourceError, match="no video track, only audio"):
        _probe(path)


def test_sound_with_a_cover_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        cover = _add_pictures(container, 96, 160, "mjpeg", 1)
        cover[0].disposition = av.stream.Disposition.attached_pic
        _mux(container, [cover, _add_sound(container)])
    with pytest.raises(SourceError, match="no video track"):
        _probe(path)


def test_sound_longer_than_the_picture_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        pictures = _add_pictures(container, 96, 160, "libx264", 10)
        _mux(container, [pictures, _add_sound(container)])
    info = _probe(path)
    assert info.duration_s == pytest.approx(0.4)
    assert info.faults == ()


def test_the_best_track(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        tracks = [_add_pictures(container, h, w, "libx264", 3) for h, w in ((48, 64), (96, 160))]
        tracks += [_add_pictures(container, 96, 160, "libx264", 3)]
        tracks[2][0].disposition = av.stream.Disposition.default
        _mux(container, tracks)
    info = _probe(path)
    assert (info.width_px, info.track_idx) == (160, 2)  # most pixels, then the default one


def test_a_track_without_frames(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", options={"movflags": "empty_moov"}) as container:
        track, _ = _add_pictures(container, 96, 160, "libx264", 0)
        container.start_encoding()
        assert track.codec_context is not None
    with pytest.raises(DecodeError, match="without a single frame"):
        _probe(path)


@pytest.mark.parametrize(
    ("suffix", "fault"), [("mkv", "header says"), ("avi", "of 48 frames"), ("flv", "header says")]
)
def test_truncated(tmp_path: Path, suffix: str, fault: str) -> None:
    # Keyframes only, so that frames and not the header make up the file.
    path = synthetic.write_video(tmp_path / f"a.{suffix}", codec_options={"g": "1"})
    content = path.read_bytes()
    info = probe(open_source(content[: len(content) * 6 // 10]))
    assert 10 < info.num_frames < 40
    assert info.truncated_at_s == pytest.approx(info.num_frames / 30, abs=0.05)
    assert info.faults[0].startswith(f"truncated at {info.truncated_at_s:.2f} s: ")
    assert fault in info.faults[0]
    assert not any("index" in fault for fault in info.faults)  # one fault, one sentence
    assert _probe(path).truncated_at_s is None


def test_an_mp4_whose_index_comes_first_truncated(tmp_path: Path) -> None:
    path = synthetic.write_video(tmp_path / "a.mp4")
    fast = synthetic.remux(path, tmp_path / "fast.mp4", movflags="faststart")
    content = fast.read_bytes()
    info = probe(open_source(content[: len(content) * 7 // 10]))
    assert 5 < info.num_frames < 40
    assert "of 48 frames are in the file" in info.faults[0]
    # The last frame was cut in two and is not counted; the one before it is whole.
    assert 0.2 < (info.truncated_at_s or 0) <= 33 / 30


def test_a_damaged_start(tmp_path: Path) -> None:
    path = synthetic.write_video(tmp_path / "a.ts", 48)
    content = path.read_bytes()
    info = probe(open_source(content[len(content) // 8 // 188 * 188 :]))
    assert info.num_frames < 48
    assert any("cannot be decoded and are left out" in fault for fault in info.faults)


def test_frames_with_times() -> None:
    frames = np.zeros((4, 20, 30, 3), np.uint8)
    info = probe(open_source((frames, [5.0, 5.5, 6.0, 8.0])))
    assert info.pts_s.tolist() == [0.0, 0.5, 1.0, 3.0]
    assert (info.num_frames, info.height_px, info.width_px) == (4, 20, 30)
    assert info.duration_s == 3.5  # the usual gap after the last one
    assert (info.codec, info.container) == ("raw", "array")
    assert info.frame_idxs_at(info.pts_s).tolist() == [0, 1, 2, 3]


def test_one_frame_with_its_time() -> None:
    info = probe(open_source((np.zeros((1, 20, 30, 3), np.uint8), [9.0])))
    assert (info.pts_s.tolist(), info.duration_s, info.frame_rate_hz) == ([0.0], None, None)


def test_frame_idxs_at(tmp_path: Path) -> None:
    info = _probe(
        synthetic.write_video(tmp_path / "a.mp4", 10, times_s=[i / 10 for i in range(10)])
    )
    half_s = info.tick_s / 2
    times_s = [-1, 0, 0.0999, 0.1 - half_s * 0.9, 0.1, 0.19, 0.9, 99]
    assert info.frame_idxs_at(times_s).tolist() == [0, 0, 0, 1, 1, 1, 9, 9]


def test_real_files(videos: Path) -> None:
    # Frames, shown size, rotation: as ffprobe counts and the files' README says.
    expected = {
        "safari.mp4": (315, 480, 640, 0),
        "llava_next_demo.mp4": (96, 720, 1280, 0),
        "flipping_a_pancake.mkv": (310, 240, 426, 0),
        "corrupted.mp4": (50, 720, 1280, 0),
        "unordered.mov": (4, 50, 50, 0),
        "video_0.mov": (3, 320, 568, 0),
        "video_90.mov": (3, 568, 320, 90),
        "video_180.mov": (3, 320, 568, 180),
        "video_270.mov": (3, 568, 320, 270),
        "av1_video.mkv": (125, 360, 640, 0),
        "h265_10bits.mp4": (30, 200, 200, 0),
        "bt709_full_range.mp4": (30, 720, 1280, 0),
    }
    for name, facts in expected.items():
        info = _probe(videos / name)
        found = (info.num_frames, info.height_px, info.width_px, info.rotation_deg)
        assert (name, *found) == (name, *facts)
        assert info.faults == ()
        assert (np.diff(info.pts_s) > 0).all()


def test_a_sparse_recording_with_reordered_frames_is_no_restarted_clock(tmp_path: Path) -> None:
    # Matroska states no decode time for the first packets, and a frame a second apart falls back
    # by more than a second when it is reordered.
    path = tmp_path / "sparse.mkv"
    synthetic.write_video(path, 6, times_s=[0, 1, 2, 3, 4, 5])
    info = probe(open_source(path))
    assert info.pts_s.tolist() == [0, 1, 2, 3, 4, 5]
    assert info.faults == ()
