"""A description as lines on a terminal."""

import dataclasses
import json

from llava_video.cli.answers import json_line, remark, show, show_live, text_of
from llava_video.cli.console import Console
from llava_video.engine.request import Progress
from llava_video.values import Description


def test_text_ends_with_one_newline(description: Description) -> None:
    assert text_of(dataclasses.replace(description, text=" A cat.\n\n")) == "A cat.\n"


def test_json_is_one_line_with_everything(description: Description) -> None:
    line = json_line(dataclasses.replace(description, text="two\nlines, 日"))
    assert "\n" not in line
    assert json.loads(line)["text"] == "two\nlines, 日"
    assert "日" in line
    assert json.loads(line)["usage"]["visual_tokens"] == description.usage.visual_tokens


def test_several_texts_are_told_apart(description: Description, capsys) -> None:
    answer = dataclasses.replace(description, text="A cat.")
    show(answer, as_json=False)
    show(answer, as_json=False, heading="b.mp4")
    show(answer, as_json=False, heading="c.mp4")
    assert capsys.readouterr() == ("A cat.\n== b.mp4\nA cat.\n\n== c.mp4\nA cat.\n\n", "")


def test_pieces_are_shown_as_they_come(capsys) -> None:
    seen: list[str] = []

    def pieces():
        for piece in (" ", " A", " cat", "."):
            seen.append(capsys.readouterr().out)
            yield piece

    show_live(Console(), pieces())
    assert seen == ["", "", "A", " cat"]
    assert capsys.readouterr().out == ".\n"


def test_no_bar_is_drawn_over_the_text(capsys) -> None:
    console = Console()
    console.show_progress(wanted=True)
    on_event = console.progress.on_event
    on_event(Progress(0, "generate", 0, 9))
    assert "writing" in capsys.readouterr().err

    def pieces():
        yield "A"
        capsys.readouterr()  # what took the bar away
        on_event(Progress(0, "generate", 5, 9))
        yield " cat."

    show_live(console, pieces())
    assert capsys.readouterr().err == ""


def test_warnings_and_a_cut_answer_are_said(description: Description, capsys) -> None:
    answer = dataclasses.replace(description, warnings=("careful.",), finish_reason="length")
    remark(Console(), answer, "a.mp4")
    assert capsys.readouterr() == (
        "",
        "warning: a.mp4: careful.\n"
        "warning: a.mp4: the answer was cut at 6 tokens; --max-new-tokens allows more.\n",
    )
    remark(Console(), dataclasses.replace(answer, warnings=(), finish_reason="stop"))
    assert capsys.readouterr().err == ""


def test_the_cost_is_said_where_bars_are(description: Description, capsys) -> None:
    console = Console()
    console.show_progress(wanted=True)
    timings = {"vision": 2.04, "prefill": 0.5, "generate": 1.0, "total": 4.0}
    remark(console, dataclasses.replace(description, finish_reason="stop", timings=timings))
    usage = description.usage
    assert capsys.readouterr().err == (
        f"4 frames, {usage.visual_tokens} visual and {usage.text_tokens} text tokens in, "
        "6 out; 4.0 s (watching 2.0 s, reading 0.5 s, writing 1.0 s)\n"
    )
