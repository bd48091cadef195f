"""What the library has to say → lines on stderr: warnings, progress, errors. stdout is for results.

Knows no command and no model.
"""

import logging
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field

import click

from llava_video.cli.progress import Progress
from llava_video.cli.words import error_words


@dataclass(slots=True)
class Console:
    """The person at the other end of stderr.

    Attributes:
        debug: tracebacks and the library's log are shown.
        quiet: nothing but errors is shown.
        keeps_names: errors name settings of a file, not options.
        progress: the bars of the work under way.
    """

    debug: bool = False
    quiet: bool = False
    keeps_names: bool = False
    progress: Progress = field(default_factory=Progress)

    def show_progress(self, *, wanted: bool | None) -> None:
        """Decide whether bars are drawn.

        Args:
            wanted: what was asked; None draws them when stderr is a terminal.
        """
        is_wanted = sys.stderr.isatty() if wanted is None else wanted
        self.progress = Progress(is_on=is_wanted and not self.quiet)

    def note(self, text: str) -> None:
        """Say something that is no warning, where progress is shown."""
        if self.progress.is_on and not self.quiet:
            self._write(text)

    def warn(self, warnings: Iterable[str], about: str = "") -> None:
        """Say what the reader of a result should know."""
        for warning in () if self.quiet else warnings:
            self._write(
                click.style("warning: ", fg="yellow") + (f"{about}: " if about else "") + warning
            )

    def error(self, error: BaseException, about: str = "") -> None:
        """Say what went wrong: one sentence and what to do; with `debug` the traceback too."""
        self.progress.close()
        if self.debug:
            self._write("".join(traceback.format_exception(error)).rstrip())
        message, hint = error_words(error, keeps_names=self.keeps_names)
        prefix = f"{about}: " if about and about not in message else ""
        self._write(click.style("error: ", fg="red") + prefix + message)
        if hint:
            self._write(click.style("hint:  ", fg="cyan") + hint)

    def _write(self, text: str) -> None:
        self.progress.write(text)


class LogLines(logging.Handler):
    """The library's log as lines of the console: warnings always, the rest with `debug`."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record."""
        if record.levelno >= logging.WARNING:
            self._console.warn([record.getMessage()])
        elif self._console.debug:
            click.echo(f"{record.name}: {record.getMessage()}", err=True)
