"""The settings' fields as options, and back."""

import json
from pathlib import Path
from typing import Any

import click
import pytest

from llava_video.cli.command import command
from llava_video.cli.loading import split_options
from llava_video.cli.options import keywords_of, model_options, request_options
from llava_video.errors import ConfigError
from llava_video.options import Options, settings_of
from llava_video.values import Grid, Newline


@command("all")
@request_options(with_answer=True)
@model_options(with_weights=True)
def everything(**given: Any) -> dict[str, Any]:
    """Take every option."""
    return given


def keywords(*arguments: str) -> dict[str, Any]:
    given: dict[str, Any] = everything.main(list(arguments), standalone_mode=False)
    return keywords_of(split_options(given)[1])


def flags_of(cmd: click.Command) -> set[str]:
    return {name for p in cmd.params for name in p.opts if name.startswith("--")}


def test_every_keyword_of_the_api_is_an_option() -> None:
    expected = {"--" + name.replace("_", "-") for name in Options.__annotations__}
    expected = expected - {"--response-format"} | {"--choice", "--json-schema"}
    assert expected <= flags_of(everything)


def test_a_plan_takes_what_a_plan_depends_on() -> None:
    @command("some")
    @request_options(with_answer=False)
    @model_options(with_weights=False)
    def some() -> None:
        """Take some options."""

    flags = flags_of(some)
    assert {"--fps", "--grid", "--max-new-tokens", "--reader", "--sandbox", "--model"} <= flags
    assert {"--memory", "--quantize", "--kv-cache", "--position-scale"} <= flags
    assert flags.isdisjoint({"--temperature", "--stop", "--choice", "--json-schema", "--device"})


def test_nothing_given_is_nothing_asked() -> None:
    assert keywords() == {}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--start", "1:05", "--end", "70.5"], {"start": "1:05", "end": "70.5"}),
        (["--times", "1,2.5,00:03"], {"times": ["1", "2.5", "00:03"]}),
        (["--grid", "2x3"], {"grid": (2, 3)}),
        (["--grid", "off"], {"grid": "off"}),
        (["--num-frames", "0"], {"num_frames": 0}),  # falsy and yet given: the settings refuse it
        (["--temperature", "0"], {"temperature": 0.0}),
        (["--allow-private"], {"allow_private": True}),
        (["--no-loop-guard"], {"loop_guard": False}),
        (["--time-instruction"], {"time_instruction": True}),
        (["--stop", "END", "--stop", "."], {"stop": ("END", ".")}),
        (["--choice", "yes", "--choice", "no"], {"response_format": ["yes", "no"]}),
        (["--newline", "frame"], {"newline": "frame"}),
        (["--position-scale", "auto"], {"position_scale": "auto"}),
        (["--position-scale", "reference"], {"position_scale": "reference"}),
        (["--position-scale", "1.8"], {"position_scale": 1.8}),
        (["--sandbox"], {"sandbox": True}),
        (["--kv-cache", "int8"], {"kv_cache": "int8"}),
    ],
)
def test_what_was_typed_becomes_keywords(arguments: list[str], expected: dict[str, Any]) -> None:
    assert keywords(*arguments) == expected


def test_base_and_tower_belong_to_the_model() -> None:
    typed = ["--base", "a/b", "--vision-tower", "c/d"]
    named, request = split_options(everything.main(typed, standalone_mode=False))
    assert (named["base"], named["vision_tower"]) == ("a/b", "c/d")
    assert not {"base", "vision_tower"} & set(request)


def test_an_adapter_belongs_to_the_model() -> None:
    named, request = split_options(everything.main(["--adapter", "a/b"], standalone_mode=False))
    assert (named["adapter"], named["merge_adapter"]) == ("a/b", None)
    assert not {"adapter", "merge_adapter"} & set(request)
    for flag, expected in (("--merge-adapter", True), ("--no-merge-adapter", False)):
        given = everything.main(["--adapter", "a/b", flag], standalone_mode=False)
        assert split_options(given)[0]["merge_adapter"] is expected


def test_memory_and_weights_belong_to_the_model() -> None:
    given = everything.main(["--memory", "24GiB", "--quantize", "int8"], standalone_mode=False)
    named, request = split_options(given)
    assert (named["memory"], named["quantize"]) == ("24GiB", "int8")
    assert keywords_of(request) == {}


def test_the_keywords_mean_what_was_typed() -> None:
    settings = settings_of(
        keywords(
            *("--start", "00:01", "--fps", "2", "--grid", "2x3", "--newline", "frame"),
            *("--max-new-tokens", "7", "--stop", "x", "--seed", "3", "--reader", "pyav"),
        )
    )
    assert (settings.sampling.start_s, settings.sampling.fps) == (1.0, 2.0)
    assert (settings.planning.grid, settings.planning.newline) == (Grid(2, 3), Newline.FRAME)
    assert settings.planning.max_new_tokens == settings.generation.max_new_tokens == 7
    assert (settings.generation.stop, settings.generation.seed) == (("x",), 3)
    assert settings.reader == "pyav"


def test_a_schema_is_read(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps({"type": "object"}))
    assert keywords("--json-schema", str(path)) == {"response_format": {"type": "object"}}


@pytest.mark.parametrize(
    ("arguments", "content", "said"),
    [
        (["--grid", "3"], "", "rows and columns like 2x3"),
        (["--grid", "-1x2"], "", "rows and columns like 2x3"),
        (["--position-scale", "much"], "", "auto, reference, or a number"),
        (["--json-schema", "{path}"], None, "cannot be read"),
        (["--json-schema", "{path}"], "no json", "cannot be read"),
        (["--json-schema", "{path}"], "[1]", "is no JSON object"),
        (["--json-schema", "{path}", "--choice", "a"], "{}", "give one of them"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, arguments, content, said: str) -> None:
    path = tmp_path / "schema.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=said):
        keywords(*(argument.format(path=path) for argument in arguments))


def test_help_says_the_default_and_the_unit() -> None:
    text = " ".join(everything.get_help(click.Context(everything)).split())
    assert "--max-new-tokens N Longest answer, in tokens. [default: 512]" in text
    assert "lifts the model's own cap. [default: the cap decides]" in text
    assert "[default: the checkpoint's]" in text
    assert "--loop-guard / --no-loop-guard Stop an answer" in text
    assert "'high' --grid auto" in text
    assert "None" not in text
    assert "--memory AMOUNT Most memory for weights, cache" in text
    assert "[default: what the GPU has free, no limit on a CPU or where no weights are" in text
    assert "--position-scale auto|reference|X Position = index / scale" in text
    assert "--quantize [auto|plain|int8|int4] How the decoder's linear weights are kept" in text
