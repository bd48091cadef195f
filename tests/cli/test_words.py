"""Errors as a person at a terminal reads them."""

import doctest
import errno

import click
import pytest

from llava_video.cli import words
from llava_video.cli.words import error_words, in_options
from llava_video.errors import ConfigError
from llava_video.options import Options
from llava_video.video.settings import more_of


def test_the_examples_are_true() -> None:
    assert doctest.testmod(words).attempted == 3
    assert doctest.testmod(words).failed == 0


@pytest.mark.parametrize(
    ("python", "terminal"),
    [
        ("max_video_tokens=.", "--max-video-tokens."),
        ("start = 3.0 is not before end = 2.0.", "--start 3.0 is not before --end 2.0."),
        ("give times= or fps=, not both.", "give --times or --fps, not both."),
        ("detail or grid, not both", "detail or grid, not both"),
        ("raise max_new_tokens.", "raise --max-new-tokens."),
        ("grid='auto' or grid=(2, 3)", "--grid auto or --grid (2, 3)"),
        ("loop_guard = False and allow_private=True.", "--no-loop-guard and --allow-private."),
        ('reader="auto" reads it.', "--reader auto reads it."),
        ("device = 'cuda:3', 0 GPUs", "--device cuda:3, 0 GPUs"),
        ("response_format = ['a', 'a'] has doubles.", "--choice ['a', 'a'] has doubles."),
        ("'/data/max_frames=3/a.mp4' is empty", "'/data/max_frames=3/a.mp4' is empty"),
        ("/data/max_frames/a.mp4: gone", "/data/max_frames/a.mp4: gone"),
        ("--max-frames 3", "--max-frames 3"),
        ("the model is told the times", "the model is told the times"),
        ("model_type = 'llava'", "model_type = 'llava'"),
        ("quantize='int8', or memory='15.7GiB'.", "--quantize int8, or --memory 15.7GiB."),
        ("memory = 6.5 GiB.", "--memory 6.5 GiB."),
        ("8.0 GiB of memory hold", "8.0 GiB of memory hold"),
        ("kv_cache='auto' (64 frames)", "--kv-cache auto (64 frames)"),
        (f"{more_of('max_pixels')}.", f"{more_of('max_pixels')}."),
        ("", ""),
    ],
)
def test_keywords_become_options(python: str, terminal: str) -> None:
    assert in_options(python) == terminal


@pytest.mark.parametrize("name", sorted(Options.__annotations__.keys() - {"response_format"}))
def test_every_keyword_of_the_api_is_known(name: str) -> None:
    assert in_options(f"{name}=3 fits.") == f"--{name.replace('_', '-')} 3 fits."


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConfigError("fps = 0.", "fps=1."), ("--fps 0.", "--fps 1.")),
        (click.UsageError("Wrong"), ("Wrong.", "")),
        (click.NoSuchOption("--fsp", possibilities=["--fps"]),
         ("there is no option --fsp.", "did you mean --fps?")),
        (OSError(errno.EACCES, "Permission denied", "out"),
         ("'out': Permission denied.", "check the path and its permissions.")),
        (OSError("odd"), ("odd.", "check the path and its permissions.")),
        (TypeError("unknown option 'fsp'; did you mean 'fps'?"),
         ("unknown option 'fsp'; did you mean 'fps'?", "")),
    ],
)  # fmt: skip
def test_each_kind_of_error_has_words(error: Exception, expected: tuple[str, str]) -> None:
    assert error_words(error) == expected


def test_no_memory_has_a_way_out() -> None:
    message, hint = error_words(MemoryError())
    assert "no memory" in message
    assert "--max-frames" in hint


def test_anything_else_is_a_fault_of_the_program() -> None:
    message, hint = error_words(ZeroDivisionError("division by zero"))
    assert message == "a fault of this program: ZeroDivisionError: division by zero"
    assert "--debug" in hint


def test_names_of_a_file_stay() -> None:
    error = ConfigError("max_frames = 0.", "give max_frames=1.")
    assert error_words(error) == ("--max-frames 0.", "give --max-frames 1.")
    assert error_words(error, keeps_names=True) == ("max_frames = 0.", "give max_frames=1.")
    error.names_fields = True
    assert error_words(error) == ("max_frames = 0.", "give max_frames=1.")
