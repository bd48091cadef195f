"""What all commands share: help in sections, and the options every command takes.

Knows no command.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from llava_video.cli.console import Console

F = TypeVar("F", bound=Callable[..., Any])

_HELP_WIDTH = 96


class SectionOption(click.Option):
    """An option that stands under a heading of its own in the help."""

    def __init__(self, *args: Any, section: str = "Options", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


class SectionedCommand(click.Command):
    """A command whose help lists its options section by section."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one list per section, in the order the sections first appear."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            row = parameter.get_help_record(ctx)
            if row is not None and isinstance(parameter, click.Option):
                sections.setdefault(getattr(parameter, "section", "Options"), []).append(row)
        # Every list has the same left column, so that the eye finds one edge.
        for section, rows in sorted(sections.items(), key=lambda item: item[0] == "Options"):
            with formatter.section(section):
                formatter.write_dl(rows, col_max=32)


def option(*names: str, section: str = "Options", **facts: Any) -> Callable[[F], F]:
    """Declare an option under a heading; otherwise as `click.option`."""
    return click.option(*names, cls=SectionOption, section=section, **facts)


def command(name: str, **facts: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """Declare a command with the options every command takes; its docstring is its help."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        settings = {"help_option_names": ["-h", "--help"], "max_content_width": _HELP_WIDTH}
        made = click.command(name, cls=SectionedCommand, context_settings=settings, **facts)
        return quiet_option(debug_option(made(function)))  # last in the help

    return decorate


def _set_on_console(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def note(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
        del parameter
        console = ctx.find_object(Console)
        if console is not None and value:  # not given here must not undo what was given before
            setattr(console, name, value)

    return note


debug_option = option(
    "--debug",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_set_on_console("debug"),
    help="Show the traceback of an error, and what the library logs.",
)
quiet_option = option(
    "-q",
    "--quiet",
    is_flag=True,
    expose_value=False,
    callback=_set_on_console("quiet"),
    help="Errors only: no progress, no warnings.",
)


def progress_option(section: str = "Options") -> Callable[[F], F]:
    """Add the switch of the bars."""

    def note(ctx: click.Context, parameter: click.Parameter, value: bool | None) -> None:
        del parameter
        console = ctx.find_object(Console)
        if console is not None:
            console.show_progress(wanted=value)

    return option(
        "--progress/--no-progress",
        section=section,
        default=None,
        expose_value=False,
        callback=note,
        help="Bars on stderr.  [default: when it is a terminal]",
    )
