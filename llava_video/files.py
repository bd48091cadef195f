"""A file that is being written → the file, whole or not at all.

Knows nothing of what is written.
"""

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to; it becomes `path` when all went well and vanishes otherwise.

    It lies in the same folder, so that the last step is one rename.

    Args:
        path: the file wanted; what is there is replaced.

    Raises:
        OSError: the file cannot take the path's place.
    """
    unfinished = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
