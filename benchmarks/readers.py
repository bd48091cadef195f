"""Which reader is exact, and how fast, for which kind of file? decord and PyAV, asked as they are.

Bound by the codec. Every frame of the clips shows its own index, so what a reader gives for an
index or a time is right or wrong; pixels are compared with one pass of PyAV over the file on one
thread. decord is asked directly, past the check that keeps it away from what it gets wrong. Good:
`auto` is exact everywhere, and not slower than any reader that is exact too.

    python benchmarks/readers.py [--append] [--check]
"""

import contextlib
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import decord
import numpy as np
import numpy.typing as npt
from harness import interleaved, parser_of, ratio, report

from llava_video.errors import LlavaVideoError
from llava_video.video.decoder import open_decoder
from llava_video.video.source import open_source
from llava_video.world.bars import paint_index, read_index
from llava_video.world.clip import write_clip

Frame = npt.NDArray[np.uint8]

os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder announces itself otherwise
_NUM_TRIES = 12
_NUM_FRAMES, _SIZE_PX = 240, (360, 640)
# The coarsest tick of the containers, and a rounding.
_TICK_S = 1.1e-3
_CHECK_FRAMES, _CHECK_SIZE_PX = 24, (96, 160)


@dataclass(frozen=True, slots=True)
class Reader:
    """How a reader is asked for frames, and for the times of all of them."""

    frames: Callable[[list[int]], list[Frame]]
    times_s: Callable[[], npt.NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of file, and how it is written."""

    words: str
    suffix: str
    encoder: str
    options: dict[str, str]
    pixel_format: str = "yuv420p"
    is_uneven: bool = False
    is_edited: bool = False


_X264 = {"preset": "veryfast", "g": "24", "bf": "2"}
_X265 = {"preset": "ultrafast"}
_X265_GROUPS = "log-level=none:keyint=24:min-keyint=24:bframes=3:scenecut=0:open-gop="
_VP9 = {"deadline": "realtime", "cpu-used": "8", "g": "24"}
_MPEG4 = {"bf": "2", "g": "24"}
KINDS = (
    Kind("H.264 in MP4", "mp4", "libx264", _X264),
    Kind("H.264 in Matroska", "mkv", "libx264", _X264),
    Kind("H.264 in MP4, variable rate", "mp4", "libx264", _X264, is_uneven=True),
    Kind("H.264 in Matroska, variable rate", "mkv", "libx264", _X264, is_uneven=True),
    Kind("H.264 in MP4, open GOP", "mp4", "libx264", _X264 | {"x264-params": "open-gop=1"}),
    Kind("H.264, gradual refresh", "mp4", "libx264", _X264 | {"x264-params": "intra-refresh=1"}),
    Kind("H.264 in MP4, edit list", "mp4", "libx264", _X264, is_edited=True),
    Kind("H.264 in MPEG-TS", "ts", "libx264", _X264),
    Kind("H.264 in AVI", "avi", "libx264", _X264),
    Kind("H.264 10 bit in MP4", "mp4", "libx264", _X264, "yuv420p10le"),
    Kind("VP9 in WebM", "webm", "libvpx-vp9", _VP9),
    Kind("VP9 in MP4", "mp4", "libvpx-vp9", _VP9),
    Kind("HEVC in MP4", "mp4", "libx265", _X265 | {"x265-params": f"{_X265_GROUPS}0"}),
    Kind("HEVC in MP4, open GOP", "mp4", "libx265", _X265 | {"x265-params": f"{_X265_GROUPS}1"}),
    Kind("AV1 in WebM", "webm", "libsvtav1", {"preset": "8", "g": "24", "crf": "20"}),
    Kind("MPEG-4 in MP4", "mp4", "mpeg4", _MPEG4),
    Kind("MPEG-4 in AVI", "avi", "mpeg4", _MPEG4),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 where `auto` is not exact, or another exact reader is faster."""
    asked = parser_of(__doc__).parse_args(arguments)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for kind in KINDS:
            with contextlib.suppress(av.codec.codec.UnknownCodecError):
                rows.append(_row(Path(scratch), kind, is_check=asked.check))
    passed = all(row["readers"]["auto"]["exact"] for row in rows) and (
        asked.check or all(_is_fastest(row["readers"]) for row in rows)
    )
    versions = {"av": av.__version__, "decord": decord.__version__}
    report("readers", {"kinds": rows, "passed": passed, "versions": versions, "check": asked.check},
           append=asked.append)  # fmt: skip
    return 0 if passed else 1


def _row(folder: Path, kind: Kind, *, is_check: bool) -> dict[str, Any]:
    num_frames = _CHECK_FRAMES if is_check else _NUM_FRAMES
    path, shown, times_s = _write(
        folder, kind, num_frames, _CHECK_SIZE_PX if is_check else _SIZE_PX
    )
    truth = dict(_linear(path))
    sparse = np.linspace(0, len(shown) - 1, 8).astype(int).tolist()
    readers: dict[str, Any] = {}
    runs: dict[str, Callable[[], object]] = {}
    for name, reader in _readers(path).items():
        found = readers[name] = _tried(reader, sparse, shown, times_s, truth)
        if found["exact"]:
            runs[name] = lambda reader=reader: reader.frames(sparse)
    timings = interleaved(runs, repeats=1 if is_check else 15, budget_s=20)
    for name, timing in timings.items():
        readers[name]["ms"] = timing.p50_s * 1e3
        readers[name]["auto_ratio"] = ratio(timing, timings["auto"])
    with open_decoder(open_source(path)) as decoder:
        readers["auto"]["backend"] = decoder.backend
    words = "; ".join(f"{name} {_words(found)}" for name, found in readers.items())
    print(f"{kind.words:<34} {words}")
    path.unlink()
    return {"kind": kind.words, "readers": readers}


def _is_fastest(readers: dict[str, Any]) -> bool:
    # `pyav` is `auto` by another name.
    return readers["decord"].get("auto_ratio", 1.0) >= 1.0


def _words(found: dict[str, Any]) -> str:
    if "error" in found:
        return f"no: {found['error'][:60]}"
    if not found["exact"]:
        return f"{found['num_wrong_frames']} frames, {found['num_wrong_times']} times wrong" + (
            "" if found["equal_pixels"] else ", other pixels"
        )
    return f"exact, {found['ms']:.1f} ms" + (f" ({found['backend']})" if "backend" in found else "")


def _write(
    folder: Path, kind: Kind, num_frames: int, size_px: tuple[int, int]
) -> tuple[Path, list[int], list[float]]:
    """Write a clip; return it, the index each of its frames shows, and when, from the first on."""
    path = folder / f"clip.{kind.suffix}"
    times_s = [idx / 30 if idx % 40 < 20 else idx / 30 + 0.01 for idx in range(num_frames)]
    write_clip(
        path,
        (_painted(idx, size_px) for idx in range(num_frames)),
        codec=kind.encoder,
        codec_options=kind.options,
        pixel_format=kind.pixel_format,
        times_s=times_s if kind.is_uneven else None,
    )
    shown = list(range(num_frames))
    if kind.is_edited:
        cut = _edited(path)
        shown = shown[cut:]
    even_s = [idx / 30 for idx in range(num_frames)]
    clock_s = times_s if kind.is_uneven else even_s
    return path, [idx % 256 for idx in shown], [clock_s[idx] - clock_s[shown[0]] for idx in shown]


def _painted(idx: int, size_px: tuple[int, int]) -> Frame:
    """Paint an index, and below it a ramp of greys and colours that drifts."""
    picture = paint_index(idx % 256, *size_px)
    strip_px = size_px[0] // 5
    ramp = (np.arange(size_px[1]) * 256 // size_px[1] + idx).astype(np.uint8)
    picture[-strip_px:] = np.stack([ramp, ramp[::-1], np.roll(ramp, size_px[1] // 3)], axis=-1)
    return picture


def _edited(path: Path) -> int:
    """Begin the clip five frames later by its edit list, as a phone's trimming does."""
    content = path.read_bytes()
    at = content.index(b"elst") + 4 + 4 + 4  # name, version and flags, number of entries
    start = int.from_bytes(content[at + 4 : at + 8], "big")
    with av.open(str(path)) as container:
        tick = container.streams.video[0].time_base
    cut = 5
    moved = start + round(cut / 30 / float(tick or 1))
    path.write_bytes(content[: at + 4] + moved.to_bytes(4, "big") + content[at + 8 :])
    return cut


def _linear(path: Path) -> Iterator[tuple[int, Frame]]:
    with av.open(str(path)) as container:
        track = container.streams.video[0]
        track.thread_type = "NONE"
        for frame in container.decode(track):
            picture = frame.to_ndarray(format="rgb24")
            yield read_index(picture), picture


def _readers(path: Path) -> dict[str, Reader]:
    readers = {name: _ours(path, name) for name in ("auto", "pyav")}
    return readers | {"decord": _decord(path)}


def _ours(path: Path, backend: Any) -> Reader:
    def frames(idxs: list[int]) -> list[Frame]:
        with open_decoder(open_source(path), backend=backend) as decoder:
            clips = decoder.clips_at(decoder.info.pts_s[idxs].tolist())
            return [frame for clip in clips for frame in clip.frames]

    def times_s() -> npt.NDArray[np.float64]:
        with open_decoder(open_source(path), backend=backend) as decoder:
            return decoder.info.pts_s

    return Reader(frames, times_s)


def _decord(path: Path) -> Reader:
    def frames(idxs: list[int]) -> list[Frame]:
        return list(decord.VideoReader(str(path)).get_batch(idxs).asnumpy())

    def times_s() -> npt.NDArray[np.float64]:
        reader = decord.VideoReader(str(path))
        starts_s = reader.get_frame_timestamp(range(len(reader)))[:, 0].astype(np.float64)
        return np.asarray(starts_s - starts_s[0])

    return Reader(frames, times_s)


def _tried(
    reader: Reader,
    sparse: list[int],
    shown: list[int],
    times_s: list[float],
    truth: dict[int, Frame],
) -> dict[str, Any]:
    """Read some frames and all of them, and compare what comes with what was painted."""
    num_wrong, is_equal, chance = 0, True, random.Random(0)
    every = range(len(shown))
    some = [sorted(chance.sample(every, 6)) for _ in range(_NUM_TRIES)]
    try:
        for idxs in (sparse, list(every), *some):
            frames = reader.frames(idxs)
            num_wrong += abs(len(frames) - len(idxs))
            for idx, frame in zip(idxs, frames, strict=False):
                num_wrong += read_index(frame) != shown[idx]
                is_equal &= np.array_equal(frame, truth.get(read_index(frame)))
        told_s = reader.times_s()
    except (LlavaVideoError, decord.DECORDError, RuntimeError, IndexError) as error:
        return {"exact": False, "error": str(error).splitlines()[0]}
    both = min(len(told_s), len(times_s))
    off_s = np.abs(told_s[:both] - times_s[:both])
    num_wrong_times = int((off_s > _TICK_S).sum()) + abs(len(told_s) - len(times_s))
    return {
        "exact": not num_wrong and is_equal and not num_wrong_times,
        "num_wrong_frames": num_wrong,
        "num_wrong_times": num_wrong_times,
        "equal_pixels": bool(is_equal),
    }


if __name__ == "__main__":
    sys.exit(main())
