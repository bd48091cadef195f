"""A folder → the demo's clip and model in it: all that the main job needs, nothing downloaded.

Knows neither what is asked of them nor who shows the answer.
"""

import atexit
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from llava_video.demo.scene import paint_scene
from llava_video.errors import ConfigError
from llava_video.world.clip import write_clip

LENGTH_S, FRAME_RATE_HZ = 8, 12
HEIGHT_PX, WIDTH_PX = 360, 640
# Of the public checkpoints, so that a plan shows their numbers; and of one that is read at once.
TRUE_TILE_PX, SMALL_TILE_PX = 384, 56


@dataclass(frozen=True, slots=True)
class DemoFiles:
    """Where the demo's files are: the video, and the folder of the checkpoint."""

    clip: Path
    model: Path


def write_demo_files(folder: str | Path, *, tile_px: int = TRUE_TILE_PX) -> DemoFiles:
    """Write a short clip, and a checkpoint of LLaVA-Video's shape with a few random weights.

    Args:
        folder: made when it is not there; must be empty.
        tile_px: side of the tiles the model sees.

    Raises:
        ConfigError: the folder is not empty, or cannot be made.
    """
    # Torch, which the checkpoint is drawn with, costs a second to import.
    from llava_video.model.tiny import write_tiny_checkpoint

    folder = Path(folder)
    hint = "name another folder."
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty.", hint)
    except OSError as cause:
        raise ConfigError(f"{folder} cannot be made: {cause.strerror}.", hint) from cause
    files = DemoFiles(folder / "clip.mp4", folder / "model")
    frames = paint_scene(LENGTH_S * FRAME_RATE_HZ, HEIGHT_PX, WIDTH_PX)
    quick = {"preset": "veryfast"}
    write_clip(files.clip, frames, frame_rate_hz=FRAME_RATE_HZ, codec_options=quick)
    write_tiny_checkpoint(files.model, tile_px=tile_px)
    return files


def passing_demo_files() -> DemoFiles:
    """Write the files, with small tiles, to a folder that goes when the program ends."""
    folder = tempfile.mkdtemp(prefix="llava_video_demo_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return write_demo_files(folder, tile_px=SMALL_TILE_PX)
