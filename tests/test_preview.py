"""A plan without weights: exact token counts, the default words, and the limits of a follow-up."""

import subprocess
import sys
from pathlib import Path

import pytest

from llava_video.errors import CheckpointError, ConfigError
from llava_video.inputs import Picture
from llava_video.model.spec import read_spec
from llava_video.preview import plan_video, turns_of


def test_the_prompt_says_the_true_times_and_is_counted(tiny_folder: Path, tiny_clip: Path) -> None:
    plan = plan_video(tiny_clip, "Why?", model=tiny_folder, num_frames=3)
    assert "3 frames are uniformly sampled from it" in plan.prompt
    assert "0.00s,0.63s,1.30s" in plan.prompt
    assert plan.prompt.count("<image>") == len(plan.visuals) == 1
    tokenizer = read_spec(tiny_folder).tokenizer
    assert plan.text_tokens == tokenizer.num_text_tokens(plan.prompt)
    ids = tokenizer.encode_prompt(plan.prompt)
    assert plan.text_tokens == sum(len(piece) for piece in ids if isinstance(piece, list))


def test_without_words_and_visuals_there_is_nothing_to_do() -> None:
    with pytest.raises(ConfigError, match="neither a video nor a question"):
        turns_of(None, ())


def test_a_picture_is_planned_too(tiny_folder: Path, tmp_path: Path) -> None:
    import numpy as np

    plan = plan_video(Picture(np.zeros((40, 60, 3), np.uint8)), model=tiny_folder)
    assert plan.visuals[0].kind == "image"
    assert "describe this image" in plan.prompt
    assert "located at" not in plan.prompt


def test_an_unknown_model_is_a_checkpoint_error(tiny_clip: Path) -> None:
    with pytest.raises(CheckpointError):
        plan_video(tiny_clip, model="no/such/folder/here")


def test_planning_needs_no_torch(tiny_folder: Path, tiny_clip: Path) -> None:
    code = (
        "import sys; from llava_video.preview import plan_video; "
        f"plan_video({str(tiny_clip)!r}, model={str(tiny_folder)!r}); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
