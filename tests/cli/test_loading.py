"""Options that name a model → a model that tells how far it is."""

import os
import pickle
from pathlib import Path

import pytest
from chat_server import MODEL, serving

from llava_video.cli.console import Console
from llava_video.cli.loading import load_model, quiet_downloads, server_of, split_options
from llava_video.errors import BudgetError, CheckpointError, ConfigError
from llava_video.model.tokenizer import Tokenizer


def test_options_of_the_model_are_told_from_those_of_the_request() -> None:
    given = {"model": "m", "fps": 2.0, "revision": None, "device": "cpu", "seed": 1}
    model, request = split_options(given)
    assert model == {"model": "m", "revision": None, "device": "cpu"}
    assert request == {"fps": 2.0, "seed": 1}


def test_loading_and_answering_are_shown(tiny_folder: Path, tiny_clip: Path, capsys) -> None:
    console = Console()
    console.show_progress(wanted=True)
    with load_model(console, {"model": str(tiny_folder), "device": "cpu"}) as model:
        assert "loading" in capsys.readouterr().err
        model.describe(tiny_clip, num_frames=2, max_new_tokens=2)
    shown = capsys.readouterr().err
    assert all(words in shown for words in ("watching", "reading", "writing"))
    console.progress.close()


def test_the_template_is_the_models(tiny_folder: Path) -> None:
    model, _ = split_options({"model": str(tiny_folder), "device": "cpu", "template": "mpt"})
    with load_model(Console(), model) as loaded:
        assert loaded.spec.config.template == "mpt"


def test_weights_and_memory_are_the_models(tiny_folder: Path) -> None:
    named = {"model": str(tiny_folder), "device": "cpu", "memory": "1GiB", "quantize": None}
    with load_model(Console(), named) as model:
        assert model.spec.setup.limit_bytes == 2**30
        assert model.spec.setup.weight_format == "plain"
    with load_model(Console(), {**named, "quantize": "int8"}) as model:
        assert model.spec.setup.weight_format == "int8"
    with pytest.raises(BudgetError, match="weights"):
        load_model(Console(), {**named, "memory": "9KiB"})


def test_errors_of_loading_pass_through(tiny_folder: Path) -> None:
    with pytest.raises(CheckpointError, match="no hub id"):
        load_model(Console(), {"model": "./none"})
    with pytest.raises(ConfigError, match="device"):
        load_model(Console(), {"model": str(tiny_folder), "device": "toaster"})


@pytest.mark.parametrize("is_on", [True, False])
def test_downloads_are_shown_where_bars_are(monkeypatch, is_on: bool) -> None:
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
    console = Console()
    console.show_progress(wanted=is_on)
    quiet_downloads(console)
    assert ("HF_HUB_DISABLE_PROGRESS_BARS" in os.environ) is not is_on


def test_a_server_can_answer(run, tiny_folder: Path, tiny_clip: Path) -> None:
    with serving(Tokenizer(tiny_folder)) as server:
        served = ("--engine", "openai", "--base-url", server.url, "-m", MODEL)
        frames = ("--plan-as", tiny_folder, "--num-frames", "2", "--max-new-tokens", "64")
        asked = run("ask", tiny_clip, "Which indices?", *served, *frames, "--picture", "png")
        assert (asked.status, asked.out) == (0, "0, 39\n")
        assert "an estimate" in asked.err
        url = server.bodies[0]["messages"][0]["content"][0]["image_url"]["url"]
        assert url.startswith("data:image/png")
        told = run("describe", tiny_clip, tiny_clip, *served, *frames, "-p", "last index")
        assert told.status == 0
        assert told.out.count("39") == 2
        missing = run("describe", tiny_clip, *served[:-1], "served/modl", *frames)
        assert missing.status == 1
        assert "did you mean 'served/model'" in missing.err


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"base_url": "http://host/v1"}, "--base-url is for a server"),
        ({"plan_as": "demo", "picture": "png"}, "--plan-as, --picture are for a server"),
        ({"engine": "openai"}, "without an address"),
        (
            {"engine": "openai", "base_url": "http://host/v1", "device": "cuda"},
            "--device is for weights that are loaded here",
        ),
        (
            {"engine": "openai", "base_url": "http://host/v1", "quantize": "int8", "base": "b"},
            "--quantize, --base are for weights",
        ),
    ],
)
def test_options_of_another_engine_are_refused(given: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_model(Console(), {"model": "m", "device": "auto", "attn": "sdpa", **given})


def test_other_processes_can_be_handed_a_server(tiny_folder: Path, tiny_clip: Path) -> None:
    with serving(Tokenizer(tiny_folder)) as server:
        named = {"model": MODEL, "engine": "openai", "base_url": server.url, "max_running": 3}
        made = pickle.loads(pickle.dumps(server_of({**named, "plan_as": str(tiny_folder)})))
        with made() as model:
            answer = model.ask(tiny_clip, "last index", num_frames=2, max_new_tokens=9)
    assert answer.text == "39"
