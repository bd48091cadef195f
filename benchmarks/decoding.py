"""How fast do the frames arrive? Opening and reading, against decord and PyAV on the same file.

Bound by the codec, on all cores: what can be saved are pictures nobody asked for, and idle cores.
1080p H.264 at 30 frames per second, made on the spot; times include opening and probing. Good:

- 64 frames of an hour, keyframes 250 or 30 apart: not slower than the faster of decord's
  `get_batch` and PyAV seeking to each frame with the codec's threads; ten times as fast as decoding
  everything, as the PyAV loader of transformers does;
- every frame, or one a second, of a minute: not slower than the faster of decord and PyAV;
- keyframes of the hour: ten times as fast as exact frames, once the file is probed.

    python benchmarks/decoding.py [--part hour|minute] [--append] [--check]
"""

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
from footage import RATE_HZ, write_footage
from harness import Timing, interleaved, measure, parser_of, ratio, report
from transformers.video_utils import read_video_pyav

from llava_video.values import VideoInfo
from llava_video.video.decoder import open_decoder
from llava_video.video.probe import probe
from llava_video.video.source import open_source

_NUM_SPARSE = 64
_BURST = 16  # frames of one get_batch: 100 MB
MIN_RATIO, MIN_RATIO_TO_ALL, MIN_RATIO_OF_KEYFRAMES = 1.0, 10.0, 10.0

Frame = npt.NDArray[np.uint8]
Read = Callable[[], Iterator[Frame]]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large everything is."""

    hour_s: int = 3600
    minute_s: int = 60
    height_px: int = 1080
    width_px: int = 1920
    gops: tuple[int, ...] = (250, 30)
    repeats: int = 3


_CHECK = Sizes(hour_s=20, minute_s=4, height_px=90, width_px=160, gops=(30,), repeats=1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 where a target is missed."""
    parser = parser_of(__doc__)
    parser.add_argument("--part", choices=tuple(_PARTS), help="only this one")
    asked = parser.parse_args(arguments)
    sizes = _CHECK if asked.check else Sizes()
    parts = [asked.part] if asked.part else list(_PARTS)
    with tempfile.TemporaryDirectory() as scratch:
        cases = [case for part in parts for case in _PARTS[part](Path(scratch), sizes)]
    passed = all(case["passed"] for case in cases)
    row = {
        "cases": cases,
        "passed": passed,
        "versions": {"av": av.__version__, "decord": decord.__version__},
        "check": asked.check,
    }
    report("decoding", row, append=asked.append)
    return 0 if passed or asked.check else 1


def _long(folder: Path, sizes: Sizes) -> Iterator[dict[str, Any]]:
    """Time 64 frames of an hour, keyframes alone, and decoding it all."""
    for gop_frames in sizes.gops:
        path = _footage(folder, sizes, sizes.hour_s, gop_frames)
        info = probe(open_source(path))
        idxs = np.linspace(0, info.num_frames - 1, _NUM_SPARSE).astype(int).tolist()
        keys = np.asarray(info.keyframe_idxs)
        nearest = keys[np.abs(keys[:, None] - np.asarray(idxs)).argmin(axis=0)]
        title = f"{_NUM_SPARSE} of {sizes.hour_s} s, keyframe every {gop_frames}"
        timings = _timed(path, idxs, sizes, keyframes=np.unique(nearest).tolist(), plain=_seeking)
        case = _case(title, timings)
        case["keyframe_ratio"] = ratio(timings["exact, probed"], timings["keyframes, probed"])
        case["opening_too_ratio"] = ratio(timings["ours"], timings["keyframes"])
        print(
            f"{'':<34} keyframes {case['keyframe_ratio']:.1f} x exact, with opening "
            f"{case['opening_too_ratio']:.1f} x ({timings['keyframes']})"
        )
        # With a keyframe every second exact frames are cheap already, and ten times as fast as all.
        if gop_frames == max(sizes.gops):
            _add_everything(case, path, idxs, timings["ours"])
            case["passed"] &= case["keyframe_ratio"] >= MIN_RATIO_OF_KEYFRAMES
        yield case
        path.unlink()


def _add_everything(case: dict[str, Any], path: Path, idxs: list[int], ours: Timing) -> None:
    everything = measure(
        lambda: read_video_pyav(str(path), lambda metadata: idxs), warm_up=0, repeats=1
    )
    case["all_ratio"] = everything.p50_s / ours.p50_s
    case["timings"]["everything"] = everything.to_json()
    case["passed"] &= case["all_ratio"] >= MIN_RATIO_TO_ALL
    print(f"{'':<34} {case['all_ratio']:.1f} x decoding everything ({everything})")


def _short(folder: Path, sizes: Sizes) -> Iterator[dict[str, Any]]:
    """Time one frame a second and every frame of a minute."""
    for gop_frames in sizes.gops:
        path = _footage(folder, sizes, sizes.minute_s, gop_frames)
        num_frames = probe(open_source(path)).num_frames
        for step, words in ((RATE_HZ, "1 a second"), (1, "every frame")):
            # Off the keyframes, which a second from one another would all be keyframes.
            idxs = list(range(step // 2, num_frames, step))
            timings = _timed(path, idxs, sizes, plain=_seeking if step > 1 else _through)
            yield _case(f"{words} of {sizes.minute_s} s, keyframe every {gop_frames}", timings)
        path.unlink()


def _footage(folder: Path, sizes: Sizes, seconds: int, gop_frames: int) -> Path:
    return write_footage(
        folder / f"{seconds}_{gop_frames}.mp4",
        seconds=seconds,
        gop_frames=gop_frames,
        height_px=sizes.height_px,
        width_px=sizes.width_px,
        clip_s=min(seconds, 25 if gop_frames == 250 else 20),
    )


def _timed(
    path: Path,
    idxs: list[int],
    sizes: Sizes,
    *,
    plain: Callable[[Path, list[int]], Iterator[Frame]],
    keyframes: list[int] | None = None,
) -> dict[str, Timing]:
    reads: dict[str, Read] = {
        "ours": lambda: _ours(path, idxs),
        "decord": lambda: _decord(path, idxs),
        "pyav": lambda: plain(path, idxs),
    }
    sums = {name: _checksums(read()) for name, read in reads.items()}
    if len({tuple(found) for found in sums.values()}) != 1:
        raise AssertionError("the readers do not give the same frames")
    if keyframes:
        info = probe(open_source(path))
        reads["keyframes"] = lambda: _ours(path, keyframes)
        reads["exact, probed"] = lambda: _ours(path, idxs, info)
        reads["keyframes, probed"] = lambda: _ours(path, keyframes, info)
    runs = {name: lambda read=read: _drain(read()) for name, read in reads.items()}
    return interleaved(runs, warm_up=0, repeats=sizes.repeats, budget_s=300)


def _case(title: str, timings: dict[str, Timing]) -> dict[str, Any]:
    best = min(("decord", "pyav"), key=lambda name: timings[name].p50_s)
    faster = ratio(timings[best], timings["ours"])
    print(
        f"{title:<34} {faster:.2f} x the faster of decord ({timings['decord']}) and PyAV "
        f"({timings['pyav']}): {timings['ours']}"
    )
    return {
        "case": title,
        "ratio": faster,
        "passed": faster >= MIN_RATIO,
        "timings": {name: timing.to_json() for name, timing in timings.items()},
    }


def _ours(path: Path, idxs: list[int], info: VideoInfo | None = None) -> Iterator[Frame]:
    with open_decoder(open_source(path), info=info) as decoder:
        for clip in decoder.clips_at(decoder.info.pts_s[idxs].tolist()):
            yield from clip.frames


def _decord(path: Path, idxs: list[int]) -> Iterator[Frame]:
    reader = decord.VideoReader(str(path))
    for start in range(0, len(idxs), _BURST):
        yield from reader.get_batch(idxs[start : start + _BURST]).asnumpy()


def _seeking(path: Path, idxs: list[int]) -> Iterator[Frame]:
    """Seek to the keyframe before each frame and decode on to it, with the codec's threads."""
    with av.open(str(path)) as container:
        track = container.streams.video[0]
        track.thread_type = "AUTO"
        tick_s = float(track.time_base or 1)
        for idx in idxs:
            pts = round(idx / RATE_HZ / tick_s)
            container.seek(pts, stream=track)
            frame = next(f for f in container.decode(track) if (f.pts or 0) >= pts)
            yield frame.to_ndarray(format="rgb24")


def _through(path: Path, idxs: list[int]) -> Iterator[Frame]:
    """Decode from the start, with the codec's threads, and convert what is asked for."""
    wanted = set(idxs)
    with av.open(str(path)) as container:
        track = container.streams.video[0]
        track.thread_type = "AUTO"
        for idx, frame in enumerate(container.decode(track)):
            if idx in wanted:
                yield frame.to_ndarray(format="rgb24")


def _checksums(frames: Iterator[Frame]) -> list[int]:
    return [int(frame[::7, ::5].astype(np.uint64).sum()) for frame in frames]


def _drain(frames: Iterator[Frame]) -> None:
    for _ in frames:
        pass


_PARTS = {"hour": _long, "minute": _short}


if __name__ == "__main__":
    sys.exit(main())
