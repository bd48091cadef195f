"""A folder → a checkpoint of random weights in the shape of the demo model, with a made-up card.

For tests of how the demo model is found, planned for and asked, where what it says does not matter.
"""

import json
from pathlib import Path
from typing import Any

from llava_video.model.card import write_card
from llava_video.model.tiny import write_tiny_checkpoint

FACTS: dict[str, Any] = {
    "name": "demo",
    "about": "random weights that stand in for a trained model",
    "world": "small",
    "describe": "Describe the video in detail.",
    "knows": {
        "objects": ["circle", "square"],
        "colours": ["red", "blue"],
        "events": ["enters"],
        "questions": ["What shape is the red object?", "How many objects are there in all?"],
    },
    "trained_on": "nothing",
    "seed": 3,
    "wall_time_s": 5400.0,
    "licence": "Apache-2.0",
    "limits": ["knows nothing"],
    "measured_on": "nothing at all",
}
RESULTS = {
    "colour": {"n": 1200, "accuracy": 0.125, "low": 0.1, "high": 0.15, "blind": 0.12, "ece": 0.5},
    "when": {"n": 80, "accuracy": 0.5, "low": 0.4, "high": 0.6},
}


def write_stand_in(folder: Path) -> Path:
    """Write it; the folder must not exist, or be empty."""
    write_tiny_checkpoint(
        folder, tile_px=96, patch_px=12, newline_position="grid", time_instruction=True
    )
    path = folder / "config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values |= {"llava_video_fps": 2.0, "llava_video_max_frames": 24}
    path.write_text(json.dumps(values), encoding="utf-8")
    write_card(folder, FACTS, RESULTS)
    return folder
