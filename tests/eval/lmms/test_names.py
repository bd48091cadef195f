"""lmms-eval finds the table where it looks for it."""

import importlib
import sys
import tomllib
import types
from pathlib import Path
from types import SimpleNamespace

import pytest

import llava_video
from llava_video.eval.lmms.names import AVAILABLE_MODELS, manifests


def test_the_table_is_in_the_plugin_and_names_modules() -> None:
    plugin = importlib.import_module("llava_video.eval.lmms.models")
    assert plugin.AVAILABLE_MODELS is AVAILABLE_MODELS
    folder = Path(llava_video.__file__).parent / "eval/lmms/models"
    assert all((folder / f"{name}.py").is_file() for name in AVAILABLE_MODELS)


def test_the_entry_point_names_the_class(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    table = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    (target,) = table["entry-points"]["lmms_eval.models"].values()
    module, _, function = target.partition(":")
    assert getattr(importlib.import_module(module), function) is manifests
    registry = types.ModuleType("lmms_eval.models.registry_v2")
    registry.ModelManifest = SimpleNamespace  # type: ignore[attr-defined]  # a made module
    for name in ("lmms_eval", "lmms_eval.models"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "lmms_eval.models.registry_v2", registry)
    (manifest,) = manifests()
    assert manifest.model_id == "llava_video_worker"
    path = "llava_video.eval.lmms.models.llava_video_worker.LlavaVideoWorker"
    assert manifest.simple_class_path == path
