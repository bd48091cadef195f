"""What do bad files do? Cut off, with flipped bits, with headers that lie, or no video at all.

Made on the spot from clips whose frames show their own index, and read in a sandbox, where a crash
or a hang of FFmpeg is counted and harms nothing. Good: every file gives frames, or one of our
errors that names it; none hangs, crashes or fails in a way nobody foresaw; nothing is left open.
Frames of a file that was merely cut off are the right ones.

    python benchmarks/bad_files.py [--append] [--check]
"""

import gc
import io
import itertools
import os
import random
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
from harness import can_measure_memory, parser_of, report, rss_bytes

from llava_video.errors import LlavaVideoError
from llava_video.video.decoder import Decoder
from llava_video.video.sandbox import DecoderPool
from llava_video.video.sandbox_process import WorkerEndedError
from llava_video.video.settings import SandboxSettings
from llava_video.video.source import open_source
from llava_video.world.bars import paint_index, read_index
from llava_video.world.clip import write_clip

os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder announces itself otherwise

NUM_FRAMES, RATE_HZ = 48, 30
_SETTINGS = SandboxSettings(stall_timeout_s=20.0, video_timeout_s=40.0, num_workers=1)
_X264 = {"preset": "ultrafast", "bf": "2", "g": "12"}
_X265 = {"preset": "ultrafast", "x265-params": "log-level=none:keyint=12:bframes=3"}
FULL = {"num_flips": 1000, "percent_step": 5, "lie_step": 1}
CHECK = {"num_flips": 40, "percent_step": 25, "lie_step": 10}
# Suffix, encoder and its options; the first of a suffix is the one that headers are taken from.
CLIPS: dict[str, tuple[str, str, dict[str, str]]] = {
    "mp4": ("mp4", "libx264", _X264),
    "mkv": ("mkv", "libx264", _X264),
    "ts": ("ts", "libx264", _X264),
    "webm": ("webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "g": "12"}),
    "avi": ("avi", "mpeg4", {"g": "12"}),
    "hevc": ("mp4", "libx265", _X265),
    "av1": ("mkv", "libsvtav1", {"preset": "8", "g": "12", "crf": "10"}),
}
# Kinds made from the first one: with the index in front, and in fragments.
_MP4_FLAGS = {"faststart": "+faststart", "fragments": "frag_keyframe+empty_moov"}
_MP4_ATOMS = (
    *(b"moov", b"mvhd", b"trak", b"tkhd", b"elst", b"mdhd", b"hdlr", b"stbl", b"stsd", b"avc1"),
    *(b"avcC", b"stts", b"stss", b"ctts", b"stsc", b"stsz", b"stco", b"mdat", b"ftyp"),
)
# Source: RFC 9559, section 5.1; the sizes that follow are left as they are, the values are not.
_MKV_ELEMENTS = {
    "segment": b"\x18\x53\x80\x67",
    "info": b"\x15\x49\xa9\x66",
    "timescale": b"\x2a\xd7\xb1",
    "duration": b"\x44\x89",
    "tracks": b"\x16\x54\xae\x6b",
    "width": b"\xb0",
    "height": b"\xba",
    "private": b"\x63\xa2",
    "cluster": b"\x1f\x43\xb6\x75",
    "cues": b"\x1c\x53\xbb\x6b",
}
_AVI_FIELDS = {"avih": 56, "strh": 56, "strf": 40, "idx1": 16, "movi": 8, "LIST": 8}


@dataclass(frozen=True, slots=True)
class BadFile:
    """A file to try.

    Attributes:
        kind: what was done to it, for the table.
        name: the file's name.
        content: its bytes.
        is_intact: whether each frame it still gives must be the right one.
    """

    kind: str
    name: str
    content: bytes = field(repr=False)
    is_intact: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a file: frames asked for, given and right, or an error."""

    file: BadFile
    seconds: float
    num_asked: int = 0
    num_given: int = 0
    num_right: int = 0
    has_faults: bool = False
    error: LlavaVideoError | None = None

    @property
    def is_told(self) -> bool:
        """Whether a user learns that something is wrong with the file."""
        return self.has_faults or self.ending != "whole"

    @property
    def ending(self) -> str:
        """One word for it."""
        if self.error is None:
            return "whole" if self.num_given == self.num_asked else "part"
        if isinstance(self.error.__cause__, WorkerEndedError):
            return "crashed" if "crashed" in self.error.message else "stopped"
        return "unforeseen" if "not foreseen" in self.error.message else "refused"

    @property
    def fault(self) -> str:
        """What should not have been; "" when all is well."""
        if self.ending in ("crashed", "stopped", "unforeseen"):
            return f"{self.file.name}: {self.error}"
        if self.error is not None and self.file.name not in self.error.message:
            return f"{self.file.name} is not named: {self.error}"
        if self.file.is_intact and self.num_right < self.num_given:
            return f"{self.file.name}: {self.num_given - self.num_right} wrong frames"
        return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Read them all, print, and return 1 where one did what it should not."""
    asked = parser_of(__doc__).parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        clips = make_clips(Path(scratch))
        files = corpus(clips, **(CHECK if asked.check else FULL))
        row = read_all(Path(scratch), files)
    row["versions"] = {"av": av.__version__, "ffmpeg": av.ffmpeg_version_info}
    report("bad_files", {**row, "check": asked.check}, append=asked.append)
    return 0 if row["passed"] else 1


def make_clips(folder: Path) -> dict[str, bytes]:
    """Return a good clip of each kind this PyAV can write."""
    clips = {}
    for kind, (suffix, encoder, options) in CLIPS.items():
        if encoder not in av.codecs_available:
            continue
        path = folder / f"{kind}.{suffix}"
        pictures = (paint_index(idx, 96, 160) for idx in range(NUM_FRAMES))
        write_clip(path, pictures, codec=encoder, codec_options=options, frame_rate_hz=RATE_HZ)
        clips[kind] = path.read_bytes()
    for kind, flags in _MP4_FLAGS.items():
        clips[kind] = _remuxed(folder / "mp4.mp4", flags)
    return clips


def _remuxed(path: Path, flags: str) -> bytes:
    """Return an MP4 file written in another order."""
    target = path.with_name("remuxed.mp4")
    with (
        av.open(str(path)) as source,
        av.open(str(target), "w", options={"movflags": flags}) as file,
    ):
        track = file.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = track
                file.mux(packet)
    return target.read_bytes()


def corpus(
    clips: dict[str, bytes], *, num_flips: int, percent_step: int, lie_step: int
) -> Iterator[BadFile]:
    """Yield all bad files.

    Args:
        clips: from `make_clips`.
        num_flips: files with flipped bits, a seed each, over all kinds in turn.
        percent_step: steps in which every clip is cut short.
        lie_step: every how manyth of the headers' lies is told.
    """
    for kind, content in clips.items():
        suffix = suffix_of(kind)
        for percent in range(percent_step, 100, percent_step):
            cut = content[: len(content) * percent // 100]
            yield BadFile("cut", f"{kind}_{percent}.{suffix}", cut, is_intact=True)
    yield from _flipped(clips, num_flips)
    lies = (_mp4_lies(clips["mp4"]), _mkv_lies(clips["mkv"]), _avi_lies(clips["avi"]))
    yield from itertools.islice(itertools.chain(*lies), 0, None, lie_step)
    yield from _no_videos(clips)


def suffix_of(kind: str) -> str:
    """Return the suffix of a kind of clip's files."""
    return CLIPS[kind][0] if kind in CLIPS else "mp4"


def flip(content: bytes, seed: int) -> bytes:
    """Flip 1 to 64 bits anywhere; of every other seed near each other, as a bad sector would."""
    chance, broken = random.Random(seed), bytearray(content)
    start = chance.randrange(len(content))
    for _ in range(chance.choice([1, 4, 16, 64])):
        at = start + chance.randrange(512) if seed % 2 else chance.randrange(len(content))
        broken[at % len(content)] ^= 1 << chance.randrange(8)
    return bytes(broken)


def _flipped(clips: dict[str, bytes], num_flips: int) -> Iterator[BadFile]:
    kinds = list(clips)
    for seed in range(num_flips):
        kind = kinds[seed % len(kinds)]
        name = f"{kind}_seed{seed}.{suffix_of(kind)}"
        yield BadFile("flipped", name, flip(clips[kind], seed))


def _mp4_lies(content: bytes) -> Iterator[BadFile]:
    """Let each atom lie about its size, and about each of its first numbers."""
    for atom in _MP4_ATOMS:
        at = content.find(atom)
        if at < 0:
            continue
        name = atom.decode()
        for offset in range(-4, 28, 4):
            if offset == 0:
                continue  # the atom's name
            yield from _numbers(content, "mp4", f"{name}{offset:+d}", at + offset, "big")


def _mkv_lies(content: bytes) -> Iterator[BadFile]:
    """Let each element lie about its size and its value."""
    for name, element in _MKV_ELEMENTS.items():
        at = content.find(
            element, content.find(_MKV_ELEMENTS["tracks"]) if len(element) == 1 else 0
        )
        if at < 0:
            continue
        after = at + len(element)
        for offset in range(5):
            for value in (0x00, 0x7F, 0xFF):
                lie = bytearray(content)
                lie[after + offset] = value
                yield BadFile("lie", f"{name}+{offset}_{value:02x}.mkv", bytes(lie))


def _avi_lies(content: bytes) -> Iterator[BadFile]:
    for name, length in _AVI_FIELDS.items():
        at = content.find(name.encode())
        for offset in range(4, length + 4, 4):
            yield from _numbers(content, "avi", f"{name}+{offset}", at + offset, "little")


def _numbers(content: bytes, suffix: str, name: str, at: int, order: str) -> Iterator[BadFile]:
    for value in (0, 0x7FFFFFFF, 0xFFFFFFFF, 0x00010000):
        lie = bytearray(content)
        lie[at : at + 4] = struct.pack(">I" if order == "big" else "<I", value)
        yield BadFile("lie", f"{name}_{value:x}.{suffix}", bytes(lie[: len(content)]))


def _no_videos(clips: dict[str, bytes]) -> Iterator[BadFile]:
    yield BadFile("no video", "empty.mp4", b"")
    yield BadFile("no video", "zeros.mp4", bytes(20_000))
    yield BadFile("no video", "text.mp4", b"just words, and no picture\n" * 500)
    yield BadFile("no video", "noise.mp4", random.Random(0).randbytes(20_000))
    yield BadFile("no video", "sound.mp4", _sound())
    for kind, content in clips.items():
        suffix = suffix_of(kind)
        yield BadFile("no video", f"{kind}_head.{suffix}", content[:40])
        yield BadFile("no video", f"{kind}_tail.{suffix}", content[len(content) // 2 :])
        yield BadFile("no video", f"{kind}_hole.{suffix}", _hole(content))


def _hole(content: bytes) -> bytes:
    """Return the content with its middle half zero, as a download that was given up."""
    quarter = len(content) // 4
    return content[:quarter] + bytes(len(content) - 2 * quarter) + content[-quarter:]


def _sound() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        track = container.add_stream("aac", rate=16_000, layout="mono")
        silence = np.zeros((1, 16_000), dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.rate = 16_000
        container.mux(track.encode(frame))
        container.mux(track.encode(None))
    return file.getvalue()


def read_all(folder: Path, files: Iterator[BadFile]) -> dict[str, Any]:
    """Read the files one by one in a sandbox, and return the figures."""
    outcomes: dict[str, list[Outcome]] = {}
    with DecoderPool(_SETTINGS) as pool:
        before = _held()
        for num, file in enumerate(files):
            outcome = read_one(folder, file, pool.open)
            outcomes.setdefault(file.kind, []).append(outcome)
            if num == 0:
                before = _held()  # with a worker
        after = _held()
    faults = [o.fault for of_kind in outcomes.values() for o in of_kind if o.fault]
    kinds = {kind: _figures(kind, of_kind) for kind, of_kind in outcomes.items()}
    for fault in faults:
        print(f"! {fault}")
    grown_bytes = after[1] - before[1]
    print(f"descriptors {before[0]} -> {after[0]}, memory {grown_bytes / 1e6:+.1f} MB")
    return {
        "kinds": kinds,
        "faults": faults[:20],
        "num_faults": len(faults),
        "descriptors_left": after[0] - before[0],
        "grown_bytes": grown_bytes,
        "passed": not faults and after[0] <= before[0],
    }


def read_one(folder: Path, file: BadFile, open_with: Callable[..., Decoder]) -> Outcome:
    """Read a file from its first frame to its last."""
    path = folder / file.name
    path.write_bytes(file.content)
    started_s = time.monotonic()
    num_asked = num_given = num_right = 0
    has_faults = False
    error: LlavaVideoError | None = None
    try:
        with open_with(open_source(path)) as decoder:
            times_s = decoder.info.pts_s[:NUM_FRAMES]
            num_asked, has_faults = len(times_s), bool(decoder.info.faults)
            for clip in decoder.clips_at(times_s.tolist()):
                num_given += len(clip.frames)
                shown = [read_index(frame) for frame in clip.frames]
                num_right += int((np.rint(clip.pts_s * RATE_HZ) == shown).sum())
    except LlavaVideoError as raised:
        error = raised
    path.unlink()
    took_s = time.monotonic() - started_s
    return Outcome(file, took_s, num_asked, num_given, num_right, has_faults, error)


def _figures(kind: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    endings = Counter(outcome.ending for outcome in outcomes)
    asked, given, right = (
        sum(getattr(outcome, name) for outcome in outcomes)
        for name in ("num_asked", "num_given", "num_right")
    )
    num_told = sum(outcome.is_told for outcome in outcomes)
    longest = max(outcomes, key=lambda outcome: outcome.seconds)
    print(
        f"{kind:<9} {len(outcomes):>5} files: {', '.join(f'{n} {e}' for e, n in endings.items())}; "
        f"of {num_told} it is said what is wrong; {given} of {asked} frames, {right} show what "
        f"their time says; longest {longest.seconds:.2f} s ({longest.file.name})"
    )
    return {
        "files": len(outcomes),
        **endings,
        "told": num_told,
        "frames_asked": asked,
        "frames_given": given,
        "frames_right": right,
        "longest_s": longest.seconds,
    }


def _held() -> tuple[int, int]:
    """Return this process's open descriptors and memory; zeros where the system does not say."""
    gc.collect()
    folder = Path("/proc/self/fd")
    num_descriptors = len(list(folder.iterdir())) if folder.is_dir() else 0
    return num_descriptors, rss_bytes() if can_measure_memory() else 0


if __name__ == "__main__":
    sys.exit(main())
