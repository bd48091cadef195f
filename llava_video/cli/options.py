"""The settings' own fields → options of the command line, and what was given → keywords of the API.

Names, kinds, closed sets, defaults and help come from `Options` and from the fields' metadata, so
that the two cannot drift apart. Opens nothing.
"""

import dataclasses
import json
import re
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import click

from llava_video.cli.command import option
from llava_video.cli.words import in_options
from llava_video.engine.settings import GenerationSettings
from llava_video.errors import ConfigError
from llava_video.model.prompt import TEMPLATES
from llava_video.options import Options
from llava_video.planning.settings import MemorySettings, PlanningSettings, SamplingSettings
from llava_video.preview import DEFAULT_MODEL
from llava_video.remote.settings import RemoteSettings
from llava_video.values import Newline
from llava_video.video.settings import FetchSettings

F = TypeVar("F", bound=Callable[..., Any])

WHICH, HOW, ANSWER, MODEL = "Which frames", "How they fit", "The answer", "The model"

_STAGES = (
    (WHICH, SamplingSettings),
    (WHICH, FetchSettings),
    (HOW, PlanningSettings),
    (ANSWER, GenerationSettings),
)
_FIELD_NAMES = {"start": "start_s", "end": "end_s", "times": "times_s", "sampling": "rule"}
# Options whose value is written in a way of its own; what `settings_of` reads of them is text.
_WRITTEN = {
    "start": "TIME",
    "end": "TIME",
    "times": "TIME,TIME,...",
    "grid": "auto|off|ROWSxCOLS",
    "position_scale": "auto|reference|X",
    "memory": "AMOUNT",
}
_HELP = {
    "start": "first moment, inclusive: seconds, MM:SS or HH:MM:SS.mmm. None: the first frame",
    "end": "end of the span, exclusive, written alike. None: the end of the video",
    "stop": "text that ends the answer and is left out of it; may be given again",
    "compat": "'reference' repeats the original code's times and duplicate frames",
    "grid": "tiles per frame: by least waste, one, or rows and columns",
    "repetition_penalty": "divides what was generated already, 1 is none; None: the checkpoint's",
}


def request_options(*, with_answer: bool) -> Callable[[F], F]:
    """Add the options of one request: frames, layout, and how to answer.

    Args:
        with_answer: False leaves only what a plan depends on.
    """
    made = [
        _option_of(name, section, cls)
        for section, cls in _STAGES
        for name in _names_of(cls)
        if section != ANSWER or with_answer or name == "max_new_tokens"
    ]
    readers = get_args(get_type_hints(Options)["reader"])
    made.append(option("--reader", section=WHICH, type=click.Choice(readers),
                       help="Which package reads the video.  [default: auto]"))  # fmt: skip
    made.append(sandbox_option(WHICH))
    if with_answer:
        made += [
            option("--choice", "choices", section=ANSWER, multiple=True, metavar="TEXT",
                   help="Answer with one of these; give it once for each."),
            option("--json-schema", section=ANSWER, metavar="FILE",
                   help="Answer with JSON that follows this schema."),
        ]  # fmt: skip

    def decorate(function: F) -> F:
        for decorator in reversed(made):
            function = decorator(function)
        return function

    return decorate


def sandbox_option(section: str = "Options") -> Callable[[F], F]:
    """Add the switch of the sandbox."""
    return option(
        "--sandbox/--no-sandbox",
        section=section,
        default=None,
        help="Read videos in a process of their own, with limits on time and memory, for files "
        "from strangers; still pictures are read by Pillow in this one.  [default: off]",
    )


def model_options(*, with_weights: bool) -> Callable[[F], F]:
    """Add the options that name a model.

    Args:
        with_weights: False leaves out what only matters once weights are loaded.
    """
    made = [
        option("--model", "-m", section=MODEL, default=DEFAULT_MODEL, show_default=True,
               metavar="NAME|DIR", help="A hub id, a folder, or demo, the packaged one."),
        option("--revision", section=MODEL, metavar="NAME",
               help="Branch, tag or commit of a hub id."),
        option("--base", section=MODEL, metavar="NAME|DIR",
               help="What an adapter, a projector or a delta is over.  [default: what it names]"),
        option("--vision-tower", section=MODEL, metavar="NAME|DIR",
               help="Of a checkpoint that holds none.  [default: the one it names]"),
        option("--adapter", section=MODEL, metavar="NAME|DIR",
               help="A LoRA adapter over the model."),
        option("--merge-adapter/--no-merge-adapter", section=MODEL, default=None,
               help="Add it to the weights, or keep it beside them.  [default: beside quantised "
               "weights alone]"),
        option("--template", section=MODEL, type=click.Choice(tuple(TEMPLATES)), metavar="NAME",
               help=f"Of the conversation: {', '.join(TEMPLATES)}.  [default: the checkpoint's]"),
        _option_of("memory", MODEL, MemorySettings),
        _option_of("quantize", MODEL, MemorySettings),
    ]  # fmt: skip
    if with_weights:
        made += [
            option("--device", section=MODEL, default="auto", show_default=True, metavar="NAME",
                   help="auto, cpu, cuda, cuda:1 ..."),
            option("--dtype", section=MODEL, default="auto", show_default=True,
                   type=click.Choice(("auto", "float32", "bfloat16", "float16")),
                   help="Of the weights; auto is bfloat16 on a GPU, float32 on a CPU."),
            option("--attn", section=MODEL, default="sdpa", show_default=True,
                   type=click.Choice(("sdpa", "flash")),
                   help="flash needs the flash-attn package."),
            option("--engine", section=MODEL, default="local", show_default=True,
                   type=click.Choice(("local", "openai")),
                   help="What answers: weights on this machine, or an OpenAI-compatible server."),
            option("--base-url", section=MODEL, metavar="URL",
                   help="The server's, as http://localhost:8000/v1; -m is then the name of a model "
                   "there. A key is read from the environment: LLAVA_VIDEO_API_KEY."),
            option("--plan-as", section=MODEL, metavar="NAME|DIR",
                   help="Checkpoint that plans frames for a server.  [default: -m]"),
            _option_of("picture", MODEL, RemoteSettings),
            _option_of("jpeg_quality", MODEL, RemoteSettings),
            _option_of("sends", MODEL, RemoteSettings),
        ]  # fmt: skip

    def decorate(function: F) -> F:
        for decorator in reversed(made):
            function = decorator(function)
        return function

    return decorate


def keywords_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was given on the command line as keywords of the API; the rest is left out.

    Raises:
        ConfigError: a grid, a list of times or a schema that cannot be read.
    """
    keywords = {name: value for name, value in given.items() if value not in (None, ())}
    if "grid" in keywords:
        keywords["grid"] = _grid(keywords["grid"])
    if "position_scale" in keywords:
        keywords["position_scale"] = _scale(keywords["position_scale"])
    if "times" in keywords:
        keywords["times"] = keywords["times"].split(",")
    choices, schema = keywords.pop("choices", None), keywords.pop("json_schema", None)
    if choices and schema:
        raise ConfigError("--choice and --json-schema are both given.", "give one of them.")
    if choices or schema:
        keywords["response_format"] = list(choices) if choices else _schema(schema)
    return keywords


def _names_of(cls: type) -> list[str]:
    """Return the keywords that become fields of a stage, in the order of the fields."""
    order = [field.name for field in dataclasses.fields(cls)]
    named = {_FIELD_NAMES.get(name, name): name for name in Options.__annotations__}
    own = [named[name] for name in order if name in named and named[name] != "response_format"]
    # `max_new_tokens` is planned for and answered with; it stands where answers are spoken of.
    return [name for name in own if (name, cls) != ("max_new_tokens", PlanningSettings)]


def _option_of(name: str, section: str, cls: Any) -> Callable[[F], F]:
    field = next(f for f in dataclasses.fields(cls) if f.name == _FIELD_NAMES.get(name, name))
    kinds = _kinds(get_type_hints(cls)[field.name])
    words = _help_words(name, field)
    flag = "--" + name.replace("_", "-")
    if name in _WRITTEN:
        return option(flag, section=section, metavar=_WRITTEN[name], help=words)
    if name == "stop":
        return option(flag, section=section, multiple=True, metavar="TEXT", help=words)
    if bool in kinds:
        both = f"{flag}/--no-{name.replace('_', '-')}"
        return option(both, section=section, default=None, help=words)
    metavar = "N" if int in kinds else "X" if float in kinds else None
    return option(flag, section=section, type=_type(kinds), metavar=metavar, help=words)


def _type(kinds: tuple[Any, ...]) -> "click.ParamType[Any] | type":
    words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    if words:
        return click.Choice(words)
    if Newline in kinds:
        return click.Choice([newline.value for newline in Newline])
    return int if int in kinds else float


def _kinds(hint: Any) -> tuple[Any, ...]:
    is_union = get_origin(hint) in (Union, types.UnionType)
    return get_args(hint) if is_union else (hint,)


def _help_words(name: str, field: "dataclasses.Field[Any]") -> str:
    """Turn a field's own words into an option's: what None means there is the default here."""
    words = in_options(_HELP.get(name, field.metadata["doc"])).rstrip(".")
    words, _, default = re.sub(r"[.;] None: ", "\n", words).partition("\n")
    unit = field.metadata["unit"]
    if unit and name not in _WRITTEN and unit.split("/")[0] not in words.lower():
        words += f", in {unit}"
    if not default and field.default not in (None, ()):
        shown = field.default
        default = ("on" if shown else "off") if isinstance(shown, bool) else str(shown)
    return f"{words[:1].upper()}{words[1:]}." + (f"  [default: {default}]" if default else "")


def _grid(written: str) -> str | tuple[int, int]:
    sides = re.fullmatch(r"(\d+)x(\d+)", written)
    if sides:
        return int(sides[1]), int(sides[2])
    if written not in ("auto", "off"):
        raise ConfigError(f"--grid {written}.", "auto, off, or rows and columns like 2x3.")
    return written


def _scale(written: str) -> str | float:
    if written in ("auto", "reference"):
        return written
    try:
        return float(written)
    except ValueError as cause:
        hint = "auto, reference, or a number that positions are divided by."
        raise ConfigError(f"--position-scale {written}.", hint) from cause


def _schema(path: str) -> Any:
    try:
        schema = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        hint = "give a file that holds one JSON schema."
        raise ConfigError(f"--json-schema {path} cannot be read: {cause}.", hint) from cause
    if not isinstance(schema, Mapping):
        raise ConfigError(f"--json-schema {path} is no JSON object.", "a schema is an object.")
    return schema
