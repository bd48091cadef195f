"""Every frame is the right one, at its true time: containers, codecs, and what recordings do.

Each frame shows its own index, and was written at a known time. Whatever a reader gives for a time
must show the index that was written last before it. The default run takes every kind of file once
with each oddity; `make test-full` takes them in combination.
"""

import itertools
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic

from llava_video import backends
from llava_video.errors import DecodeError
from llava_video.planning.sampler import sample_frames
from llava_video.planning.settings import SamplingSettings
from llava_video.scanning import scan_for
from llava_video.video.decode_pyav import PyavReader
from llava_video.video.decoder import open_decoder
from llava_video.video.source import open_source

NUM_FRAMES = 40
# 15 frames at 30 a second, the rest at 2.5: what a camera does when light fails.
_UNEVEN_S = [idx / 30 if idx < 15 else 0.5 + (idx - 15) * 0.4 for idx in range(NUM_FRAMES)]
_LATE_S = 2.0

KINDS = [
    ("mp4", "libx264"),
    ("mkv", "libx264"),
    ("ts", "libx264"),
    ("mov", "libx264"),
    ("mp4", "libx265"),
    ("mkv", "libx265"),
    ("ts", "libx265"),
    ("webm", "libvpx-vp9"),
    ("mkv", "libvpx-vp9"),
    ("mp4", "libvpx-vp9"),
    ("webm", "libsvtav1"),
    ("mkv", "libsvtav1"),
    ("mp4", "libsvtav1"),
    ("mp4", "mpeg4"),
    ("mkv", "mpeg4"),
    ("ts", "mpeg4"),
]
# Others store frames as written: there is nothing to turn, and nobody to say so.
_ORIENTED = frozenset({"mp4", "mov", "mkv", "webm"})
_WITHOUT_B = {
    "libx264": {"bf": "0"},
    "libx265": {"x265-params": "log-level=none:keyint=12:bframes=0:scenecut=0"},
    "mpeg4": {"bf": "0"},
}


@dataclass(frozen=True)
class Oddity:
    """What is unusual about a file; the default is a plain one."""

    is_uneven: bool = False
    starts_late: bool = False
    has_b: bool = True
    rotation_deg: int = 0
    mirrored: bool = False
    sample_aspect: Fraction = field(default=Fraction(1))
    size_px: tuple[int, int] = (96, 160)
    num_frames: int = NUM_FRAMES

    @property
    def times_s(self) -> list[float]:
        """When each frame is shown, as written; whole ticks of 1/30000 s."""
        even_s = [idx / 30 for idx in range(NUM_FRAMES)]
        start_s = _LATE_S if self.starts_late else 0.0
        return [start_s + time_s for time_s in (_UNEVEN_S if self.is_uneven else even_s)][
            : self.num_frames
        ]


ALONE = {
    "plain": Oddity(),
    "uneven": Oddity(is_uneven=True),
    "late": Oddity(starts_late=True),
    "without B": Oddity(has_b=False),
    "90": Oddity(rotation_deg=90),
    "180": Oddity(rotation_deg=180),
    "270": Oddity(rotation_deg=270),
    "mirrored": Oddity(mirrored=True),
    "wide pixels": Oddity(sample_aspect=Fraction(4, 3)),
    "odd": Oddity(size_px=(97, 161)),
    "one frame": Oddity(num_frames=1),
}
TOGETHER = [
    Oddity(is_uneven=uneven, starts_late=late, has_b=b, num_frames=num, rotation_deg=90 * late)
    for uneven, late, b, num in itertools.product((0, 1), (0, 1), (0, 1), (1, 5, NUM_FRAMES))
] + [
    Oddity(
        rotation_deg=turn, mirrored=bool(flip), sample_aspect=aspect, size_px=size, is_uneven=True
    )
    for turn, flip, aspect, size in itertools.product(
        (0, 90, 180, 270), (0, 1), (Fraction(1), Fraction(8, 9)), ((96, 160), (97, 161))
    )
]


def _write(path: Path, encoder: str, odd: Oddity) -> Path:
    if not synthetic.can_encode(encoder):
        pytest.skip(f"this PyAV has no {encoder}")
    height_px, width_px = odd.size_px
    is_odd = height_px % 2 or width_px % 2
    options: dict[str, Any] = {"codec": encoder, "height_px": height_px, "width_px": width_px}
    if is_odd and encoder in ("libx264", "libx265"):
        options["pixel_format"] = "yuv444p"
    elif is_odd and encoder in ("mpeg4", "libsvtav1"):
        pytest.skip(f"{encoder} writes no odd sizes")
    if not odd.has_b or odd.num_frames == 1:
        # Of a single frame x265 with B-frames now and then gives a decode time that is none.
        options["codec_options"] = _WITHOUT_B.get(encoder, {})
    if odd.rotation_deg or odd.mirrored:
        if path.suffix[1:] not in _ORIENTED:
            pytest.skip(f"{path.suffix} carries no orientation")
        options |= {"rotation_deg": odd.rotation_deg, "mirrored": odd.mirrored}
    if odd.is_uneven or odd.starts_late:
        options |= {"times_s": odd.times_s, "ticks_per_s": 30_000}
    return synthetic.write_video(path, odd.num_frames, sample_aspect=odd.sample_aspect, **options)


def _check(path: Path, encoder: str, odd: Oddity) -> None:
    """Read a file with every reader that takes it, and see that those do that should."""
    source = open_source(path)
    with open_decoder(source) as decoder:
        _check_reader(decoder, odd)
    for backend in ("decord", "torchcodec"):
        if backends.version(backend) is None:
            continue
        try:
            decoder = open_decoder(source, backend=backend)  # type: ignore[arg-type]
        except DecodeError:  # a named reader refuses what it does not read exactly
            assert not _is_plain(path, encoder, odd), f"{backend} refuses a plain file"
            continue
        with decoder:
            _check_reader(decoder, odd)


def _is_plain(path: Path, encoder: str, odd: Oddity) -> bool:
    """Say whether a file is one that every reader reads exactly."""
    is_stored_even = not (odd.size_px[0] % 2 or odd.size_px[1] % 2)
    is_mp4 = path.suffix in (".mp4", ".mov")
    is_early = not odd.starts_late  # an edit list says when the first frame is shown
    # decord turns what an MP4 asks it to, and mistakes the times of a few frames in Matroska.
    is_told = not odd.mirrored and (is_mp4 or not odd.rotation_deg)
    return (
        encoder in ("libx264", "libvpx-vp9")
        and (is_mp4 or path.suffix in (".mkv", ".webm"))
        and is_stored_even
        and is_early
        and is_told
        and odd.num_frames == NUM_FRAMES
    )


def _check_reader(decoder: Any, odd: Oddity) -> None:
    info = decoder.info
    written_s = np.array(odd.times_s) - odd.times_s[0]
    assert info.num_frames == odd.num_frames
    # A container rounds to its tick: 1 ms in Matroska.
    assert np.abs(info.pts_s - written_s).max() <= info.tick_s + 1e-9
    every = [frame for clip in decoder.clips_at(info.pts_s.tolist()) for frame in clip.frames]
    assert [synthetic.read_index(frame) for frame in every] == list(range(odd.num_frames))
    if odd.num_frames > 1:
        assert all(map(synthetic.is_upright, every))
    for sampling in _SAMPLINGS:
        scan = scan_for(decoder, sampling) if sampling.needs_scan else None
        sample = sample_frames(info, sampling, max_frames=9, scan=scan)
        clips = list(decoder.clips_at(sample.times_s))
        shown = synthetic.indices(clips)
        assert shown == list(sample.frame_idxs), sampling
        assert np.concatenate([clip.pts_s for clip in clips]).tolist() == list(sample.times_s)
        # Not only the index: the same pixels as in one pass over everything.
        given = [frame for clip in clips for frame in clip.frames]
        assert all(np.array_equal(frame, every[i]) for frame, i in zip(given, shown, strict=True))


_SAMPLINGS = (
    SamplingSettings(),
    SamplingSettings(num_frames=5),
    SamplingSettings(fps=3, max_frames=12),
    SamplingSettings(times_s=(0.0,)),
    SamplingSettings(rule="keyframe"),
    SamplingSettings(rule="scene"),
    SamplingSettings(rule="dedupe"),
)


@pytest.mark.parametrize(("suffix", "encoder"), KINDS)
@pytest.mark.parametrize("name", ALONE)
def test_one_oddity(tmp_path: Path, suffix: str, encoder: str, name: str) -> None:
    path = _write(tmp_path / f"a.{suffix}", encoder, ALONE[name])
    _check(path, encoder, ALONE[name])


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "encoder"), KINDS)
def test_oddities_together(tmp_path: Path, suffix: str, encoder: str) -> None:
    num_checked = 0
    for idx, odd in enumerate(TOGETHER):
        try:
            path = _write(tmp_path / f"{idx}.{suffix}", encoder, odd)
        except pytest.skip.Exception:
            continue
        _check(path, encoder, odd)
        path.unlink()
        num_checked += 1
    assert num_checked >= 12


def test_a_reader_that_is_one_frame_late_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path / "a.mp4", "libx264", Oddity())
    real = PyavReader.frames

    def late(self: Any, idxs: Any) -> Any:
        for idx, (_, frame) in zip(idxs, real(self, [max(0, i - 1) for i in idxs]), strict=False):
            yield idx, frame

    with open_decoder(open_source(path), backend="pyav") as decoder:
        _check_reader(decoder, Oddity())
        monkeypatch.setattr(PyavReader, "frames", late)
        with pytest.raises(AssertionError):
            _check_reader(decoder, Oddity())
