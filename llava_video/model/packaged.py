"""The name of the model that the package carries → its folder. Reads no file of it.

`demo` is that model wherever a model is named; a folder of yours called so is `./demo`.
"""

from importlib import resources
from pathlib import Path
from typing import Final

from llava_video.errors import CheckpointError

DEMO_MODEL: Final = "demo"


def packaged_folder() -> Path:
    """Return where the demo model lies in an installation, whether it is there or not."""
    return Path(str(resources.files("llava_video").joinpath("demo", "checkpoint")))


def demo_folder() -> Path:
    """Return the folder of the demo model.

    Raises:
        CheckpointError: this installation does not have it.
    """
    folder = packaged_folder()
    wanted = ("config.json", "model.safetensors", "tokenizer.json")
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"the demo model is not in this installation: {folder} lacks {', '.join(missing)}.",
            "install a wheel or a checkout that has it, or name another model.",
        )
    return folder
