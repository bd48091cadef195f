"""`llava-video demo`: nothing → the whole path on a made-up clip, with a made-up model."""

import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from llava_video.cli.command import command, option, progress_option
from llava_video.cli.console import Console
from llava_video.cli.loading import load_model
from llava_video.demo.files import LENGTH_S, DemoFiles, write_demo_files
from llava_video.plan_table import plan_table
from llava_video.preview import plan_video
from llava_video.values import Description

_QUESTION = "What happens in this video?"
# A real request takes up to 64 frames; a quarter of them keeps the demo short on a slow machine.
_NUM_FRAMES, _NUM_WORDS = 16, 48


@command("demo")
@option("--keep", "folder", metavar="DIR", help="Write the clip and the model here and leave them.")
@progress_option()
@click.pass_obj
def demo(console: Console, /, folder: str | None) -> int:
    """Run the whole path on a made-up clip.

    Writes a short clip and a tiny model of random weights, plans, and describes. Nothing is
    downloaded.
    """
    if folder is not None:
        _run(console, Path(folder), is_kept=True)
    else:
        with tempfile.TemporaryDirectory(prefix="llava_video_demo_") as passing:
            _run(console, Path(passing), is_kept=False)
    return 0


def _run(console: Console, folder: Path, *, is_kept: bool) -> None:
    files = write_demo_files(folder)
    click.echo(f"A made-up clip of {LENGTH_S} seconds: a red ball rolls over a field.")
    click.echo("A made-up model: built like LLaVA-Video, tiny, every weight drawn at random.")
    _head("The plan, before any work")
    plan = plan_video(
        files.clip,
        _QUESTION,
        model=str(files.model),
        device="cpu",
        num_frames=_NUM_FRAMES,
        max_new_tokens=_NUM_WORDS,
    )
    _indent(plan_table(plan))
    _head("Running it")
    with load_model(console, {"model": str(files.model), "device": "cpu"}) as model:
        description = model.run(plan)
    console.progress.close()
    _indent(_spent(description))
    _head("The answer")
    _indent(f"{_QUESTION}\n{description.text}")
    _head("What this shows")
    _indent(
        "The model is random, so its words mean nothing. Everything else was real: the file was\n"
        "probed, planned, decoded, cut into tiles, seen, pooled, read and answered as with a\n"
        "trained model."
    )
    if is_kept:
        description.contact_sheet(folder / "frames.jpg")
    _head("What to type next")
    _indent("\n".join(_next_commands(files, is_kept=is_kept)))


def _spent(description: Description) -> str:
    timings, usage = description.timings, description.usage
    rows = (
        ("vision", f"{len(description.frames)} frames decoded, seen and pooled: "
                   f"{usage.visual_tokens:,} visual tokens"),
        ("prefill", f"{usage.text_tokens + usage.visual_tokens:,} tokens read"),
        ("generate", f"{usage.new_tokens:,} tokens written"),
        ("total", "in all"),
    )  # fmt: skip
    return "\n".join(f"{timings[stage]:6.2f} s  {words}" for stage, words in rows)


def _next_commands(files: DemoFiles, *, is_kept: bool) -> Iterator[str]:
    rows = [
        ("llava-video doctor", "what works on this machine"),
        ("llava-video plan VIDEO", "what a real model would be given of it, and why"),
        ("llava-video describe VIDEO", "LLaVA-Video-7B describes it (15 GiB, fetched once)"),
    ]
    if not is_kept:
        rows.append(("llava-video demo --keep DIR", "this again, and the files stay to play with"))
    width = max(len(left) for left, _ in rows)
    yield from (f"{left:<{width}}   {right}" for left, right in rows)
    if is_kept:
        yield f"llava-video ask {files.clip} 'What rolls?' -m {files.model}"
        yield f"\nThe frames the model saw are in {files.clip.parent / 'frames.jpg'}."


def _head(words: str) -> None:
    click.echo("\n" + click.style(words, bold=True))


def _indent(text: str) -> None:
    click.echo(textwrap.indent(text, "  "))
