"""A loaded model → what decides its answers beside the question, as a hash.

Sizes and dates of weights count where no hub says which revision they are: a folder may be trained
anew. Knows no unit.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llava_video.model.hub import commit_of

if TYPE_CHECKING:
    from llava_video.api import LlavaVideo


def model_facts(model: "LlavaVideo") -> dict[str, Any]:
    """Return what names a model's weights and how they are run, in plain values.

    The engine's sizes of batches and chunks do not count: they change no answer in float32. Of a
    server it is where it is and what it says of itself.
    """
    spec = model.spec
    if spec.server is not None:
        server = spec.server.to_mapping()
        return {"engine": server["engine"], "server": server, "template": spec.config.template}
    commit = commit_of(spec.folder) or spec.revision
    return {
        "weights": f"{spec.name} at {commit}" if commit else _files_of(model),
        "weight_format": spec.setup.weight_format,
        "value_bytes": spec.geometry.value_bytes,
        "template": spec.config.template,
        "engine": type(model.engine).__name__,
    }


def digest_of(facts: Mapping[str, Any]) -> str:
    """Return the hash of plain values."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _files_of(model: "LlavaVideo") -> str:
    stats = [(path.name, path.stat()) for path in sorted(model.spec.sources.weight_files())]
    files = [(name, status.st_size, status.st_mtime_ns) for name, status in stats]
    return f"files {digest_of({'files': files})[:16]}"
