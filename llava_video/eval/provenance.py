"""What decides an answer → a hash, and where the code that gave it stands. Knows no task."""

import functools
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import llava_video
from llava_video.api import LlavaVideo
from llava_video.eval.example import digest_of
from llava_video.model.hub import commit_of

_PACKAGE = Path(llava_video.__file__).parent


def run_digest(model: LlavaVideo, task: str, options: Mapping[str, Any]) -> str:
    """Return the hash of what decides the answers of a run, beside the examples.

    Task, checkpoint and revision, sizes and dates of its weights (a folder may be trained anew),
    template, precision, engine, version of this library, options. Not the commit: with it every
    change of the code would throw away what was answered; records
    name theirs.
    """
    spec = model.spec
    facts = {
        "task": task,
        "model": spec.name,
        "revision": revision_of(model),
        "base": str(spec.sources.base),
        "template": spec.config.template,
        "weights": spec.setup.weight_format,
        "value_bytes": spec.geometry.value_bytes,
        "files": _files_of(model),
        "engine": type(model.engine).__name__,
        "library": llava_video.__version__,
        "options": {name: repr(value) for name, value in options.items()},
    }
    if spec.server is not None:
        facts["server"] = spec.server.to_mapping()
    return digest_of(facts)


def revision_of(model: LlavaVideo) -> str | None:
    """Return the commit or revision of a hub model; None of a folder, and of a server's."""
    if model.spec.server is not None:
        return None
    return commit_of(model.spec.folder) or model.spec.revision


@functools.cache
def commit_of_library() -> str | None:
    """Return the commit this library runs from; with changes "-dirty" behind; None if installed."""
    root = _git("rev-parse", "--show-toplevel")
    # An environment may lie in somebody else's repository.
    if root is None or Path(root).resolve() != _PACKAGE.parent.resolve():
        return None
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", str(_PACKAGE))
    return f"{commit}-dirty" if commit and changes else commit


def _files_of(model: LlavaVideo) -> list[tuple[str, int, int]]:
    if model.spec.server is not None:
        return []
    paths = sorted(model.spec.sources.weight_files())
    stats = [(path.name, path.stat()) for path in paths]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def _git(*arguments: str) -> str | None:
    try:
        run = subprocess.run(
            ["git", "-C", str(_PACKAGE), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip()
