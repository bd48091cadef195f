"""Help in sections, and the options that every command takes."""

import click
import pytest

from llava_video.cli.command import command, option, progress_option
from llava_video.cli.console import Console
from llava_video.cli.main import COMMANDS, root


@command("sample")
@click.argument("file")
@option("--late", section="Second", help="Comes second.")
@option("--early", section="First", help="Comes first.", metavar="N")
@progress_option()
@click.pass_obj
def sample(console: Console, /, file: str, late: str | None, early: str | None) -> Console:
    """Do something."""
    del file, late, early
    return console


def run_sample(*arguments: str) -> Console:
    console = sample.main(["x", *arguments], obj=Console(), standalone_mode=False)
    assert isinstance(console, Console)
    return console


def test_options_stand_under_their_headings_and_common_ones_last() -> None:
    text = sample.get_help(click.Context(sample))
    places = [text.index(words) for words in ("Second:", "--late", "First:", "--early N")]
    places += [text.index(words) for words in ("\nOptions:", "--debug", "--quiet", "--help")]
    assert places == sorted(places)
    assert "  FILE" not in text  # an argument without help is no row of the options


def test_the_common_options_reach_the_console() -> None:
    plain = run_sample()
    assert (plain.debug, plain.quiet, plain.progress.is_on) == (False, False, False)
    told = run_sample("--debug", "-q")
    assert (told.debug, told.quiet) == (True, True)


def test_what_was_said_before_the_command_stays_said() -> None:
    console = Console(debug=True)
    sample.main(["x"], obj=console, standalone_mode=False)
    assert console.debug


@pytest.mark.parametrize(
    ("arguments", "is_terminal", "is_on"),
    [
        ([], False, False),
        ([], True, True),
        (["--progress"], False, True),
        (["--no-progress"], True, False),
    ],
)
def test_bars_are_for_terminals_unless_asked(monkeypatch, arguments, is_terminal, is_on) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal)
    assert run_sample(*arguments).progress.is_on is is_on


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_eighty_columns(name: str) -> None:
    found = root.get_command(click.Context(root), name)
    assert found is not None
    ctx = click.Context(found, info_name=name, terminal_width=80)
    lines = found.get_help(ctx).splitlines()
    assert max(map(len, lines)) <= 80
    assert all(row.help for row in found.params if isinstance(row, click.Option))
