"""A report is one file that needs no other, counts every row and shows all texts as text."""

import base64
from html.parser import HTMLParser
from pathlib import Path

import archive_rows as made
import numpy as np
import pytest

from llava_video.archive import report
from llava_video.archive.ledger import Ledger
from llava_video.archive.report import write_report
from llava_video.archive.row import Asked, duplicate_row
from llava_video.archive.sheets import sheet_of, sheet_path, write_sheet
from llava_video.errors import ConfigError, SourceError

HOSTILE = '"><script src=//evil.example/x.js></script><b onload="a">&<!--'


class Page(HTMLParser):
    """Everything a browser would see: tags with attributes, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        made.caption_row(0, f"A dog. {HOSTILE}", address=f"clips/{HOSTILE}.mp4"),
        made.failed_row(1, address="bad.mp4"),
        made.timeline_row(2, [(0.0, 30.0, "A yard."), (30.0, 90.0, "A truck.")]),
        made.failed_row(3, kind="SourceError", quarantined=True, address=HOSTILE),
        duplicate_row(made.unit(4), 0, Asked(task="caption")),
        made.failed_row(5, address="worse.mp4"),
    ]
    folder = made.sealed_run(tmp_path / "run & more", rows)
    pictures = np.zeros((2, 18, 32, 3), np.uint8)
    seen = made.description("x", thumbnails=pictures, thumbnail_times_s=(0.0, 1.0))
    write_sheet(folder, rows[0]["key"], sheet_of([seen]) or b"")
    return folder


def test_nothing_is_fetched_and_nothing_runs(folder: Path) -> None:
    text = write_report(folder).read_text(encoding="utf-8")
    assert "http" not in text.replace("http-equiv", "")
    page = Page(text)
    names = {name for name, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "base", "form", "a"}
    attributes = {(tag, name) for tag, attrs in page.tags for name in attrs}
    assert not [name for _, name in attributes if name.startswith("on")]
    assert {tag for tag, name in attributes if name in ("src", "href", "srcset")} == {"img"}
    sources = [str(attrs["src"]) for tag, attrs in page.tags if tag == "img"]
    assert len(sources) == 1
    head, data = sources[0].split(",")
    assert head == "data:image/jpeg;base64"
    assert base64.b64decode(data)[:3] == b"\xff\xd8\xff"
    assert HOSTILE in page.text  # shown as it is
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "rows", "sheets"]


def test_every_row_is_counted_and_failures_are_named_by_class(folder: Path) -> None:
    text = write_report(folder).read_text(encoding="utf-8")
    for status, number in (("done", 2), ("failed", 2), ("quarantined", 1), ("duplicate", 1)):
        assert f"<tr><th>{status}</th><td>{number}</td></tr>" in text
    assert "<tr><th>inputs</th><td>6</td></tr>" in text
    assert "0.03 hours" in text  # 4 s and 90 s
    assert "<summary>DecodeError: 2</summary>" in text
    assert "<summary>SourceError: 1</summary>" in text
    assert text.index("DecodeError: 2") < text.index("SourceError: 1")  # the commonest first
    assert text.index("bad.mp4") < text.index("worse.mp4")
    assert "quarantined after 3 tries" in text
    assert "36 visual, 15 written" in text  # three answers of 12 and 5
    assert "2 in all, from 4 to 90 s" in text
    assert "tiny (2)" in text


def test_what_is_too_much_is_counted_and_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "_MOST_NAMED", 1)
    monkeypatch.setattr(report, "_MOST_PICTURE_BYTES", 100)
    text = write_report(folder, most_rows=1).read_text(encoding="utf-8")
    assert "and 1 more" in text
    assert "<img" not in text
    assert "1 of 2, in the order of the inputs" in text
    assert "A truck." not in text


def test_rows_that_stand_in_no_shard_yet_are_counted(ledger: Ledger) -> None:
    ledger.add([made.unit(0)])
    row = made.caption_row(0, "Late.")
    row["answers"][0]["warnings"] = ["dark & odd."]
    ledger.finish(row["key"], row)
    text = write_report(ledger.folder).read_text(encoding="utf-8")
    assert "<tr><th>inputs</th><td>1</td></tr>" in text
    assert "Late." in text
    assert "1 carry warnings, 1 of them: dark &amp; odd." in text


def test_a_picture_that_is_gone_is_left_out(folder: Path) -> None:
    for path in (folder / "sheets").iterdir():
        path.unlink()
    assert "<img" not in write_report(folder).read_text(encoding="utf-8")
    assert not sheet_path(folder, "0" * 64).exists()


def test_no_rows_and_no_room_are_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="holds no rows"):
        write_report(tmp_path)
    monkeypatch.setattr(report, "REPORT", "nowhere/report.html")
    with pytest.raises(SourceError, match="cannot be written: No such file"):
        write_report(folder)
