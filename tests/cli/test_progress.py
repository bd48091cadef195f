"""Events → bars."""

from typing import Any

import pytest

from llava_video.cli.progress import Progress
from llava_video.engine.request import Progress as Event
from llava_video.engine.request import TextPiece


def bars(progress: Progress) -> dict[str, tuple[int, int]]:
    return {name: (bar.n, bar.total) for name, bar in progress._bars.items()}


@pytest.fixture
def progress() -> Any:
    made = Progress(is_on=True)
    yield made
    made.close()


def test_a_stage_sums_its_requests(progress: Progress, capsys) -> None:
    for event in (
        Event(0, "vision", 4, 16),
        Event(1, "vision", 8, 32),
        Event(0, "vision", 12, 16),
        Event(0, "prefill", 100, 400),
        TextPiece(0, "hello"),
        Event(0, "generate", 3, 50),
    ):
        progress.on_event(event)
    assert bars(progress) == {"watching": (20, 48), "reading": (100, 400), "writing": (3, 50)}
    assert "watching" in capsys.readouterr().err


def test_shards_disappear_when_all_are_loaded(progress: Progress) -> None:
    progress.on_shard(1, 4)
    assert bars(progress) == {"loading": (1, 4)}
    progress.on_shard(4, 4)
    assert bars(progress) == {}


def test_examples_have_a_bar(progress: Progress) -> None:
    progress.on_answer(3, 12)
    assert bars(progress) == {"answered": (3, 12)}


def test_one_video_needs_no_bar_of_its_own(progress: Progress) -> None:
    progress.on_video(0, 1)
    assert bars(progress) == {}
    progress.on_video(2, 5)
    assert bars(progress) == {"videos": (2, 5)}


def test_counting_starts_anew_after_closing(progress: Progress) -> None:
    progress.on_event(Event(0, "vision", 16, 16))
    progress.close()
    progress.on_event(Event(1, "vision", 2, 8))
    assert bars(progress) == {"watching": (2, 8)}


def test_nothing_is_drawn_after_the_end(progress: Progress) -> None:
    progress.on_event(Event(0, "generate", 1, 8))
    progress.end()
    progress.on_event(Event(0, "generate", 2, 8))
    assert bars(progress) == {}
    assert progress.is_on  # what it cost may still be told


def test_nothing_is_drawn_when_it_is_off(capsys: pytest.CaptureFixture[str]) -> None:
    off = Progress()
    off.on_shard(1, 4)
    off.on_event(Event(0, "vision", 4, 16))
    off.on_video(1, 4)
    assert bars(off) == {}
    assert capsys.readouterr() == ("", "")


def test_lines_stand_above_the_bars_without_colour_codes_in_a_file(progress, capsys) -> None:
    progress.on_video(1, 4)
    progress.write("\x1b[31merror: \x1b[0mgone.")
    assert "\nerror: gone.\n" in capsys.readouterr().err.replace("\r", "\n")
