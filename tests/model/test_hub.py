"""A name becomes a folder, or an error that says what to do; the hub's client is replaced."""

import errno
import fnmatch
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from llava_video.errors import CheckpointError
from llava_video.model.hub import commit_of, resolve_checkpoint

NAME = "lmms-lab/LLaVA-Video-7B-Qwen2"


class Answer:
    """What an HTTP error wants to know of its response."""

    headers: dict[str, str] = {}  # noqa: RUF012  # never written
    request = None
    text = ""

    def __init__(self, status_code: int) -> None:
        self.status_code = status_code


def failing(cause: BaseException) -> Callable[..., str]:
    def snapshot_download(*_: Any, **__: Any) -> str:
        raise cause

    return snapshot_download


def http_error(
    kind: type[errors.HfHubHTTPError], text: str = "refused", status: int = 404
) -> errors.HfHubHTTPError:
    return kind(text, response=Answer(status))  # type: ignore[arg-type]  # as much as is read


def caused(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


def test_a_folder_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", failing(AssertionError("called")))
    assert resolve_checkpoint(tmp_path) == tmp_path
    assert resolve_checkpoint(str(tmp_path)) == tmp_path


class FakeHub:
    """Gives the files of a repository that the patterns allow, and remembers what was asked."""

    def __init__(self, folder: Path, *files: str) -> None:
        self.folder, self.files = folder, files
        self.calls: list[dict[str, Any]] = []

    def __call__(self, name: str, **options: Any) -> str:
        self.calls.append({"name": name, **options})
        for file in self.files:
            if any(fnmatch.fnmatch(file, pattern) for pattern in options["allow_patterns"]):
                (self.folder / file).write_bytes(b"")
        return str(self.folder)

    @property
    def fetched(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}


SMALL = {"config.json", "tokenizer.model", "merges.txt"}
CODE = ("modeling.py", "training_args.bin", "optimizer.pt", "README.md")


@pytest.mark.parametrize(
    ("weights", "wanted"),
    [
        ({"model.safetensors"}, {"model.safetensors"}),
        ({"model.safetensors", "pytorch_model.bin"}, {"model.safetensors"}),
        ({"pytorch_model-00001-of-00002.bin"}, {"pytorch_model-00001-of-00002.bin"}),
        ({"adapter_model.bin", "non_lora_trainables.bin"},) * 2,
        (
            {"adapter_model.bin", "adapter_model.safetensors", "non_lora_trainables.bin"},
            {"adapter_model.safetensors", "non_lora_trainables.bin"},
        ),
        ({"mm_projector.bin"},) * 2,
    ],
)
def test_a_hub_id_is_fetched_with_what_is_needed_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: set[str], wanted: set[str]
):
    hub = FakeHub(tmp_path, *SMALL, *CODE, *weights)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    assert resolve_checkpoint(NAME, revision="abc", files="config") == tmp_path
    assert hub.fetched == SMALL
    assert resolve_checkpoint(NAME) == tmp_path
    assert hub.fetched == SMALL | wanted
    assert [(call["name"], call["revision"]) for call in hub.calls[:2]] == [
        (NAME, "abc"),
        (NAME, None),
    ]


@pytest.mark.parametrize(
    ("cause", "message", "hint"),
    [
        (http_error(errors.RepositoryNotFoundError), "the hub has no model", "llava-video models"),
        (http_error(errors.GatedRepoError), "is gated", "hf auth login"),
        (http_error(errors.RevisionNotFoundError), "has no revision 'main2'", "branches"),
        (http_error(errors.HfHubHTTPError, "503 busy"), "cannot be reached: 503", "network"),
        (errors.LocalEntryNotFoundError("no connection"), "cannot be reached", "network"),
        (errors.HTTPError("connection reset"), "cannot be reached", "network"),
        (ConnectionError("refused"), "cannot be reached", "network"),
        (
            caused(errors.LocalEntryNotFoundError("offline"), errors.OfflineModeIsEnabled("x")),
            "offline mode is on",
            "HF_HUB_OFFLINE",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "no disk space", "HF_HOME"),
        (
            caused(errors.XetDownloadError("failed"), OSError(errno.ENOSPC, "full")),
            "no disk space",
            "HF_HOME",
        ),
        (PermissionError(errno.EACCES, "denied"), "cannot be fetched", "can be written"),
        (
            caused(errors.LocalEntryNotFoundError("failed"), PermissionError(errno.EACCES, "no")),
            "cannot be fetched",
            "can be written",
        ),
        (http_error(errors.HfHubHTTPError, "403 Forbidden", 403), "the hub refuses", "auth login"),
        (
            caused(
                errors.LocalEntryNotFoundError("failed"),
                http_error(errors.HfHubHTTPError, "401 Unauthorized", 401),
            ),
            "the hub refuses",
            "auth login",
        ),
        (errors.XetDownloadError("xet: broken"), "cannot be fetched: xet: broken", "check the id"),
        (RuntimeError("xet: broken"), "cannot be fetched: xet: broken", "check the id"),
    ],
)
def test_what_the_client_raises_becomes_a_sentence_and_a_way_out(
    monkeypatch: pytest.MonkeyPatch, cause: Exception, message: str, hint: str
):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", failing(cause))
    with pytest.raises(CheckpointError, match=message) as caught:
        resolve_checkpoint(NAME, revision="main2")
    assert hint in caught.value.hint
    assert NAME in caught.value.message or "main2" in caught.value.message
    assert caught.value.__cause__ is cause


@pytest.mark.parametrize(
    "name", ["", "./models/x", "/models/x", "a/b/c", "~/x", "bad name", "a//b"]
)
def test_what_can_be_no_hub_id_is_not_looked_up(monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", failing(AssertionError("called")))
    with pytest.raises(CheckpointError, match="there is no folder"):
        resolve_checkpoint(name)


def test_a_file_and_a_revision_of_a_folder_are_refused(tmp_path: Path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(CheckpointError, match="is a file") as caught:
        resolve_checkpoint(file)
    assert "folder" in caught.value.hint
    with pytest.raises(CheckpointError, match="is a folder"):
        resolve_checkpoint(tmp_path, revision="main")


def test_offline_mode_of_the_real_client_is_honoured(tmp_path: Path):
    code = f"from llava_video.model.hub import resolve_checkpoint; resolve_checkpoint({NAME!r})"
    settings = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", code], env=settings, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert "CheckpointError" in run.stderr
    assert "offline mode is on.  hint: unset HF_HUB_OFFLINE" in run.stderr


def test_the_commit_is_read_off_the_caches_folder(tmp_path: Path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "models--a--b" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    assert commit_of(snapshot) == commit
    assert commit_of(tmp_path) is None
    other = tmp_path / "snapshots" / "main"
    other.mkdir(parents=True)
    assert commit_of(other) is None
