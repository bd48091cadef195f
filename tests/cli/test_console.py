"""What is said on stderr, and when it is not."""

import logging

import pytest

from llava_video.cli.console import Console, LogLines
from llava_video.errors import BudgetError, SourceError


def test_an_error_is_a_sentence_and_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    Console().error(BudgetError("too much.", "max_frames=41."))
    assert capsys.readouterr() == ("", "error: too much.\nhint:  --max-frames 41.\n")


def test_an_error_names_its_file_once(capsys: pytest.CaptureFixture[str]) -> None:
    Console().error(SourceError("'a.mp4' is empty."), about="a.mp4")
    Console().error(SourceError("nothing fits."), about="b.mp4")
    assert capsys.readouterr().err == "error: 'a.mp4' is empty.\nerror: b.mp4: nothing fits.\n"


def test_quiet_leaves_errors_only(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(quiet=True)
    console.show_progress(wanted=True)
    console.warn(["careful."])
    console.note("by the way.")
    assert not console.progress.is_on
    console.error(SourceError("gone."))
    assert capsys.readouterr().err == "error: gone.\n"


def test_notes_are_said_where_bars_are(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.note("unseen.")
    console.show_progress(wanted=True)
    console.note("seen.")
    console.warn(["careful."], about="a.mp4")
    assert capsys.readouterr().err == "seen.\nwarning: a.mp4: careful.\n"


@pytest.mark.parametrize(("debug", "expected"), [(False, ""), (True, "tower: detail\n")])
def test_details_of_the_log_are_for_debugging(capsys, debug: bool, expected: str) -> None:
    record = logging.LogRecord("tower", logging.DEBUG, "f.py", 1, "detail", None, None)
    LogLines(Console(debug=debug)).emit(record)
    assert capsys.readouterr().err == expected
