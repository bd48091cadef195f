"""A row → caption tracks of its video: WebVTT, SRT, and chapters in Markdown.

Times are exact to the millisecond. What a format would read as its own marks is escaped, so any
caption is harmless. Knows no model and no player.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llava_video.archive.row import plain_text
from llava_video.files import replacing

TRACKS: Final = "videos"
_LONGEST_STEM: Final = 120  # bytes; file systems stop at 255
_LONGEST_TITLE: Final = 80
_KEY_DIGITS: Final = 8
# SRT has no escapes. This mark is not shown, and takes the meaning from what it stands between.
_WORD_JOINER: Final = "\u2060"
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_SRT_MARKS: Final = re.compile(r"(?<=--)(?=>)|(?<=<)(?=[A-Za-z/])|(?<=\{)(?=[\\A-Za-z])")
_MARKDOWN_MARKS: Final = re.compile(r"([\\`*_\[\]<>#&|~$!])")
_MARKDOWN_START: Final = re.compile(r"^(\d*)([-+=.)])")
_UNSAFE: Final = re.compile(r"[^\w.\- ]+")


@dataclass(frozen=True, slots=True)
class Cue:
    """A text and the span it is about, in milliseconds from the video's first frame."""

    start_ms: int
    end_ms: int
    text: str


def cues(row: Mapping[str, Any]) -> list[Cue]:
    """Return what a row says of spans of its video, by start; none of a row without answers.

    Of several questions about one span, each answer stands behind its question.
    """
    asks = row["asked"]["task"] == "ask"
    found: list[Cue] = []
    for answer in row["answers"]:
        start_ms = round(answer["start_s"] * 1000)
        end_ms = max(round(answer["end_s"] * 1000), start_ms + 1)  # an empty cue is never shown
        text = f"{answer['prompt']}\n{answer['text']}" if asks else answer["text"]
        found.append(Cue(start_ms, end_ms, plain_text(text)))
    return sorted(found, key=lambda cue: (cue.start_ms, cue.end_ms))


def chapters(row: Mapping[str, Any]) -> list[Cue]:
    """Return consecutive chapters: windows that say the same are one, and none overlap.

    Where windows overlap, a chapter ends where the next begins.
    """
    found: list[Cue] = []
    for cue in cues(row):
        if found and cue.text.split() == found[-1].text.split():
            found[-1] = Cue(found[-1].start_ms, max(cue.end_ms, found[-1].end_ms), found[-1].text)
            continue
        if found and found[-1].start_ms < cue.start_ms < found[-1].end_ms:
            found[-1] = Cue(found[-1].start_ms, cue.start_ms, found[-1].text)
        found.append(cue)
    return found


def to_vtt(row: Mapping[str, Any]) -> str:
    """Return WebVTT. A text's lines are kept, its empty ones, which would end a cue, are not."""
    parts = [
        f"{_clock(cue.start_ms)} --> {_clock(cue.end_ms)}\n{_lines(cue.text, _vtt_line)}\n"
        for cue in cues(row)
    ]
    return "\n".join(["WEBVTT\n", *parts])


def to_srt(row: Mapping[str, Any]) -> str:
    """Return SubRip, which numbers cues from 1 and has a comma before milliseconds."""
    parts = [
        f"{number}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n"
        f"{_lines(cue.text, _srt_line)}\n"
        for number, cue in enumerate(cues(row), 1)
    ]
    return "\n".join(parts)


def to_markdown(row: Mapping[str, Any]) -> str:
    """Return a video's chapters: a list of times and titles, then each with its text."""
    name = plain_text(row["video"]["name"])
    parts = [f"# {_markdown(name)}", *([_markdown(row["summary"])] if row["summary"] else [])]
    found = chapters(row)
    if len(found) > 1:
        parts.append("\n".join(f"- {_clock(cue.start_ms)} {_title(cue.text)}" for cue in found))
    for cue in found:
        parts.append(f"## {_clock(cue.start_ms)} – {_clock(cue.end_ms)}")
        parts += [_markdown(line) for line in _kept_lines(cue.text)]
    return "\n\n".join(parts) + "\n"


def write_tracks(folder: Path, row: Mapping[str, Any]) -> list[Path]:
    """Write a row's three tracks into a run folder, each whole or not at all.

    Returns:
        Their paths; none of a row without answers.

    Raises:
        OSError: they cannot be written.
    """
    if not row["answers"]:
        return []
    place = folder / TRACKS
    place.mkdir(parents=True, exist_ok=True)
    paths = [place / f"{track_name(row)}{suffix}" for suffix in _WRITERS]
    for path, write in zip(paths, _WRITERS.values(), strict=True):
        with replacing(path) as unfinished:
            unfinished.write_text(write(row), encoding="utf-8", newline="\n")
    return paths


def track_faults(folder: Path, row: Mapping[str, Any]) -> list[str]:
    """Return the names of a row's tracks that are not there, or say something else."""
    if not row["answers"]:
        return []
    faults = []
    for suffix, write in _WRITERS.items():
        path = folder / TRACKS / f"{track_name(row)}{suffix}"
        try:
            is_same = path.read_bytes() == write(row).encode()
        except OSError:
            is_same = False
        if not is_same:
            faults.append(path.name)
    return faults


def remove_tracks(folder: Path, keys: Iterable[str]) -> int:
    """Remove the tracks of units that nobody asks for any more; return how many files.

    Args:
        folder: of the run.
        keys: of those units.
    """
    gone = {key[:_KEY_DIGITS] for key in keys}
    if not gone or not (folder / TRACKS).is_dir():
        return 0
    names = [path for path in (folder / TRACKS).iterdir() if path.suffix in _WRITERS]
    stale = [path for path in names if path.stem.rpartition("-")[2] in gone]
    for path in stale:
        path.unlink(missing_ok=True)
    return len(stale)


def track_name(row: Mapping[str, Any]) -> str:
    """Return the name of a row's tracks without suffix: its video's, and eight digits of its key.

    Two spans of one video, and two videos of one name, have tracks of their own.
    """
    stem = _UNSAFE.sub("_", plain_text(Path(row["video"]["name"]).stem)).strip(" .") or "video"
    short = stem.encode()[:_LONGEST_STEM].decode(errors="ignore").lstrip("-")
    return f"{short or 'video'}-{row['key'][:_KEY_DIGITS]}"


_WRITERS: Final[dict[str, Callable[[Mapping[str, Any]], str]]] = {
    ".vtt": to_vtt,
    ".srt": to_srt,
    ".md": to_markdown,
}


def _clock(time_ms: int, point: str = ".") -> str:
    seconds, milliseconds = divmod(time_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{point}{milliseconds:03d}"


def _kept_lines(text: str) -> Sequence[str]:
    lines = (" ".join(line.split()) for line in _CONTROLS.sub("", text).splitlines())
    return [line for line in lines if line] or ["…"]


def _lines(text: str, escaped: Callable[[str], str]) -> str:
    return "\n".join(escaped(line) for line in _kept_lines(text))


def _vtt_line(line: str) -> str:
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _srt_line(line: str) -> str:
    return _SRT_MARKS.sub(_WORD_JOINER, line)


def _markdown(text: str) -> str:
    """Return a text as one paragraph that says what it said, whatever marks it holds."""
    line = " ".join(_kept_lines(plain_text(text)))
    return _MARKDOWN_START.sub(r"\1\\\2", _MARKDOWN_MARKS.sub(r"\\\1", line))


def _title(text: str) -> str:
    """Return a chapter's first sentence, cut at a word where it is long."""
    first = re.split(r"(?<=\D[.!?。！？])\s+", _kept_lines(text)[0])[0]
    if len(first) > _LONGEST_TITLE:
        first = first[:_LONGEST_TITLE].rsplit(" ", 1)[0] + " …"
    return _markdown(first)
