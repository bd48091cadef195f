"""A name becomes the folders a checkpoint consists of, by the files and tensors that are there."""

import json
import logging
import shutil
from pathlib import Path

import overlay_cases as cases
import pytest
import torch
from safetensors.torch import save_file

from llava_video.errors import CheckpointError
from llava_video.model import sources as module
from llava_video.model.sources import Files, Sources, find_local, find_sources, name_of


@pytest.fixture
def base(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "base"))


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    pairs = {cases.Q_PROJ: cases.low_rank(4, 64, 64, 1)}
    return cases.write_adapter(base, tmp_path / "adapter", pairs, {})


@pytest.fixture
def projector(base: Path, tmp_path: Path) -> Path:
    tensors = {n: t for n, t in cases.stored(base).items() if n.startswith(cases.PROJECTOR)}
    return cases.write_projector(base, tmp_path / "projector", tensors)


def refuse_hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let every folder be found here and the hub be out of reach; return what was asked of it."""
    asked: list[str] = []

    def resolve(name: object, **_: object) -> Path:
        if Path(str(name)).is_dir():
            return Path(str(name))
        asked.append(str(name))
        raise CheckpointError("the hub cannot be reached.", "check the network.")

    monkeypatch.setattr(module, "resolve_checkpoint", resolve)
    return asked


def test_a_whole_checkpoint_is_one_folder(base: Path):
    assert find_sources(base) == Sources(kind="whole", folder=base)
    assert find_sources(base).weight_files() == (base / "model.safetensors",)
    assert find_sources(base).tokenizer_folder == base


def test_an_adapter_names_its_base_as_a_folder_beside_it(base: Path, adapter: Path):
    found = find_sources(adapter)
    assert (found.kind, found.base, found.tower) == ("adapter", base, None)
    assert [path.name for path in found.weight_files()] == [
        "adapter_model.bin",
        "non_lora_trainables.bin",
        "model.safetensors",
    ]
    assert found.config_folder == adapter
    assert found.tokenizer_folder == found.generation_folder == base
    shutil.copy(base / "tokenizer.json", adapter)
    assert found.tokenizer_folder == adapter


def test_a_projector_names_its_base_by_a_path(base: Path, projector: Path):
    found = find_sources(projector)
    assert (found.kind, found.base) == ("projector", base)
    assert [path.name for path in found.own_files()] == ["mm_projector.bin"]


def test_a_projector_is_known_before_its_weights_are_fetched(base: Path, projector: Path):
    (projector / "mm_projector.bin").unlink()
    assert find_sources(projector, files="config").kind == "projector"
    with pytest.raises(CheckpointError, match=r"holds no mm_projector\.bin"):
        find_sources(projector)
    # With a tokenizer, or with weights, it is a whole checkpoint that trained its projector too.
    shutil.copy(base / "tokenizer.json", projector)
    assert find_sources(projector, files="config").kind == "whole"


def test_weights_beside_a_projector_make_a_whole_checkpoint(base: Path):
    torch.save({}, base / "mm_projector.bin")
    assert find_sources(base).kind == "whole"


@pytest.mark.parametrize("fixture", ["adapter", "projector"])
def test_the_base_that_is_given_wins(
    request: pytest.FixtureRequest, base: Path, tmp_path: Path, fixture: str
):
    overlay = request.getfixturevalue(fixture)
    other = Path(shutil.copytree(base, tmp_path / "other"))
    assert find_sources(overlay, base=other).base == other
    assert find_sources(overlay, base="other").base == other  # beside the overlay


@pytest.mark.parametrize("fixture", ["adapter", "projector"])
def test_a_base_that_is_nowhere_is_named_with_the_way_out(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, fixture: str
):
    overlay = request.getfixturevalue(fixture)
    asked = refuse_hub(monkeypatch)
    with pytest.raises(CheckpointError) as caught:
        find_sources(overlay, base="lmsys/vicuna-7b-v1.5")
    assert "needs the base model 'lmsys/vicuna-7b-v1.5'" in caught.value.message
    assert f"none in {overlay.parent}" in caught.value.message
    assert "the hub cannot be reached" in caught.value.message
    assert "base=" in caught.value.hint
    assert asked == ["lmsys/vicuna-7b-v1.5"]


def test_an_overlay_that_names_no_base_asks_for_one(adapter: Path, projector: Path):
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({"peft_type": "LORA"}))
    cases.change_config(projector, _name_or_path=None)
    for overlay, words in ((adapter, "a LoRA adapter"), (projector, "a projector alone")):
        with pytest.raises(CheckpointError, match=f"holds {words}") as caught:
            find_sources(overlay)
        assert "pass base=" in caught.value.hint


def write_norm(folder: Path, size: float, dtype: torch.dtype = torch.float32) -> Path:
    """Let the weight of the last norm be of a size, as in a delta (near 0) or a model (near 1)."""
    norm = {cases.NORM: torch.full((64,), -size).to(dtype)}
    tensors = cases.stored(folder) | norm
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_a_delta_is_refused_with_the_way_to_merge_it(base: Path, tmp_path: Path):
    delta = write_norm(Path(shutil.copytree(base, tmp_path / "LLaVA-7B-Delta-v0")), 0.013)
    with pytest.raises(CheckpointError, match="differences to another model") as caught:
        find_sources(delta)
    assert "pass base=" in caught.value.hint
    assert "LLaMA" in caught.value.hint
    assert "convert --base" in caught.value.hint
    found = find_sources(delta, base=base)
    assert (found.kind, found.base) == ("delta", base)
    assert found.tokenizer_folder == delta


@pytest.mark.parametrize(
    "name", ["models--liuhaotian--LLaVA-7b-delta-v0/snapshots/0a1b", "llava-7b", "deltas/mine"]
)
def test_weights_near_0_are_a_delta_whatever_the_name(base: Path, tmp_path: Path, name: str):
    delta = write_norm(Path(shutil.copytree(base, tmp_path / name)), 0.013, torch.bfloat16)
    for files in ("all", "config"):
        with pytest.raises(CheckpointError, match="last norm is near 0"):
            find_sources(delta, files=files)
    assert find_sources(delta, base=base).kind == "delta"
    with pytest.raises(CheckpointError, match="is itself an adapter, a projector or a delta"):
        find_sources(delta, base=delta)


@pytest.mark.parametrize("name", ["LLaVA-7b-delta-v0-merged", "LLaVA-7b-delta-v0"])
def test_whole_weights_are_no_delta_whatever_the_name(base: Path, tmp_path: Path, name: str):
    whole = Path(shutil.copytree(base, tmp_path / name))
    assert find_sources(whole).kind == find_sources(whole, files="config").kind == "whole"
    with pytest.raises(CheckpointError, match=r"whatever its name says.*weights are whole"):
        find_sources(whole, base=base)


@pytest.mark.parametrize(
    ("name", "size", "kind"),
    [
        ("LLaVA-7b-delta-v0", 0.3, "delta"),
        ("LLaVA-7b-delta-v0", 0.7, "whole"),
        ("LLaVA-7b-delta-v0-merged", 0.3, "whole"),
        ("llava-7b", 0.3, "whole"),
        ("merge/LLaVA-7b-delta-v0", 0.3, "delta"),  # a folder around it says nothing
    ],
)
def test_a_larger_difference_is_a_delta_where_it_is_called_one(
    base: Path, tmp_path: Path, name: str, size: float, kind: str
):
    folder = write_norm(Path(shutil.copytree(base, tmp_path / name)), size)
    values = json.loads((folder / "config.json").read_text())
    values = {key: value for key, value in values.items() if not key.startswith("llava_video")}
    (folder / "config.json").write_text(json.dumps(values))
    assert find_sources(folder, base=base if kind == "delta" else None).kind == kind


def test_a_tower_may_lie_beside_the_checkpoint_by_its_last_name(tmp_path: Path):
    (tmp_path / "vit-large").mkdir()
    (tmp_path / "vit-large" / "config.json").write_text("{}")
    folder = tmp_path / "model"
    for name in ("openai/vit-large", "./checkpoints/openai/vit-large", "/mnt/other/vit-large"):
        assert find_local(folder, name) == tmp_path / "vit-large"
    assert find_local(folder, "openai/vit-small") is None


def test_without_weights_the_name_tells_a_delta(base: Path, tmp_path: Path):
    def kind(name: str, **config: object) -> str:
        folder = tmp_path / name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(base, folder, ignore=shutil.ignore_patterns("*.safetensors"))
        cases.change_config(folder, **config)
        values = json.loads((folder / "config.json").read_text())
        del values["llava_video_member"]
        (folder / "config.json").write_text(json.dumps(values | config))
        try:
            return find_sources(folder, files="config").kind
        except CheckpointError as error:
            assert "differences to another model" in error.message  # noqa: PT017 - only of one branch
            return find_sources(folder, files="config", base=base).kind

    assert kind("LLaVA-7b-delta-v0") == "delta"
    assert kind("models--x--LLaVA-7b-delta-v0/snapshots/0a1b") == "delta"
    assert kind("LLaVA-7b-delta-v0-merged") == "whole"
    assert kind("deltas/llava-7b") == "whole"
    # What this library wrote is whole.
    assert kind("llava-delta", llava_video_member="LLaVA") == "whole"


def test_a_snapshot_of_the_hub_goes_by_the_repositorys_name(tmp_path: Path):
    assert name_of(tmp_path / "models--a--b-7b" / "snapshots" / "0a1b") == "b-7b"
    assert name_of(tmp_path / "b-7b") == "b-7b"


def test_an_overlay_is_no_base(base: Path, adapter: Path, tmp_path: Path):
    second = cases.write_adapter(
        base, tmp_path / "second", {cases.Q_PROJ: cases.low_rank(4, 64, 64, 2)}
    )
    with pytest.raises(CheckpointError, match="is itself an adapter") as caught:
        find_sources(second, base=adapter)
    assert "holds all its weights" in caught.value.hint


def test_an_adapter_over_the_model_that_is_named_first(base: Path, adapter: Path, tmp_path: Path):
    other = Path(shutil.copytree(base, tmp_path / "other"))
    found = find_sources(other, adapter=adapter)  # which itself names `base`
    assert (found.kind, found.folder, found.base) == ("adapter", adapter, other)
    assert found.is_merged
    assert found.has_own_files
    assert (found.config_folder, found.tokenizer_folder) == (adapter, other)
    (adapter / "config.json").unlink()  # PEFT writes none
    assert find_sources(base, adapter=adapter, files="config").config_folder == base


def test_an_adapter_that_is_none_or_over_none_is_refused(
    base: Path, adapter: Path, projector: Path
):
    with pytest.raises(
        CheckpointError, match=r"is no adapter: it holds no adapter_config\.json"
    ) as e:
        find_sources(base, adapter=projector)
    assert "with base=" in e.value.hint
    for overlay in (adapter, projector):
        with pytest.raises(CheckpointError, match="is itself an adapter, a projector"):
            find_sources(overlay, adapter=adapter)
    with pytest.raises(CheckpointError, match="both given"):
        find_sources(base, base=base, adapter=adapter)
    with pytest.raises(CheckpointError, match="there is no folder"):
        find_sources(base, adapter=base.parent / "missing")


def test_what_is_not_needed_is_refused(base: Path):
    with pytest.raises(CheckpointError, match=r"base = 'x' was given.*needs none"):
        find_sources(base, base="x")


def test_a_tower_given_to_a_checkpoint_with_its_own_says_sizes_only(
    base: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING):
        found = find_sources(base, vision_tower="me/clip")
    assert found.tower is None
    assert "holds its own tower" in caplog.text
    assert "no weight" in caplog.text


@pytest.mark.parametrize("files", ["all", "config"])
def test_transformers_layout_needs_no_tower(base: Path, files: Files):
    cases.change_config(base, text_config={})
    with pytest.raises(CheckpointError, match="says its sizes") as caught:
        find_sources(base, vision_tower="me/clip", files=files)
    assert "leave vision_tower= out" in caught.value.hint


def test_a_tower_is_looked_for_only_when_the_checkpoint_holds_none(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = refuse_hub(monkeypatch)
    apart = cases.write_tower_apart(tiny_folder, tmp_path / "apart")
    tower = tmp_path / "owner" / "tower"
    assert find_sources(apart).tower == tower
    assert find_sources(apart).weight_files()[-1] == tower / "model.safetensors"
    assert find_sources(apart, files="config").tower is None
    # Named or not, and whatever the flag says, a tower inside is the one that was trained.
    inside = cases.write_model(
        tiny_folder,
        tmp_path / "inside",
        cases.stored(tiny_folder),
        mm_vision_tower="owner/tower",
        unfreeze_mm_vision_tower=False,
    )
    assert find_sources(inside).tower is None
    assert asked == []


def test_a_tower_that_is_nowhere_is_named_with_the_way_out(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    apart = cases.write_tower_apart(tiny_folder, tmp_path / "apart")
    moved = (tmp_path / "owner").rename(tmp_path / "elsewhere")
    refuse_hub(monkeypatch)
    with pytest.raises(CheckpointError) as caught:
        find_sources(apart)
    assert "needs the vision tower 'owner/tower'" in caught.value.message
    assert f"no folder here, none in {tmp_path}" in caught.value.message
    assert "vision_tower=" in caught.value.hint
    assert find_sources(apart, vision_tower=moved / "tower").tower == moved / "tower"


def test_a_local_folder_is_a_path_or_a_neighbour(tmp_path: Path):
    neighbour = tmp_path / "owner" / "name"
    neighbour.mkdir(parents=True)
    checkpoint = tmp_path / "checkpoint"
    assert find_local(checkpoint, "owner/name") is None  # no config.json: no checkpoint
    (neighbour / "config.json").write_text("{}")
    assert find_local(checkpoint, "owner/name") == neighbour
    assert find_local(checkpoint, str(neighbour)) == neighbour
    assert find_local(checkpoint, neighbour) == neighbour
    assert find_local(checkpoint, "owner") is None
    assert find_local(checkpoint, "") is None


def test_an_adapter_without_its_file_is_incomplete(adapter: Path):
    (adapter / "adapter_model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"neither adapter_model\.safetensors nor"):
        find_sources(adapter)
