"""Tracks read back: by parsers written here from the formats' own rules, to the millisecond."""

import html
import re
from pathlib import Path

import archive_rows as made
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_video.archive.tracks import (
    chapters,
    cues,
    to_markdown,
    to_srt,
    to_vtt,
    track_name,
    write_tracks,
)

Parsed = list[tuple[int, int, str]]
WORD_JOINER = "\u2060"
HOSTILE = [
    "a --> b",
    "00:00:01.000 --> 00:00:02.000",
    "<i>c</i> & &lt; <b",
    "one\ntwo\r\n\n\nthree",
    "WEBVTT\n\nNOTE x",
    "7\n00:00:01,000 --> 00:00:02,000\nfalse",
    "{\\an8}up {b}",
    "",
    "\x00\x1b[31m",
    "x\udce9",
]


def milliseconds(clock: str) -> int:
    found = re.fullmatch(r"(\d{2,}):([0-5]\d):([0-5]\d)[.,](\d{3})", clock)
    assert found is not None, clock
    hours, minutes, seconds, rest = map(int, found.groups())
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + rest


def parse_vtt(text: str) -> Parsed:
    """Parse as a browser does: lines, a header, cues that an empty line or a second arrow ends."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "\ufffd").split("\n")
    assert lines[0] == "WEBVTT"
    assert lines[1] == ""
    found: Parsed = []
    open_cue = False
    for line in lines[2:]:
        if "-->" in line:
            start, end = line.split(" --> ")
            found.append((milliseconds(start), milliseconds(end), ""))
            open_cue = True
        elif not line:
            open_cue = False
        else:
            assert open_cue, f"text outside of a cue: {line!r}"
            start_ms, end_ms, before = found[-1]
            assert "<" not in line, "a tag"
            said = html.unescape(line)
            found[-1] = start_ms, end_ms, f"{before}\n{said}" if before else said
    return found


def parse_srt(text: str) -> Parsed:
    """Parse as players do: a line that holds an arrow is the times of a cue."""
    found: Parsed = []
    for block in text.strip("\n").split("\n\n"):
        number, times, *lines = block.split("\n")
        assert int(number) == len(found) + 1
        start, end = times.split(" --> ")
        said = "\n".join(line for line in lines if line)
        assert "-->" not in said
        assert re.search(r"<[A-Za-z/]|\{[\\A-Za-z]", said) is None, "a tag"
        found.append((milliseconds(start), milliseconds(end), said.replace(WORD_JOINER, "")))
    return found


def kept(text: str) -> str:
    """Return what of a text a track can show: its words, in its lines that have any."""
    shown = re.sub(r"[\x00-\x08\x0e-\x1f\x7f]", "", text.encode(errors="backslashreplace").decode())
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    return "\n".join(line for line in lines if line) or "…"


def spans(captions: list[tuple[float, float, str]]) -> Parsed:
    return [(round(1000 * start), round(1000 * end), kept(text)) for start, end, text in captions]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_caption_can_break_its_track(text: str) -> None:
    captions = [(0.0, 1.5, "before"), (1.5, 3.001, text), (3.001, 4.0, "after")]
    row = made.timeline_row(0, captions)
    assert parse_vtt(to_vtt(row)) == spans(captions)
    assert parse_srt(to_srt(row)) == spans(captions)


@given(
    st.lists(
        st.tuples(st.integers(0, 10**8), st.integers(1, 10**6), st.text(max_size=40)),
        min_size=1,
        max_size=4,
    )
)
def test_times_are_exact_and_texts_whole(drawn: list[tuple[int, int, str]]) -> None:
    captions = sorted(
        ((begin / 1000, (begin + length) / 1000, text) for begin, length, text in drawn),
        key=lambda caption: caption[:2],
    )
    row = made.timeline_row(0, captions)
    wanted = spans(captions)
    assert parse_vtt(to_vtt(row)) == wanted
    without = [(start, end, text.replace(WORD_JOINER, "")) for start, end, text in wanted]
    assert parse_srt(to_srt(row)) == without


def test_times_by_hand() -> None:
    row = made.timeline_row(0, [(3599.9996, 3723.2506, "late"), (0.0004, 0.0004, "empty")])
    assert to_vtt(row) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:00.001\nempty\n\n01:00:00.000 --> 01:02:03.251\nlate\n"
    )
    assert to_srt(row).splitlines()[5] == "01:00:00,000 --> 01:02:03,251"


def test_answers_stand_behind_their_questions() -> None:
    row = made.ask_row(0, {"Who?": "A dog.", "Where?": "Here."}, start_s=1.0)
    assert [(cue.start_ms, cue.end_ms, cue.text) for cue in cues(row)] == [
        (1000, 4000, "Who?\nA dog."),
        (1000, 4000, "Where?\nHere."),
    ]


def test_chapters_follow_one_another_and_merge_what_says_the_same() -> None:
    captions = [(0.0, 12.0, "A dog."), (10.0, 22.0, "A  dog."), (20.0, 32.0, "A cat. It sits.")]
    row = made.timeline_row(0, captions)
    assert [(c.start_ms, c.end_ms, c.text) for c in chapters(row)] == [
        (0, 20_000, "A dog."),
        (20_000, 32_000, "A cat. It sits."),
    ]


def test_markdown_by_hand() -> None:
    captions = [(0.0, 10.0, "# A *dog*."), (10.0, 20.0, "1. <b>cat</b>\n\n- sits")]
    row = made.timeline_row(0, captions, address="x/a_b.mp4")
    assert to_markdown(row) == (
        "# a\\_b.mp4\n\n"
        "\\# A \\*dog\\*. 1. \\<b\\>cat\\</b\\> - sits\n\n"
        "- 00:00:00.000 \\# A \\*dog\\*.\n"
        "- 00:00:10.000 1\\. \\<b\\>cat\\</b\\>\n\n"
        "## 00:00:00.000 – 00:00:10.000\n\n\\# A \\*dog\\*.\n\n"
        "## 00:00:10.000 – 00:00:20.000\n\n1\\. \\<b\\>cat\\</b\\>\n\n\\- sits\n"
    )


def test_a_long_title_ends_at_a_word() -> None:
    captions = [(0.0, 1.0, "word " * 40), (1.0, 2.0, "end")]
    line = to_markdown(made.timeline_row(0, captions)).split("\n\n")[2].splitlines()[0]
    assert line == "- 00:00:00.000 " + " ".join(["word"] * 16) + " …"


def test_files_are_whole_and_named_for_their_video(tmp_path: Path) -> None:
    row = made.timeline_row(0, [(0.0, 1.0, "A dog.")], name="../../Söme: <film>.mp4")
    paths = write_tracks(tmp_path, row)
    name = f"Söme_ _film_-{row['key'][:8]}"
    assert [path.name for path in paths] == [f"{name}.vtt", f"{name}.srt", f"{name}.md"]
    assert sorted((tmp_path / "videos").iterdir()) == sorted(paths)
    assert [path.read_bytes().decode() for path in paths] == [
        to_vtt(row),
        to_srt(row),
        to_markdown(row),
    ]
    assert write_tracks(tmp_path, made.failed_row(1)) == []


@pytest.mark.parametrize("name", ["", "...", "-rf", "é" * 200 + ".mp4", "a\x00b", "x\udce9"])
def test_any_name_makes_a_file_name(name: str, tmp_path: Path) -> None:
    row = made.timeline_row(0, [(0.0, 1.0, "x")], name=name)
    assert len(write_tracks(tmp_path, row)) == 3
    assert re.match(r"\w", track_name(row))
    assert len(track_name(row).encode()) < 140
