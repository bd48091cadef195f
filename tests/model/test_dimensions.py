"""The sizes are those of the public checkpoints, and need no torch to be known."""

import dataclasses
import subprocess
import sys

import pytest
from seeded_models import DIMENSIONS, TEXT

from llava_video.model.dimensions import VisionConfig


def test_the_defaults_are_so400m():
    vision = VisionConfig()
    # 384 // 14 = 27 patches a side; 16 heads of 72 channels; layers 0..25 are stored.
    assert vision.patches_per_side == 27
    assert vision.hidden_size // vision.num_heads == 72
    assert vision.num_layers == 26


@pytest.mark.parametrize(
    ("image_px", "patch_px", "side"), [(384, 14, 27), (336, 14, 24), (58, 8, 7)]
)
def test_patches_round_down(image_px: int, patch_px: int, side: int):
    assert VisionConfig(image_px=image_px, patch_px=patch_px).patches_per_side == side


def test_nothing_assigns_to_them():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DIMENSIONS.has_newline = False
    with pytest.raises(TypeError):
        dataclasses.replace(TEXT, num_heds=2)


def test_they_need_no_torch():
    code = "import sys, llava_video.model.dimensions; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
