"""The small curriculum runs from nothing: each stage begins with what the one before left."""

from pathlib import Path

import pytest

from llava_video.config import read_yaml
from llava_video.train.run import train
from llava_video.train.settings import StageSettings
from llava_video.world.dataset import write_world
from llava_video.world.preference import write_preferences

STAGES = ("1_projector", "15_knowledge", "2_single_image", "3_video", "4_preferences")


@pytest.mark.slow
def test_the_small_curriculum_from_nothing(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_preferences(write_world("data/world", 4))
    for name in STAGES:
        path = project / "configs" / "train" / f"small_{name}.yaml"
        changes = ("max_steps=1", "batch_size=2", "data.num_workers=0")
        stage = read_yaml(StageSettings, path, changes)
        done = train(stage)
        assert done.num_steps == 1
        assert done.folders["original"] == Path(stage.output) / "original"
