"""Pieces of a page: bins by hand, and nothing of others is read as HTML."""

import doctest
import re

import archive_rows as made

from llava_video.archive import report_page
from llava_video.archive.report_page import bars, document, facts_table, failures_table, shown_row

HOSTILE = '</td><script>alert(1)</script><img src=x onerror="alert(2)">&amp;\'" \x00 \udce9'


def test_examples_of_bins() -> None:
    outcome = doctest.testmod(report_page)
    assert (outcome.attempted, outcome.failed) == (2, 0)


def test_bars_count_every_value() -> None:
    page = bars("Length", "s", [0.5, 1.0, 1.5, 6.0, 7.0, 7.9, 4.0])
    assert re.findall(r'"n">([\d, –]+) s</td>', page) == ["0 – 1", "1 – 2", "2 – 4", "4 – 8"]
    assert re.findall(r"width:([\d.]+)%", page) == ["25.0", "50.0", "0.0", "100.0"]
    assert re.findall(r'"n">(\d+)</td></tr>', page) == ["1", "2", "0", "4"]
    assert "7 in all, from 0.5 to 7.9 s, median 4 s." in page


def test_texts_of_others_are_texts() -> None:
    failed = made.failed_row(7, kind=HOSTILE, address=HOSTILE)
    row = made.caption_row(3, HOSTILE, address=HOSTILE, prompts=(HOSTILE,))
    row["warnings"] = [HOSTILE]
    pieces = [
        failures_table(HOSTILE, 3, [failed]),
        shown_row(row | {"summary": HOSTILE}, ""),
        facts_table({HOSTILE: HOSTILE}),
    ]
    for piece in pieces:
        assert "<script" not in piece
        assert "<img" not in piece
        assert "&lt;script&gt;" in piece
        piece.encode("utf-8")
    assert "and 2 more" in pieces[0]
    assert "failed after 3 tries" in pieces[0]
    assert "(at 0.250 s)" in pieces[0]


def test_a_page_may_fetch_and_run_nothing() -> None:
    page = document("Title", "<p>Body</p>")
    assert "default-src 'none'; img-src data:" in page
    assert page.count("<h1>Title</h1>") == 1
