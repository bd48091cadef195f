"""A file that is being written → the file, whole or not at all.

Knows nothing of what is written.
"""

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path, place: Path | None = None) -> Iterator[Path]:
    """Give a path to write to; it becomes `path` when all went well and vanishes otherwise.

    It lies on the same file system, so that the last step is one rename.

    Args:
        path: the file wanted; what is there is replaced.
        place: the folder it lies in meanwhile, and stays in when the process is killed; None for
            the path's own.

    Raises:
        OSError: the file cannot take the path's place.
    """
    unfinished = (place or path.parent) / f".{secrets.token_hex(8)}{path.suffix}"
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
