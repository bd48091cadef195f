"""A loaded model → what decides its answers beside the question, as a hash.

Sizes and dates of weights count where no hub says which revision they are: a folder may be trained
anew. Knows no unit.
"""

import hashlib
import json
from typing import Any

from llava_video.api import LlavaVideo
from llava_video.model.hub import commit_of


def revision_of(model: LlavaVideo) -> str:
    """Return the hash that names a model's weights and how they are run.

    The engine's sizes of batches and chunks do not count: they change no answer in float32.
    """
    spec = model.spec
    commit = commit_of(spec.folder) or spec.revision
    facts: dict[str, Any] = {
        "weights": {"name": spec.name, "commit": commit} if commit else _files_of(model),
        "format": spec.setup.weight_format,
        "value_bytes": spec.geometry.value_bytes,
        "template": spec.config.template,
        "engine": type(model.engine).__name__,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _files_of(model: LlavaVideo) -> list[tuple[str, int, int]]:
    stats = [(path.name, path.stat()) for path in sorted(model.spec.sources.weight_files())]
    return [(name, status.st_size, status.st_mtime_ns) for name, status in stats]
