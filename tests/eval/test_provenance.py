"""The hash of a run changes with what decides its answers, and the commit is this repository's."""

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest

from llava_video.api import LlavaVideo
from llava_video.eval import provenance
from llava_video.eval.provenance import commit_of_library, revision_of, run_digest
from llava_video.remote.facts import ServerFacts


def test_what_decides_answers_changes_the_hash(tiny_model: LlavaVideo, oracle: LlavaVideo) -> None:
    base = run_digest(tiny_model, "mlvu", {"num_frames": 4})
    assert run_digest(tiny_model, "mlvu", {"num_frames": 4}) == base
    renamed = LlavaVideo(dataclasses.replace(tiny_model.spec, name="other"), tiny_model.engine)
    others = [
        run_digest(tiny_model, "mvbench", {"num_frames": 4}),
        run_digest(tiny_model, "mlvu", {"num_frames": 8}),
        run_digest(tiny_model, "mlvu", {}),
        run_digest(oracle, "mlvu", {"num_frames": 4}),
        run_digest(renamed, "mlvu", {"num_frames": 4}),
    ]
    assert len({base, *others}) == 6


def test_a_model_trained_anew_in_its_folder_is_another(
    tiny_folder: Path, tiny_model: LlavaVideo, tmp_path: Path
) -> None:
    from llava_video.model.spec import read_spec

    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    model = LlavaVideo(read_spec(folder), tiny_model.engine)
    before = run_digest(model, "mlvu", {})
    assert run_digest(model, "mlvu", {}) == before
    weights = next(folder.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes() + b"\0")
    assert run_digest(model, "mlvu", {}) != before
    assert revision_of(model) is None


def test_of_a_server_counts_what_it_says_of_itself(tiny_model: LlavaVideo) -> None:
    def served(version: str) -> LlavaVideo:
        server = ServerFacts(base_url="http://host/v1", model="m", version=version)
        spec = dataclasses.replace(tiny_model.spec, server=server, revision="v2")
        return LlavaVideo(spec, tiny_model.engine)

    digests = {run_digest(served(version), "mlvu", {}) for version in ("1", "1", "2")}
    assert len(digests | {run_digest(tiny_model, "mlvu", {})}) == 3
    assert revision_of(served("1")) is None


def test_the_commit_is_that_of_this_repository(project: Path) -> None:
    run = subprocess.run(
        ["git", "-C", project, "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    commit_of_library.cache_clear()
    found = commit_of_library()
    if run.returncode:
        assert found is None
    else:
        assert (found or "").removesuffix("-dirty") == run.stdout.strip()


def test_an_environment_in_another_repository_has_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "lib/llava_video"
    package.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.setattr(provenance, "_PACKAGE", package)
    commit_of_library.cache_clear()
    assert commit_of_library() is None
    monkeypatch.setenv("PATH", "")
    commit_of_library.cache_clear()
    assert commit_of_library() is None
    commit_of_library.cache_clear()
