"""Where torchcodec is not installed, a stand-in of its documented face shows what is asked of it.

What torchcodec itself gives is tried in the contract tests of `test_decoder.py`, where it is there.
"""

import importlib
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import synthetic

from llava_video import backends
from llava_video.errors import BackendMissingError, DecodeError
from llava_video.video.decoder import open_decoder
from llava_video.video.probe import TrackInfo, probe
from llava_video.video.source import Source, open_source
from llava_video.video.upright import turn

needs_torchcodec = pytest.mark.skipif(
    backends.version("torchcodec") is None, reason="torchcodec is not installed"
)
MODULE = "llava_video.video.decode_torchcodec"


class _Pixels:
    def __init__(self, pixels: Any) -> None:
        self._pixels = pixels

    def numpy(self) -> Any:
        return self._pixels


class _Decoder:
    """torchcodec's `VideoDecoder` as its documentation has it, by PyAV: turned, times absolute."""

    asked: dict[str, Any]
    late_s = 0.0
    num_more = 0
    breaks_at = -1

    def __init__(self, source: Any, **asked: Any) -> None:
        type(self).asked = {"source": source, **asked}
        if "unreadable" in str(source):
            raise RuntimeError("Could not open input file")
        with av.open(str(source)) as container:
            frames = list(container.decode(video=0))
        self._frames = [(frame.to_ndarray(format="rgb24"), frame.time) for frame in frames]
        self._turn_deg = -int(frames[0].rotation)

    def __len__(self) -> int:
        return len(self._frames) + self.num_more

    def get_frame_at(self, index: int) -> Any:
        if index == self.breaks_at:
            raise RuntimeError("Could not push packet to decoder")
        pixels, pts_s = self._frames[index]
        shown = _Pixels(turn(pixels, self._turn_deg))
        return types.SimpleNamespace(data=shown, pts_seconds=pts_s + self.late_s)


@pytest.fixture
def reader_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return the reader's class, over the stand-in."""
    fake: Any = types.ModuleType("torchcodec.decoders")
    fake.VideoDecoder = _Decoder
    monkeypatch.setitem(sys.modules, "torchcodec", types.ModuleType("torchcodec"))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", fake)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    for name in ("late_s", "num_more", "breaks_at"):
        monkeypatch.setattr(_Decoder, name, getattr(_Decoder, name))
    yield importlib.import_module(MODULE)
    # Whoever comes next imports it over the real torchcodec.
    sys.modules.pop(MODULE, None)


def _source(path: Path, **options: Any) -> tuple[Source, TrackInfo]:
    source = open_source(synthetic.write_video(path, 20, **options))
    return source, probe(source)


def test_frames_are_those_asked_for(reader_of: Any, tmp_path: Path) -> None:
    source, info = _source(tmp_path / "a.mkv", times_s=[3 + i / 25 for i in range(20)])
    reader = reader_of.TorchcodecReader(source, info)
    assert {i: synthetic.read_index(frame) for i, frame in reader.frames([0, 7, 19])} == {
        0: 0,
        7: 7,
        19: 19,
    }
    asked = _Decoder.asked
    assert (asked["seek_mode"], asked["dimension_order"]) == ("exact", "NHWC")
    assert asked["stream_index"] == info.track_idx
    reader.close()
    with pytest.raises(DecodeError, match="closed"):
        next(reader.frames([0]))


def test_a_path_is_absolute(
    reader_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, info = _source(tmp_path / "10:15.mp4")
    monkeypatch.chdir(tmp_path)
    reader_of.TorchcodecReader(open_source("10:15.mp4"), info)
    assert _Decoder.asked["source"] == str(tmp_path / "10:15.mp4")


def test_turned_by_torchcodec_and_stretched_by_us(reader_of: Any, tmp_path: Path) -> None:
    source, info = _source(tmp_path / "a.mp4", rotation_deg=90)
    _, frame = next(reader_of.TorchcodecReader(source, info).frames([5]))
    assert frame.shape == (96, 160, 3)
    assert synthetic.is_upright(frame)  # the wrong way, turned again by us, it would lie
    source, info = _source(tmp_path / "s.mp4", width_px=120, sample_aspect=Fraction(4, 3))
    _, frame = next(reader_of.TorchcodecReader(source, info).frames([5]))
    assert frame.shape == (96, 160, 3)
    assert synthetic.read_index(frame) == 5


def test_another_count_is_refused(
    reader_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, info = _source(tmp_path / "a.mp4")
    monkeypatch.setattr(_Decoder, "num_more", 1)
    with pytest.raises(DecodeError, match=r"counts 21 frames of 20.*auto"):
        reader_of.TorchcodecReader(source, info)


def test_another_time_is_refused(
    reader_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, info = _source(tmp_path / "a.mp4")
    for late_s, is_wrong in ((info.tick_s * 0.4, False), (1 / 30, True), (float("nan"), True)):
        monkeypatch.setattr(_Decoder, "late_s", late_s)
        frames = reader_of.TorchcodecReader(source, info).frames([3])
        if is_wrong:
            with pytest.raises(DecodeError, match=r"another frame for .* at 0\.10 s") as caught:
                next(frames)
            assert caught.value.pts_s == pytest.approx(0.1)
        else:
            assert synthetic.read_index(next(frames)[1]) == 3


def test_errors_are_ours(reader_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, info = _source(tmp_path / "unreadable.mp4")
    with pytest.raises(DecodeError, match=r"torchcodec cannot open .*unreadable"):
        reader_of.TorchcodecReader(source, info)
    source, info = _source(tmp_path / "a.mp4")
    monkeypatch.setattr(_Decoder, "breaks_at", 6)
    frames = reader_of.TorchcodecReader(source, info).frames([3, 6])
    assert next(frames)[0] == 3
    with pytest.raises(DecodeError, match=r"torchcodec cannot decode .* at 0\.20 s") as caught:
        next(frames)
    assert caught.value.pts_s == pytest.approx(0.2)


def test_every_objection(reader_of: Any, tmp_path: Path) -> None:
    _, info = _source(tmp_path / "a.mp4")
    assert reader_of.torchcodec_objection(info) is None
    for good in ({"codec": "hevc"}, {"container": "matroska,webm"}, {"container": "flv"}):
        assert reader_of.torchcodec_objection(replace(info, **good)) is None
    for bad in (
        {"container": "mpegts"},
        {"container": "avi"},
        {"by_order": True},
        {"num_hidden": 1},
        {"mirrored": True},
        {"bit_depth": 10},
        {"codec": "vp9", "height_px": 95},
        {"clean_keys": False},
        {"faults": ("odd.",)},
    ):
        assert reader_of.torchcodec_objection(replace(info, **bad)) is not None


@needs_torchcodec
@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        ("mp4", "libx264"),
        ("mkv", "libx265"),
        ("webm", "libvpx-vp9"),
        ("mkv", "libsvtav1"),
        ("mp4", "mpeg4"),
        ("flv", "libx264"),
    ],
)
def test_torchcodec_itself_gives_pyavs_pixels(tmp_path: Path, suffix: str, codec: str) -> None:
    from llava_video.video.decode_pyav import PyavReader
    from llava_video.video.decode_torchcodec import TorchcodecReader, torchcodec_objection

    source = open_source(synthetic.write_video(tmp_path / f"a.{suffix}", 48, codec=codec))
    info = probe(source)
    assert torchcodec_objection(info) is None
    idxs = [0, 1, 5, 13, 14, 30, 47]
    theirs, ours = TorchcodecReader(source, info), PyavReader(source, info)
    for (idx, one), (_, other) in zip(theirs.frames(idxs), ours.frames(idxs), strict=True):
        assert synthetic.read_index(one) == idx
        assert np.array_equal(one, other)
    # Backwards it has to seek.
    assert [synthetic.read_index(f) for _, f in theirs.frames([40, 20, 2])] == [40, 20, 2]


def test_torchcodec_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, _ = _source(tmp_path / "a.mp4")
    monkeypatch.setattr(backends, "version", lambda name: "15" if name == "av" else None)
    with pytest.raises(BackendMissingError, match=r"torchcodec.*pip install.*\[torchcodec\]"):
        open_decoder(source, backend="torchcodec")


@needs_torchcodec
@pytest.mark.parametrize(
    ("suffix", "options", "reason"),
    [
        ("ts", {}, "the container is mpegts"),
        ("avi", {}, "the container is avi"),
        ("mp4", {"mirrored": True}, "mirrored"),
        ("mkv", {"codec_options": {"x264-params": "intra-refresh=1"}}, "clean start"),
    ],
)
def test_torchcodec_refuses_what_it_reads_wrongly(
    tmp_path: Path, suffix: str, options: dict[str, Any], reason: str
) -> None:
    source = open_source(synthetic.write_video(tmp_path / f"a.{suffix}", 30, **options))
    with pytest.raises(DecodeError, match=rf'torchcodec does not .*{reason}.*reader="auto"'):
        open_decoder(source, backend="torchcodec")


@needs_torchcodec
def test_torchcodec_on_real_files(videos: Path) -> None:
    for path in sorted(videos.glob("*.m[pko]*")):
        source = open_source(path)
        if path.name == "h265_10bits.mp4":  # coloured, and of 10 bits: bilinear there, bicubic here
            with pytest.raises(DecodeError, match="first frame differs"):
                open_decoder(source, backend="torchcodec")
            continue
        with (
            open_decoder(source, backend="torchcodec") as decoder,
            open_decoder(source, backend="pyav") as pyav,
        ):
            idxs = np.unique(np.linspace(0, min(decoder.info.num_frames - 1, 25), 8).astype(int))
            times_s = decoder.info.pts_s[idxs].tolist()
            pairs = zip(decoder.clips_at(times_s), pyav.clips_at(times_s), strict=True)
            assert all(np.array_equal(one.frames, other.frames) for one, other in pairs)
