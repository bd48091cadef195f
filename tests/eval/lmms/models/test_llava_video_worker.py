"""Driven through lmms-eval's own interface, of which a stand-in is here.

The stand-in has what lmms-eval's `lmms` base and its loader of plugins do with a model: its import
by name, its making from an argument string, `task_dict`, and requests with six arguments.
"""

import importlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from llava_video.errors import ConfigError

MODULE = "llava_video.eval.lmms.models.llava_video_worker"


class StandIn:
    """lmms_eval.api.model.lmms, as far as a simple model sees it."""

    def __init__(self) -> None:
        self.task_dict: dict[str, Any] = {}

    @classmethod
    def create_from_arg_string(cls, arguments: str, more: dict[str, Any]) -> Any:
        pairs = dict(pair.split("=") for pair in arguments.split(","))
        plain = {k: int(v) if v.isdigit() else v for k, v in pairs.items()}
        return cls(**plain, **{k: v for k, v in more.items() if v is not None})


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """Return the module as lmms-eval imports it: by the plugin's table."""
    stand_in = types.ModuleType("lmms_eval.api.model")
    stand_in.lmms = StandIn  # type: ignore[attr-defined]  # a made module
    for name in ("lmms_eval", "lmms_eval.api"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "lmms_eval.api.model", stand_in)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    plugin = "llava_video.eval.lmms"
    table = importlib.import_module(f"{plugin}.models").AVAILABLE_MODELS
    ((name, _),) = table.items()
    yield importlib.import_module(f"{plugin}.models.{name}")
    sys.modules.pop(MODULE, None)


def request(prompt: str, visuals: Any, doc: int = 0, **wanted: Any) -> SimpleNamespace:
    arguments = (prompt, wanted, lambda found: found["visuals"], doc, "task", "test")
    return SimpleNamespace(args=arguments, doc={"visuals": visuals})


def test_lmms_eval_drives_a_model_of_this_library(
    module, tiny_folder: Path, tiny_clip: Path, tiny_model
) -> None:
    arguments = f"pretrained={tiny_folder},num_frames=3,device=cpu"
    more = {"batch_size": 1, "max_batch_size": None, "device": None}
    model = module.LlavaVideoWorker.create_from_arg_string(arguments, more)
    picture = Image.new("RGB", (80, 60), (200, 90, 10))
    requests = [
        request("What?", [str(tiny_clip)], 0, max_new_tokens=6, do_sample=False, temperature=0),
        request("And this?", [[picture]], 1, max_new_tokens=4, until=["\n\n"], num_beams=1),
        request("No video?", [], 2, max_new_tokens=3),
    ]
    model.task_dict = {"task": {"test": [one.doc for one in requests]}}
    texts = model.generate_until(requests)
    own = [
        tiny_model.ask(tiny_clip, "What?", num_frames=3, max_new_tokens=6).text,
        tiny_model.ask(picture, "And this?", max_new_tokens=4, stop=["\n\n"]).text,
        tiny_model.ask(None, "No video?", max_new_tokens=3).text,
    ]
    assert texts == own
    with pytest.raises(ConfigError, match="num_beams = 5"):
        model.generate_until([request("What?", [str(tiny_clip)], num_beams=5)])
    model.task_dict["task"]["test"] = [{"visuals": [5]}]
    with pytest.raises(ConfigError, match="a visual is int"):
        model.generate_until([request("What?", [5])])
    for refused in (model.loglikelihood, model.generate_until_multi_round):
        with pytest.raises(ConfigError, match="not to be had"):
            refused(requests)
    model._worker.close()


@pytest.mark.parametrize(
    ("wanted", "options"),
    [
        ({}, {"temperature": 0.0}),
        ({"temperature": 0, "top_p": 1.0}, {"temperature": 0.0}),
        ({"do_sample": False, "temperature": 0.7}, {"temperature": 0.0}),
        ({"do_sample": True, "top_p": 0.9}, {"temperature": 1.0, "top_p": 0.9}),
        ({"temperature": 0.2}, {"temperature": 0.2}),
        ({"until": "\n", "max_new_tokens": 9}, {"stop": ["\n"], "max_new_tokens": 9}),
    ],
)
def test_generation_arguments_become_options(module, wanted, options) -> None:
    found = module._options_of(wanted)
    assert {name: found[name] for name in options} == options
    assert set(found) <= {"temperature", "top_p", "stop", "max_new_tokens"}
    if found["temperature"] == 0.0:
        assert "top_p" not in found
