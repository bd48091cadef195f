"""A local copy of a benchmark → its files of annotations. Knows no benchmark and reads no file."""

from collections.abc import Sequence
from pathlib import Path

from llava_video.errors import ConfigError


def annotation_files(folder: Path, patterns: Sequence[str], what: str) -> list[Path]:
    """Return the files of the first pattern that finds any, by name.

    Args:
        folder: of the local copy.
        patterns: of `Path.glob`, the surest first.
        what: the benchmark's name, for the message.

    Raises:
        ConfigError: the folder is none, or nothing is found.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder.", f"name the folder of a copy of {what}.")
    for pattern in patterns:
        found = sorted(path for path in folder.glob(pattern) if path.is_file())
        if found:
            return found
    raise ConfigError(
        f"{folder} holds no annotations of {what}.", f"looked for {', '.join(patterns)}."
    )
