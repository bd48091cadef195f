"""Low-rank changes over a quantised decoder (QLoRA): their gradients, their memory, their model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_runs import logits_of
from safetensors import safe_open
from seeded_models import video_plan

from llava_video.api import load
from llava_video.config import from_mapping, read_yaml
from llava_video.errors import CheckpointError
from llava_video.model.checkpoint import load_model
from llava_video.model.convert import convert_checkpoint
from llava_video.model.known_files import find_record
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import parse_model_config, read_model_config
from llava_video.model.quantize import QuantLinear, format_of, quantise_decoder
from llava_video.model.spec import read_spec
from llava_video.model.tiny import write_tiny_checkpoint
from llava_video.train import run
from llava_video.train.forward import Batch, Example, TrainingModel, pack
from llava_video.train.lora import add_lora, save_adapter
from llava_video.train.parts import compute_again, parameter_groups, set_learning
from llava_video.train.settings import LoraSettings, StageSettings
from llava_video.train.trainer import training_arguments

peft = pytest.importorskip("peft")
# Not every layer is changed: the others are quantised too.
SETTINGS = LoraSettings(r=4, alpha=8, dropout=0.0, modules=("q_proj", "o_proj", "down_proj"))
FORMATS = ["int8", "int4"]


def loaded(folder: Path, weights: str = "plain") -> LlavaModel:
    config = read_model_config(folder)
    return load_model(folder, config=config, device="cpu", dtype=torch.float32, weights=weights)


def with_changes(model: LlavaModel) -> LlavaModel:
    """Let projector and low-rank changes learn, the latter away from where they begin."""
    set_learning(model, ["projector"])
    add_lora(model, SETTINGS, seed=3)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    return model


def dequantised(folder: Path, weights: str) -> LlavaModel:
    """Load plain weights, the numbers that the integers of the decoder stand for."""
    plain, stored = loaded(folder), loaded(folder, weights)
    for name, module in stored.named_modules():
        if isinstance(module, QuantLinear):
            plain.get_submodule(name).weight.data = module.stored.plain(torch.float32)
    return plain


def batch_of(model: LlavaModel) -> Batch:
    """Pack a video with a question, and text alone, all of it learned."""
    draw = np.random.default_rng(0)
    ids = draw.integers(0, 250, 12).tolist()
    plan = video_plan(2, 2 * 2 * 3, crop=(0, 4, 0, 4), map_size=(2, 2))
    px = model.dimensions.vision.image_px
    tiles = torch.from_numpy(draw.standard_normal((2, 3, px, px), dtype=np.float32))
    seen = Example(ids=(*ids[:3], -200, *ids[3:]), labels=(*ids[:3], -100, *ids[3:]),
                   plans=(plan,), tiles=tiles)  # fmt: skip
    text = Example(ids=tuple(ids), labels=tuple(ids), plans=(), tiles=tiles[:0])
    return pack([seen, text])


def gradients(model: LlavaModel) -> dict[str, torch.Tensor]:
    TrainingModel(model)(**batch_of(model))["loss"].backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert all(gradient is not None for gradient in found.values())
    return found  # type: ignore[return-value]  # just checked


def farthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Return the largest difference of any tensor, over that tensor's largest number."""
    assert one.keys() == other.keys()
    return max(float((one[n] - other[n]).abs().max() / other[n].abs().max()) for n in other)


@pytest.mark.parametrize("weights", FORMATS)
def test_gradients_are_those_over_the_dequantised_weights(tiny_folder: Path, weights: str):
    own = with_changes(loaded(tiny_folder, weights))
    learning = [name for name, p in own.named_parameters() if p.requires_grad]
    assert sum(".lora_" in name for name in learning) == 2 * 2 * 3
    assert not any("base_layer" in name for name in learning)
    found = gradients(own)
    expected = gradients(with_changes(dequantised(tiny_folder, weights)))
    assert farthest(found, expected) <= 1e-5
    # Over the checkpoint's own numbers, or through them backward alone, they are others.
    plain = gradients(with_changes(loaded(tiny_folder)))
    assert farthest(plain, expected) > 1e-3
    again = with_changes(loaded(tiny_folder, weights))
    compute_again(again)
    assert farthest(gradients(again), expected) <= 1e-5


@pytest.mark.parametrize(
    ("weights", "num_bytes"),
    [
        # 64 -> 64 (q, o), 64 -> 32 (k, v), 64 -> 128 (gate, up), 128 -> 64 (down) are 36,864
        # numbers a layer; a scale of two bytes per output, 64 + 32 + 32 + 64 + 128 + 128 + 64.
        ("int8", 2 * (36_864 + 2 * 512)),
        # Half a byte a number; a scale and a zero per output and group of 64 or 128 inputs.
        ("int4", 2 * (36_864 // 2 + 4 * 512)),
    ],
)
def test_the_frozen_decoder_takes_the_bytes_of_its_integers(
    tiny_folder: Path, weights: str, num_bytes: int
):
    model = with_changes(loaded(tiny_folder, weights))
    layers = model.language_model.layers
    assert sum(buffer.nbytes for buffer in layers.buffers()) == num_bytes
    # Beside them stand norms, biases and the changes: no weight of two axes but theirs.
    wide = [n for n, p in layers.named_parameters() if p.dim() == 2 and ".lora_" not in n]
    assert wide == []

    kept: dict[int, torch.Tensor] = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.setdefault(tensor.data_ptr(), tensor), lambda tensor: tensor
    ):
        TrainingModel(model)(**batch_of(model))
    own = {parameter.data_ptr() for parameter in model.parameters()}
    made = [t.shape for ptr, t in kept.items() if ptr not in own and t.is_floating_point()]
    assert len(made) > 10
    # The rows are 36: what has two axes of layers' widths would be a weight made plain.
    assert [shape for shape in made if len(shape) == 2 and min(shape) >= 64] == []


def stage_of(folder: Path, data_file: Path, output: Path, **changes: Any) -> StageSettings:
    values: dict[str, Any] = {
        "model": str(folder),
        "output": str(output),
        "learn": ["projector"],
        "learning_rate": 1e-2,
        "batch_size": 3,
        "lora": {"r": 4, "alpha": 8, "dropout": 0.1},
        "data": {"sources": [{"path": str(data_file)}], "max_frames": 2, "num_workers": 0},
    }
    return from_mapping(StageSettings, {**values, **changes})


@pytest.mark.parametrize("weights", FORMATS)
def test_a_stage_over_integers_loads_again_as_it_was_trained(
    tiny_folder: Path,
    tmp_path: Path,
    data_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    weights: str,
):
    trained: list[LlavaModel] = []

    def kept(model: LlavaModel, *given: Any, **named: Any) -> Path:
        trained.append(model.eval())
        return save_adapter(model, *given, **named)

    monkeypatch.setattr(run, "save_adapter", kept)
    stage = stage_of(tiny_folder, data_file, tmp_path / "run", quantize=weights, log_every=1)
    done = run.train(stage)
    assert set(done.folders) == {"original", "adapter"}
    ids = torch.arange(40, 64)

    def logits(model: LlavaModel) -> torch.Tensor:
        return logits_of(model, model.language_model.embed(ids))

    expected = logits(trained[0])
    assert format_of(trained[0]) == weights
    with load(
        tiny_folder, adapter=done.folders["adapter"], quantize=weights, device="cpu"
    ) as beside:
        model = beside.engine._tools.model  # type: ignore[attr-defined]  # the scheduler's
        assert format_of(model) == weights
        assert (logits(model) - expected).abs().max() <= 1e-5 * expected.abs().max()
    # Merged, it is over the numbers that the integers stand for: in one folder, and as it loads.
    made = convert_checkpoint(done.folders["adapter"], tmp_path / "again", layout="original")
    assert any(f"trained over {weights} weights" in note for note in made.notes)
    merged = loaded(done.folders["original"])
    assert torch.equal(logits(loaded(made.folder)), logits(merged))
    assert (logits(merged) - expected).abs().max() <= 1e-4 * expected.abs().max()
    with load(tiny_folder, adapter=done.folders["adapter"], quantize=None, device="cpu") as plain:
        own = plain.engine._tools.model  # type: ignore[attr-defined]  # the scheduler's
        assert (logits(own) - expected).abs().max() <= 1e-4 * expected.abs().max()
        assert plain.spec.setup.reasons[-1].startswith(f"The adapter was trained over {weights} w")
    assert (logits(loaded(tiny_folder)) - expected).abs().max() > 0.01 * expected.abs().max()


def test_the_adapter_tells_its_base(tiny_folder: Path, tmp_path: Path):
    model = with_changes(loaded(tiny_folder, "int4"))
    spec = read_spec(tiny_folder)
    folder = save_adapter(model, tmp_path / "a", spec=spec, settings=SETTINGS)
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        weights, digest, dtypes = file.metadata()["trained_over"].split()
    assert (weights, len(digest), dtypes) == ("int4", 64, "F32")
    # PEFT reads it as one of its own.
    assert peft.LoraConfig.from_pretrained(folder).r == 4
    other = write_tiny_checkpoint(tmp_path / "other", seed=1)
    with pytest.raises(CheckpointError, match="trained over other numbers"):
        load(other, adapter=folder, device="cpu")


def test_the_real_stage_dry(project: Path):
    """The 7B of its configuration, without memory: what is frozen as what, and what learns."""
    stage = read_yaml(StageSettings, project / "configs" / "train" / "llava_video_qlora.yaml")
    assert (stage.quantize, stage.learn, stage.deepspeed) == ("int4", ("projector",), None)
    assert training_arguments(stage, bf16=True).gradient_accumulation_steps == 16
    assert stage.lora is not None
    record = find_record(stage.model)
    assert record is not None
    config = parse_model_config(record.values)
    with torch.device("meta"):
        model = LlavaModel(config.dimensions)
        quantise_decoder(model, stage.quantize)
        set_learning(model, stage.learn)
        add_lora(model, stage.lora, stage.seed)
    sizes = {group["name"]: sum(p.numel() for p in group["params"])
             for group in parameter_groups(model, stage)}  # fmt: skip
    # 64 (in + out) of q and o (3584 both), k and v (to 512), gate, up and down (to 18,944).
    a_layer = 2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18_944)
    assert sizes == {
        "language_model, decayed": 28 * 64 * a_layer,
        "projector, decayed": 1152 * 3584 + 3584 * 3584,
        "projector, not decayed": 2 * 3584,
    }
    codes = sum(m.stored.num_bytes for m in model.modules() if isinstance(m, QuantLinear))
    numbers = 28 * (2 * 3584**2 + 2 * 3584 * 512 + 3 * 3584 * 18_944)
    assert codes == numbers // 2 + numbers // 128 * 4  # 3.47 GB, 13.05 in bfloat16


class KilledError(Exception):
    """Stands for the end of a process."""


@pytest.mark.parametrize("bf16", [False, True])
def test_a_killed_stage_over_integers_goes_on_bit_for_bit(
    tiny_folder: Path, tmp_path: Path, data_file: Path, bf16: bool
):
    asked = {"quantize": "int4", "bf16": bf16, "log_every": 1, "save_every": 1, "epochs": 2}
    whole = run.train(stage_of(tiny_folder, data_file, tmp_path / "whole", **asked))
    stage = stage_of(tiny_folder, data_file, tmp_path / "killed", **asked)

    def kill(line: Any) -> None:
        if line["step"] == 3:
            raise KilledError

    with pytest.raises(KilledError):
        run.train(stage, kill)
    done = run.train(stage)
    assert (done.resumed_from, done.num_steps) == (2, 4)
    for name in ("adapter_model.safetensors", "non_lora_trainables.bin"):
        files = [one.folders["adapter"] / name for one in (whole, done)]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert done.loss == whole.loss
