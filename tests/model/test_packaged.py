"""The name "demo" means the model in the package, and no folder."""

from pathlib import Path

import pytest

from llava_video.api import load
from llava_video.errors import CheckpointError
from llava_video.model import packaged
from llava_video.model.hub import resolve_checkpoint
from llava_video.model.packaged import demo_folder, packaged_folder
from llava_video.model.sources import find_sources, look_up
from llava_video.model.spec import read_spec


def test_it_lies_in_the_package(project: Path) -> None:
    assert packaged_folder().parts[-3:] == ("llava_video", "demo", "checkpoint")
    assert packaged_folder().resolve() == project / "llava_video" / "demo" / "checkpoint"


def test_it_is_found_wherever_a_model_is_named(demo_checkpoint: Path) -> None:
    assert resolve_checkpoint("demo") == demo_checkpoint
    assert find_sources("demo").folder == demo_checkpoint
    found = look_up(demo_checkpoint, "demo", what="base", keyword="base", files="all")
    assert found == demo_checkpoint
    spec = read_spec("demo")
    assert (spec.name, spec.folder) == ("demo", demo_checkpoint)


def test_a_folder_of_that_name_is_another_matter(
    demo_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve_checkpoint("demo") == demo_checkpoint
    assert resolve_checkpoint("./demo") == Path("demo")
    assert resolve_checkpoint(Path("demo")) == Path("demo")


def test_it_has_no_revision(demo_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match=r"revision = 'main' was asked for, but .* folder"):
        resolve_checkpoint("demo", revision="main")


def test_an_installation_without_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packaged, "packaged_folder", lambda: tmp_path)
    with pytest.raises(CheckpointError, match=r"lacks config.json, model.safetensors, tok") as told:
        demo_folder()
    assert "or name another model" in told.value.hint
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(CheckpointError, match=r"lacks tokenizer\.json\."):
        load("demo")
