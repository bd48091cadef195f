"""The `llava-video` command: arguments → one command's run → an exit status.

Exit status: 0 all went well; 1 nothing did, or the arguments are wrong; 3 some of several inputs
failed; 130 stopped by Ctrl-C. Each command is imported only when it is asked for.
"""

import difflib
import importlib
import io
import logging
import os
import sys
from collections.abc import Sequence

import click

from llava_video import __version__
from llava_video.cli.command import debug_option, quiet_option
from llava_video.cli.console import Console, LogLines
from llava_video.cli.stopping import INTERRUPTED
from llava_video.errors import ConfigError

# Name → first line of the help, which stands here so that `--help` imports no command.
COMMANDS = {
    "describe": "Describe videos, one text each.",
    "ask": "Ask questions about one video.",
    "plan": "Say what would be done, before any work.",
    "probe": "Say what videos are, decoding one frame of each.",
    "doctor": "Check what is installed and what works.",
    "models": "List known checkpoints, or say what a folder is.",
    "convert": "Write a checkpoint in the other layout.",
    "eval": "Ask a benchmark's questions and score the answers.",
    "train": "Train stages, or check their data.",
    "archive": "Caption or question many videos, each exactly once.",
    "watch": "Ask questions of cameras around the clock, and raise alerts.",
    "search": "Find what an archive's captions and answers say.",
    "replay": "Run a row of an archive again and say where it differs.",
    "world": "Write clips of a small world whose truth is known.",
    "demo": "Describe a clip whose truth is known.",
}


class LazyCommands(click.Group):
    """The commands, each in the module of its name under `llava_video.cli`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the help."""
        del ctx
        return list(COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of a name, or say which one is near.

        Raises:
            ConfigError: there is none.
        """
        name = args[0]
        if name not in COMMANDS:
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(COMMANDS)}."
            raise ConfigError(f"there is no command {name!r}.", hint)
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        found = getattr(importlib.import_module(f"llava_video.cli.{cmd_name}"), cmd_name)
        return found if isinstance(found, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    "llava-video",
    cls=LazyCommands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="`llava-video COMMAND --help` says more. Results go to stdout, all else to stderr.",
)
@click.version_option(__version__, message="llava_video %(version)s")
@quiet_option
@debug_option
@click.pass_context
def root(ctx: click.Context) -> None:
    """Describe and question videos with the LLaVA family of models."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; None takes `sys.argv`.

    Returns:
        The exit status.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        # An answer may hold characters that a terminal of another encoding has none for.
        sys.stdout.reconfigure(errors="backslashreplace")
    console = Console()
    log, lines = logging.getLogger("llava_video"), LogLines(console)
    level = log.level
    log.addHandler(lines)
    log.setLevel(logging.DEBUG)  # `lines` shows what the person asked for
    try:
        return _run(arguments, console)
    finally:
        console.progress.close()
        log.setLevel(level)
        log.removeHandler(lines)


def _run(arguments: Sequence[str] | None, console: Console) -> int:
    try:
        status = root.main(
            None if arguments is None else list(arguments),
            prog_name="llava-video",
            standalone_mode=False,
            obj=console,
        )
        sys.stdout.flush()  # a reader that has gone is noticed here, not at the interpreter's exit
        return status if isinstance(status, int) else 0
    except (click.Abort, KeyboardInterrupt):
        console.progress.close()
        click.echo("interrupted.", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        _leave_stdout()
        return 1
    except SystemExit as exit_:  # click's own way of ending at a closed pipe
        _leave_stdout()
        return exit_.code if isinstance(exit_.code, int) else 1
    except Exception as error:  # noqa: BLE001 - the process's border: every error becomes a sentence
        console.error(error)
        return 1


def _leave_stdout() -> None:
    """Let the interpreter's last flush go nowhere: `llava-video … | head` is no fault."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
