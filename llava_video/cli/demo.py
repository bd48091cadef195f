"""`llava-video demo`: nothing → the main job on a clip whose truth is known, by the packaged model.

Shows what the model says beside what is true, and says plainly which of it is right.
"""

import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from llava_video.cli.command import command, option, progress_option
from llava_video.cli.console import Console
from llava_video.cli.loading import load_model
from llava_video.demo.compare import MarkedLine, compare_timed
from llava_video.demo.sample import CAPTION_PROMPT, Sample, write_sample
from llava_video.model.card import ModelCard
from llava_video.model.packaged import DEMO_MODEL
from llava_video.plan_table import plan_table
from llava_video.preview import plan_video
from llava_video.values import Description
from llava_video.world.question import Question

_SHEET_FILE = "demo_frames.png"
# The longest caption of a scene of this length has fewer tokens.
_MOST_TOKENS = 256
_EVERY = "all questions"  # of the card's results
# The model is so small that a GPU would spend longer on its start than a processor on the answer,
# and everybody gets the same words.
_DEVICE = "cpu"


@command("demo")
@option(
    "--keep",
    "folder",
    metavar="DIR",
    help=f"Leave the clip, its truth and {_SHEET_FILE} in DIR; else the last alone, here.",
)
@progress_option()
@click.pass_obj
def demo(console: Console, /, folder: str | None) -> int:
    """Describe a clip whose truth is known.

    Draws a clip of the small made-up world that the packaged model "demo" knows, plans, captions
    it, asks two questions, shows the truth beside each answer, and leaves a picture of the frames
    that the model saw. Nothing is downloaded.
    """
    if folder is not None:
        _run(console, write_sample(folder), Path(folder), is_kept=True)
    else:
        with tempfile.TemporaryDirectory(prefix="llava_video_demo_") as passing:
            _run(console, write_sample(passing), Path(), is_kept=False)
    return 0


def _run(console: Console, sample: Sample, folder: Path, *, is_kept: bool) -> None:
    scene, asked = sample.example.scene, sample.questions
    _head("A clip of the small world")
    _indent(
        f"{scene.length_s:g} s, {scene.width_px} x {scene.height_px} px, drawn from a scene: what "
        "is in it and\nwhat happens when is known. It was in no training."
    )
    plan = plan_video(
        sample.clip,
        CAPTION_PROMPT,
        model=DEMO_MODEL,
        device=_DEVICE,
        max_new_tokens=_MOST_TOKENS,
    )
    _head("The plan, before any work")
    _indent(plan_table(plan))
    with load_model(console, {"model": DEMO_MODEL, "device": _DEVICE}) as model:
        told = model.run(plan)
        answers = [
            model.ask(sample.clip, one.text, response_format=list(one.choices)) for one in asked
        ]
    console.progress.close()
    console.warn(told.warnings)
    lines = compare_timed(told.text, sample.caption)
    _head(CAPTION_PROMPT)
    _indent("\n".join(_caption_lines(lines, sample.caption)))
    for question, answer in zip(asked, answers, strict=True):
        _head(question.text)
        _indent("\n".join(_answer_lines(question, answer)))
    _head("In all")
    _indent("\n".join(_sums(lines, list(zip(asked, answers, strict=True)), told)))
    if model.card is not None:
        _indent("\n".join(_measured(model.card)))
    sheet = folder / _SHEET_FILE
    told.contact_sheet(sheet)
    _indent(f"The frames it saw: {sheet}")
    _head("What to type next")
    _indent("\n".join(_next_commands(sample, is_kept=is_kept)))


def _caption_lines(lines: tuple[MarkedLine, ...], truth: str) -> Iterator[str]:
    yield "the model says"
    yield from (f"  {one.mark:<6}  {one.text}" for one in lines if one.mark != "missed")
    yield "the truth"
    missed = {one.text for one in lines if one.mark == "missed"}
    yield from (f"  {'missed' if one in missed else '':<6}  {one}" for one in truth.splitlines())


def _answer_lines(question: Question, answer: Description) -> Iterator[str]:
    mark = "right" if question.is_right(answer.text) else "wrong"
    chance = "" if answer.confidence is None else f"   (confidence {answer.confidence:.2f})"
    yield f"the model says   {answer.text}{chance}"
    yield f"the truth        {question.answer}"
    yield f"that is          {mark}"


def _sums(
    lines: tuple[MarkedLine, ...], asked: list[tuple[Question, Description]], told: Description
) -> Iterator[str]:
    marks = [line.mark for line in lines]
    num_right, num_true = marks.count("right"), len(marks) - marks.count("wrong")
    answered = sum(question.is_right(answer.text) for question, answer in asked)
    yield (
        f"{num_right} of {num_true} true lines told, {marks.count('wrong')} told wrong; "
        f"{answered} of {len(asked)} questions right."
    )
    usage, seconds = told.usage, told.timings["total"]
    yield (
        f"{len(told.frames)} frames, {usage.visual_tokens:,} visual and {usage.text_tokens:,} "
        f"text tokens read, {usage.new_tokens:,} written, in {seconds:.1f} s."
    )


def _measured(card: ModelCard) -> Iterator[str]:
    """Say how often the model is right: this is a clip that it does well on."""
    for one in card.results:
        if one.kind == _EVERY:
            blind = "" if one.blind is None else f"; {one.blind:.0%} without seeing them"
            yield f"Of other clips' questions it has {one.accuracy:.0%} right{blind}."


def _next_commands(sample: Sample, *, is_kept: bool) -> Iterator[str]:
    rows = [
        ("llava-video models demo", "what this model knows, and how often it is right"),
        ("llava-video doctor", "what works on this machine"),
        ("llava-video plan VIDEO", "what a real model would be given of it, and why"),
        ("llava-video describe VIDEO", "LLaVA-Video-7B describes it (15 GiB, fetched once)"),
    ]
    if not is_kept:
        rows.append(("llava-video demo --keep DIR", "this again, and the clip stays to play with"))
    width = max(len(left) for left, _ in rows)
    yield from (f"{left:<{width}}   {right}" for left, right in rows)
    if is_kept:
        yield f"llava-video ask {sample.clip} 'Is there a red diamond?' -m {DEMO_MODEL}"


def _head(words: str) -> None:
    click.echo("\n" + click.style(words, bold=True))


def _indent(text: str) -> None:
    click.echo(textwrap.indent(text, "  "))
