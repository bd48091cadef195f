"""An error of the library, or of anything else → the sentence and the hint a terminal shows.

The library speaks of keywords (`max_frames=41`); whoever reads this typed options (`--max-frames
41`). Knows no command.
"""

import errno
import functools
import re

import click

from llava_video.errors import LlavaVideoError

_SPELLINGS = {"response_format": "choice"}  # keywords whose option has another name
# The options that name a model and how it is loaded; the others are of a request.
MODEL_NAMES = (
    "model",
    "revision",
    "base",
    "vision_tower",
    "adapter",
    "merge_adapter",
    "device",
    "dtype",
    "attn",
    "memory",
    "quantize",
    "template",
    "engine",
    "base_url",
    "plan_as",
    "picture",
    "jpeg_quality",
    "sends",
)


def error_words(error: BaseException, *, keeps_names: bool = False) -> tuple[str, str]:
    """Return an error's sentence and its hint, "" when there is none.

    Args:
        error: any.
        keeps_names: leave the library's keywords as they are, for those who wrote them in a file.
    """
    if isinstance(error, LlavaVideoError) and (keeps_names or error.names_fields):
        return error.message, error.hint
    if isinstance(error, LlavaVideoError):
        return in_options(error.message), in_options(error.hint)
    if isinstance(error, click.ClickException):
        return _usage_words(error)
    if isinstance(error, MemoryError):
        return "the machine has no memory left for this.", "fewer --max-frames, or a smaller model."
    if isinstance(error, OSError):
        return _file_words(error)
    if isinstance(error, TypeError) and "unknown option" in str(error):
        return in_options(str(error)), ""
    kind = type(error).__name__
    return (
        f"a fault of this program: {kind}: {error}",
        "run it again with --debug and report what it prints.",
    )


def in_options(text: str) -> str:
    """Rewrite keywords of the Python API as options of the command line.

    >>> in_options("pool_stride=3 needs 4,920, or max_frames=41.")
    '--pool-stride 3 needs 4,920, or --max-frames 41.'
    >>> in_options("detail = 'tall'.")
    '--detail tall.'
    >>> in_options("allow_private=True, loop_guard=False.")
    '--allow-private, --no-loop-guard.'
    """
    switched, assigned, left_open, underscored = _patterns()
    text = switched.sub(_switch, text)
    text = assigned.sub(lambda found: f"{_option(found)} {found[3] or ''}", text)
    return underscored.sub(_option, left_open.sub(_option, text))


@functools.cache
def _patterns() -> tuple[re.Pattern[str], ...]:
    """Return patterns: `name=True`, `name = value`, `name=` at the end, a name that is no word."""
    from llava_video.options import Options  # 0.1 s that `--help` need not pay

    known = {*Options.__annotations__, *MODEL_NAMES}
    before = r"""(?<![\w/\\.'"-])"""  # not inside a path, a quotation or an option
    names = "|".join(sorted(known, key=len, reverse=True))
    words = "|".join(sorted((name for name in known if "_" in name), key=len, reverse=True))
    return (
        re.compile(rf"""{before}({names}) ?= ?(True|False)\b"""),
        re.compile(rf"""{before}({names}) ?= ?(?:(['"])([\w.:-]*)\2|(?=[\w([-]))"""),
        re.compile(rf"{before}({names})=(?=[\s.,;:)]|$)"),
        re.compile(rf"""{before}({words})(?![\w/\\'"=-])"""),
    )


def _option(found: re.Match[str]) -> str:
    return "--" + _SPELLINGS.get(found[1], found[1]).replace("_", "-")


def _switch(found: re.Match[str]) -> str:
    option = _option(found)
    return option if found[2] == "True" else option.replace("--", "--no-", 1)


def _usage_words(error: click.ClickException) -> tuple[str, str]:
    message = error.format_message()
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f"`{context.command_path} --help` lists what it takes." if context else ""
    if isinstance(error, click.NoSuchOption):
        message = f"there is no option {error.option_name}."
        hint = f"did you mean {' or '.join(error.possibilities)}?" if error.possibilities else hint
    return message if message.endswith(".") else message + ".", hint


def _file_words(error: OSError) -> tuple[str, str]:
    where = f"{error.filename!r}: " if error.filename else ""
    what = error.strerror or str(error) or type(error).__name__
    hint = "check the path and its permissions."
    if error.errno == errno.ENOSPC:
        hint = "free some disk space, or name another folder."
    return f"{where}{what}.", hint
