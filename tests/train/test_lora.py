"""Low-rank changes: they begin as none, learn alone, and load again merged with their base."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llava_video.config import from_mapping
from llava_video.errors import CheckpointError, ConfigError
from llava_video.model.adapters import TRAINED_OVER
from llava_video.model.checkpoint import load_model
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import read_model_config
from llava_video.model.shards import read_header
from llava_video.model.sources import find_sources
from llava_video.model.spec import ModelSpec, read_spec
from llava_video.train.forward import Example, TrainingModel, pack
from llava_video.train.lora import add_lora, check_base, save_adapter
from llava_video.train.parts import compute_again, parameter_groups, set_learning
from llava_video.train.run import train
from llava_video.train.settings import LoraSettings, StageSettings

peft = pytest.importorskip("peft")
SETTINGS = LoraSettings(r=4, alpha=8, dropout=0.0, modules=("q_proj", "down_proj"))


def loaded(folder: Path) -> LlavaModel:
    sources = find_sources(folder)
    config = read_model_config(sources.config_folder)
    return load_model(sources, config=config, device="cpu")


def logits(model: LlavaModel) -> torch.Tensor:
    ids = tuple(range(40, 60))
    one = Example(ids=ids, labels=ids, plans=(), tiles=torch.zeros(0, 3, 56, 56))
    batch = pack([one])
    with torch.no_grad():
        learner = TrainingModel(model)
        visuals = learner.visuals(batch["plans"], batch["tiles"])
        hidden = learner.hidden_rows(
            learner.spliced(batch["ids"], visuals), learner.keys(batch["shares"])
        )
        return model.language_model.logits(hidden)


@pytest.fixture
def model(tiny_folder: Path) -> LlavaModel:
    made = loaded(tiny_folder)
    set_learning(made, ["projector"])
    add_lora(made, SETTINGS, seed=3)
    return made


def moved(model: LlavaModel) -> LlavaModel:
    """Move everything that learns away from where it began."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn(parameter.shape, generator=generator) * 0.1
    return model


def test_they_begin_as_no_change_and_learn_alone(model: LlavaModel, tiny_folder: Path):
    assert torch.equal(logits(model), logits(loaded(tiny_folder)))
    learning = [name for name, p in model.named_parameters() if p.requires_grad]
    # Two sides of two layers' two modules, and the projector's four.
    assert sum(".lora_" in name for name in learning) == 8
    assert sum(name.startswith("projector") for name in learning) == 4
    assert len(learning) == 12
    other = loaded(tiny_folder)
    add_lora(other, SETTINGS, seed=3)
    name = "language_model.layers.0.q_proj.lora_A.default.weight"
    assert torch.equal(model.get_parameter(name), other.get_parameter(name))


def test_an_adapter_loads_again_merged(model: LlavaModel, tiny_folder: Path, tmp_path: Path):
    spec = read_spec(tiny_folder)
    folder = save_adapter(moved(model), tmp_path / "a", spec=spec, settings=SETTINGS)
    assert {path.name for path in folder.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "config.json",
        "non_lora_trainables.bin",
    }
    again = loaded(folder)
    assert (logits(again) - logits(model)).abs().max() <= 1e-4
    assert (logits(again) - logits(loaded(tiny_folder))).abs().max() > 0.1
    for name in ("projector.linear1.weight", "projector.linear2.bias"):
        assert torch.equal(again.get_parameter(name), model.get_parameter(name))
    # W + (alpha / r) B A, by hand; alpha times would be four times as much.
    name = "language_model.layers.1.down_proj"
    base = loaded(tiny_folder).get_parameter(f"{name}.weight")
    down, up = (model.get_parameter(f"{name}.lora_{side}.default.weight") for side in "AB")
    assert torch.allclose(again.get_parameter(f"{name}.weight"), base + 2 * up @ down, atol=1e-5)
    stored = load_file(folder / "adapter_model.safetensors")
    assert "base_model.model.model.layers.1.mlp.down_proj.lora_A.weight" in stored
    told = read_header(folder / "adapter_model.safetensors").notes[TRAINED_OVER]
    weights, digest, dtypes = told.split(" ")
    assert (weights, len(digest), dtypes) == ("plain", 64, "F32")
    values = json.loads((folder / "adapter_config.json").read_text())
    assert (values["r"], values["lora_alpha"]) == (4, 8)
    with pytest.raises(ConfigError, match="over another"):
        check_base(read_spec(folder))


def test_the_base_is_what_was_read_and_no_folder_of_its_name(
    model: LlavaModel, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(tiny_folder, tmp_path / "demo")
    monkeypatch.chdir(tmp_path)

    def base_of(spec: ModelSpec, target: str) -> str:
        folder = save_adapter(model, tmp_path / target, spec=spec, settings=SETTINGS)
        values = json.loads((folder / "adapter_config.json").read_text())
        return str(values["base_model_name_or_path"])

    packaged = replace(read_spec(tiny_folder), name="demo")  # read from elsewhere
    assert base_of(packaged, "a") == "demo"
    assert base_of(read_spec(Path("demo")), "b") == str(tmp_path / "demo")


def test_nothing_to_save_is_refused(tiny_folder: Path, tmp_path: Path):
    with pytest.raises(CheckpointError, match="no low-rank"):
        save_adapter(
            loaded(tiny_folder), tmp_path / "a", spec=read_spec(tiny_folder), settings=SETTINGS
        )


def test_a_stage_of_low_rank_changes(tiny_folder: Path, tmp_path: Path, data_file: Path):
    values: dict[str, Any] = {
        "model": str(tiny_folder),
        "output": str(tmp_path / "run"),
        "learn": ["projector"],
        "learning_rate": 1e-2,
        "part_rates": {"projector": 1e-3},
        "batch_size": 3,
        "lora": {"r": 4, "alpha": 8, "dropout": 0.1},
        "layouts": ["original", "hf"],
        "data": {"sources": [{"path": str(data_file)}], "max_frames": 2, "num_workers": 0},
    }
    done = train(from_mapping(StageSettings, values))
    assert set(done.folders) == {"original", "hf", "adapter"}
    made = {name: loaded(folder) for name, folder in done.folders.items()}
    base = dict(loaded(tiny_folder).named_parameters())
    assert dict(made["original"].named_parameters()).keys() == base.keys()
    for name, parameter in made["adapter"].named_parameters():
        for layout in ("original", "hf"):
            assert torch.equal(parameter, made[layout].get_parameter(name)), name
    different = {n for n, p in made["adapter"].named_parameters() if not torch.equal(p, base[n])}
    assert {name.split(".")[-2] for name in different if "language_model" in name} == {
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    }
    assert not any(name.startswith("vision_tower") or "norm" in name for name in different)


def test_a_tower_and_a_dtype_that_are_given_are_merged_too(
    shared: Path, tmp_path: Path, data_file: Path
):
    """The base names a tower that is nowhere; the one that is given stands in the result."""
    family = shared / "golden" / "family"
    base = Path(shutil.copytree(family / "llava-v1.5-tiny", tmp_path / "llava-v1.5-tiny"))
    texts = tmp_path / "texts.json"
    texts.write_text(json.dumps(json.loads(data_file.read_text())[:1]))
    values: dict[str, Any] = {
        "model": str(base),
        "vision_tower": str(family / "openai" / "clip-tiny-patch14-336"),
        "output": str(tmp_path / "run"),
        "learn": [],
        "max_steps": 1,
        "dtype": "bfloat16",
        "lora": {"r": 2, "alpha": 4},
        "data": {"sources": [{"path": str(texts)}], "num_workers": 0},
    }
    done = train(from_mapping(StageSettings, values))
    stored = load_file(done.folders["original"] / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    tower = load_file(Path(values["vision_tower"]) / "model.safetensors")
    name = "vision_model.encoder.layers.0.mlp.fc1.weight"
    taken = stored[f"model.vision_tower.vision_tower.{name}"]
    assert torch.equal(taken, tower[name].bfloat16())
    kept = read_model_config(done.folders["original"])
    assert kept.values["mm_vision_tower"] == "openai/clip-tiny-patch14-336"


def test_an_adapter_of_captions_keeps_the_models_template(
    tiny_folder: Path, tmp_path: Path, data_file: Path
):
    captions = data_file.parent / "lora_captions.json"
    captions.write_text(json.dumps([json.loads(data_file.read_text())[2]]))
    values: dict[str, Any] = {
        "model": str(tiny_folder),
        "output": str(tmp_path / "run"),
        "learn": ["projector"],
        "template": "plain",
        "max_steps": 1,
        "lora": {"r": 2, "alpha": 4},
        "data": {"sources": [{"path": str(captions)}], "num_workers": 0},
    }
    done = train(from_mapping(StageSettings, values))
    own = read_model_config(tiny_folder).template
    assert own != "plain"
    assert {read_model_config(folder).template for folder in done.folders.values()} == {own}


def test_an_adapter_says_that_a_tower_is_there_where_it_learned(
    model: LlavaModel, tiny_folder: Path, tmp_path: Path
):
    spec = read_spec(tiny_folder)
    values = {n: v for n, v in spec.config.values.items() if n != "unfreeze_mm_vision_tower"}
    spec = replace(spec, config=replace(spec.config, values=values))

    def told(target: str) -> object:
        folder = save_adapter(model, tmp_path / target, spec=spec, settings=SETTINGS)
        return json.loads((folder / "config.json").read_text()).get("unfreeze_mm_vision_tower")

    assert told("a") is None
    for parameter in model.vision_tower.parameters():
        parameter.requires_grad = True
    assert told("b") is True


def test_placeholders_are_no_adapter(model: LlavaModel, tiny_folder: Path, tmp_path: Path):
    model.get_parameter("projector.linear1.weight").data = torch.empty(0)
    with pytest.raises(CheckpointError, match=r"projector\.linear1\.weight holds no numbers"):
        save_adapter(model, tmp_path / "a", spec=read_spec(tiny_folder), settings=SETTINGS)
    assert not (tmp_path / "a").exists()


def test_they_learn_at_the_stages_rate(model: LlavaModel):
    values = {
        "model": "m",
        "output": "o",
        "learn": ["projector"],
        "part_rates": {"projector": 1e-5},
    }
    stage = from_mapping(
        StageSettings, {**values, "learning_rate": 1e-4, "data": {"sources": [{"path": "d"}]}}
    )
    compute_again(model)
    found = {group["name"]: group["lr"] for group in parameter_groups(model, stage)}
    assert found == {
        "language_model, decayed": 1e-4,
        "projector, decayed": 1e-5,
        "projector, not decayed": 1e-5,
    }
