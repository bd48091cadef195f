"""A checkpoint's name → a local folder with its files.

A folder is used as it is, "demo" is in the package; a hub id is fetched through `huggingface_hub`,
whose cache, token and offline mode (`HF_HUB_OFFLINE=1`) apply. Code in a repository is never
fetched. Reads no file.
"""

import errno
import os
import re
from pathlib import Path
from typing import Any, Literal

from llava_video.backends import require
from llava_video.errors import CheckpointError
from llava_video.model.packaged import DEMO_MODEL, demo_folder

_CONFIG_PATTERNS = ("*.json", "merges.txt", "tokenizer.model", "chat_template*")
# The small files beside an adapter or instead of a model have no twin as safetensors.
_WEIGHT_PATTERNS = ("*.safetensors", "mm_projector.bin", "non_lora_trainables.bin")
_PICKLED_PATTERNS = ("pytorch_model*.bin", "adapter_model.bin")

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def resolve_checkpoint(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    files: Literal["all", "config"] = "all",
) -> Path:
    """Return the folder of a checkpoint, fetching it from the hub when it is no folder here.

    Weights as `.bin` are fetched only of a repository that has none as safetensors.

    Args:
        name_or_path: a folder, a hub id like "lmms-lab/LLaVA-Video-7B-Qwen2", or "demo".
        revision: branch, tag or commit of the hub id; None for its default branch.
        files: "config" leaves the weights where they are: enough for a plan.

    Raises:
        CheckpointError: no such folder, unknown or gated id, unknown revision, no network, no room,
            an installation without the demo model.
        BackendMissingError: `huggingface_hub` is absent.
    """
    if name_or_path == DEMO_MODEL:  # no Path is: Path("demo") is a folder of the user's
        folder = demo_folder()
        _refuse_revision(folder, revision)
        return folder
    name = os.fspath(name_or_path)
    folder = Path(name).expanduser()
    if name and folder.is_dir():  # an empty name would mean the working folder
        _refuse_revision(folder, revision)
        return folder
    _refuse_path(name, folder)
    if files == "config":
        return _fetched(name, revision, _CONFIG_PATTERNS)
    patterns = _CONFIG_PATTERNS + _WEIGHT_PATTERNS
    found = _fetched(name, revision, patterns)
    if any(found.glob("*.safetensors")):
        return found
    return _fetched(name, revision, patterns + _PICKLED_PATTERNS)


def commit_of(folder: str | Path) -> str | None:
    """Return the commit a folder of the hub's cache holds; None for any other folder."""
    parts = Path(folder).resolve().parts
    is_snapshot = len(parts) >= 2 and parts[-2] == "snapshots"
    return parts[-1] if is_snapshot and re.fullmatch(r"[0-9a-f]{40}", parts[-1]) else None


def _fetched(name: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    hub = require("huggingface_hub")
    try:
        return Path(hub.snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except _client_errors(hub) as cause:
        raise _explained(hub, name, revision, cause) from cause


def _refuse_revision(folder: Path, revision: str | None) -> None:
    if revision is not None:
        raise CheckpointError(
            f"revision = {revision!r} was asked for, but {folder} is a folder.",
            "leave the revision out, or name the hub id.",
        )


def _refuse_path(name: str, folder: Path) -> None:
    """Refuse what cannot be a hub id, so that a mistyped path is not looked up in the network."""
    if name and folder.exists():
        raise CheckpointError(f"{name} is a file.", "give the folder that holds it.")
    if not _HUB_ID.fullmatch(name):
        raise CheckpointError(
            f"there is no folder {name!r}, and it is no hub id.",
            "check the path; a hub id looks like lmms-lab/LLaVA-Video-7B-Qwen2.",
        )


def _client_errors(hub: Any) -> tuple[type[Exception], ...]:
    """Return what the hub's client raises; its HTTP library's errors are no OSErrors."""
    errors = hub.errors
    own = (errors.EntryNotFoundError, errors.HTTPError, errors.XetDownloadError)
    return (OSError, ValueError, RuntimeError, *own)


def _explained(hub: Any, name: str, revision: str | None, cause: Exception) -> CheckpointError:
    """Turn what the hub's client raised into a sentence and a way out."""
    errors, causes = hub.errors, _chain(cause)
    if any(isinstance(one, OSError) and one.errno == errno.ENOSPC for one in causes):
        return CheckpointError(
            f"no disk space is left to fetch {name}.", "free some, or set HF_HOME to a larger disk."
        )
    at = f" at revision {revision!r}" if revision else ""
    kinds = (
        (
            errors.GatedRepoError,
            f"{name} is gated: its owner grants access.",
            "accept its terms on the hub's page, then run `hf auth login`.",
        ),
        (
            errors.RevisionNotFoundError,
            f"{name} has no revision {revision!r}.",
            "look up branches, tags and commits on the hub's page.",
        ),
        (
            errors.RepositoryNotFoundError,
            f"the hub has no model {name!r}, or it is private, and there is no such folder here.",
            "check the spelling (`llava-video models` lists some); log in for a private one.",
        ),
        (
            errors.OfflineModeIsEnabled,
            f"{name}{at} is not in the local cache, and offline mode is on.",
            "unset HF_HUB_OFFLINE, or give a folder.",
        ),
    )
    for kind, message, hint in kinds:
        if any(isinstance(one, kind) for one in causes):
            return CheckpointError(message, hint)
    if any(_is_refusal(one) for one in causes):
        return CheckpointError(
            f"the hub refuses to give {name}{at}: {_first_line(cause)}",
            "run `hf auth login` with a token that may read it.",
        )
    is_local = any(isinstance(one, PermissionError) for one in causes)
    network = (errors.LocalEntryNotFoundError, errors.HTTPError, ConnectionError)
    if isinstance(cause, network) and not is_local:
        return CheckpointError(
            f"{name}{at} is not in the cache and the hub cannot be reached: {_first_line(cause)}",
            "check the network, or give a folder.",
        )
    return CheckpointError(
        f"{name}{at} cannot be fetched: {_first_line(cause)}",
        "check the id and that the cache folder (HF_HOME) can be written.",
    )


def _is_refusal(error: BaseException) -> bool:
    """Say whether the hub answered, and answered that this caller may not."""
    return getattr(getattr(error, "response", None), "status_code", None) in (401, 403)


def _chain(cause: BaseException) -> list[BaseException]:
    """Return an error and those it came from; the hub's client wraps the telling one."""
    found: list[BaseException] = []
    current: BaseException | None = cause
    while current is not None and current not in found:
        found.append(current)
        current = current.__cause__ or current.__context__
    return found


def _first_line(cause: Exception) -> str:
    lines = str(cause).strip().splitlines()
    return lines[0] if lines else type(cause).__name__
