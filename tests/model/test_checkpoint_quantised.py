"""Loading with quantised weights: from the files' own numbers, without a plain copy of them all."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava_video.errors import CheckpointError, ConfigError
from llava_video.model import quantize
from llava_video.model.checkpoint import load_model, save_model
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import parse_model_config, read_model_config
from llava_video.model.placement import weights_bytes
from llava_video.model.quantize import QuantLinear, format_of
from llava_video.model.tiny import write_tiny_checkpoint
from llava_video.ops.weight_format import quantise_weight

FORMATS = ["int8", "int4"]
SINGLE = "model.safetensors"


def load(folder: Path, weights: str, **options: object) -> LlavaModel:
    options = {"device": "cpu", "config": read_model_config(folder), **options}
    return load_model(folder, weights=weights, **options)


@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_quantised_from_the_numbers_in_the_file(
    tiny_folder: Path, weight_format, dtype: torch.dtype
):
    """Not from numbers rounded to the model's dtype first."""
    stored = load_file(tiny_folder / SINGLE)
    model = load(tiny_folder, weight_format, dtype=dtype)
    assert format_of(model) == weight_format
    assert model.dtype is dtype
    for part, name in (("self_attn.k_proj", "k_proj"), ("mlp.down_proj", "down_proj")):
        layer = getattr(model.language_model.layers[1], name)
        expected = quantise_weight(stored[f"model.layers.1.{part}.weight"], weight_format)
        assert torch.equal(layer.stored.codes, expected.codes)
        assert torch.equal(layer.stored.scales, expected.scales)


def test_rounding_to_the_models_dtype_first_would_be_seen(tiny_folder: Path):
    stored = load_file(tiny_folder / SINGLE)["model.layers.1.mlp.down_proj.weight"]
    rounded = quantise_weight(stored.bfloat16(), "int8")
    assert not torch.equal(rounded.codes, quantise_weight(stored, "int8").codes)


@pytest.mark.parametrize("weight_format", FORMATS)
def test_everything_else_is_loaded_as_ever(tiny_folder: Path, weight_format):
    plain = dict(load(tiny_folder, "plain").named_parameters())
    model = load(tiny_folder, weight_format)
    kept = dict(model.named_parameters())
    gone = {name for name in plain if name not in kept}
    assert len(gone) == 2 * 7
    assert all(".layers." in name and name.endswith("proj.weight") for name in gone)
    assert all(torch.equal(kept[name], plain[name]) for name in kept)
    assert not any(tensor.is_meta for tensor in (*kept.values(), *model.buffers()))
    assert not model.training


def test_a_tied_checkpoint_in_the_other_layout(tmp_path: Path):
    folder = write_tiny_checkpoint(tmp_path / "t", layout="hf", tie_embeddings=True, num_shards=3)
    model = load(folder, "int4")
    assert model.language_model.lm_head is None
    assert model.language_model.embed_tokens.weight.dtype is torch.float32


def test_a_weight_that_is_not_finite_is_named(tiny_folder: Path, tmp_path: Path):
    folder = shutil.copytree(tiny_folder, tmp_path / "broken")
    stored = load_file(folder / SINGLE)
    stored["model.layers.0.mlp.up_proj.weight"][3, 5] = torch.nan
    save_file(stored, folder / SINGLE)
    with pytest.raises(CheckpointError, match=r"layers\.0\.up_proj\.weight cannot be") as caught:
        load(folder, "int8")
    assert "plain weights" in caught.value.hint


def test_an_unknown_format_is_refused_before_anything_is_read(tiny_folder: Path):
    with pytest.raises(ConfigError, match="weights = 'fp8'"):
        load(tiny_folder, "fp8")


def test_a_quantised_model_is_not_saved(tiny_folder: Path, tmp_path: Path):
    model = load(tiny_folder, "int8")
    with pytest.raises(CheckpointError, match="stored as int8") as caught:
        save_model(model, tmp_path / "new", config=read_model_config(tiny_folder))
    assert "plain weights" in caught.value.hint
    assert not (tmp_path / "new").exists()


def test_torchao_can_be_asked_for(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(
        quantize,
        "_choose_kernel",
        lambda _, dtype, kernel: asked.append((dtype, kernel)) or "torch",
    )
    load(tiny_folder, "int4", weight_kernel="torchao", dtype=torch.bfloat16)
    assert set(asked) == {(torch.bfloat16, "torchao")}


# Peak resident memory of one load, in a process of its own. "plain first" is the obvious loader:
# load the model, then quantise it layer by layer.
MEASURE = """
import sys
from pathlib import Path
import torch
from llava_video.model.checkpoint import load_model
from llava_video.model.model_config import read_model_config
from llava_video.ops.weight_format import quantise_weight

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

folder, how, weights = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.set_num_threads(1)
tiny = sys.argv[4]
load_model(tiny, config=read_model_config(tiny), device="cpu", weights=weights)  # warm up
config = read_model_config(folder)
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
before = status("VmRSS")
if how == "shard by shard":
    model = load_model(folder, config=config, device="cpu", weights=weights)
else:
    plain = load_model(folder, config=config, device="cpu")
    kept = [quantise_weight(p, weights) for p in plain.language_model.layers.parameters()
            if p.dim() == 2]
print(status("VmHWM") - before)
"""


@pytest.fixture(scope="module")
def large_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 250 MB of bfloat16 in eight shards, as fast as weights can be written."""
    folder = tmp_path_factory.mktemp("large")
    tiny = write_tiny_checkpoint(folder / "tiny")
    values = json.loads((tiny / "config.json").read_text())
    values |= {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}
    values |= {"num_key_value_heads": 4, "num_hidden_layers": 8, "vocab_size": 512}
    values |= {"torch_dtype": "bfloat16"}
    config = parse_model_config(values)
    with torch.device("meta"):
        model = LlavaModel(config.dimensions)
    model = model.to_empty(device="cpu").bfloat16()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.5)
    return save_model(model, folder / "large", config=config, shard_bytes=36_000_000)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("weight_format", [pytest.param("int8", marks=pytest.mark.slow), "int4"])
def test_loading_peaks_at_the_quantised_weights_and_one_shard(
    large_folder: Path, tiny_folder: Path, weight_format
):
    files = [path.stat().st_size for path in large_folder.glob("*.safetensors")]
    with torch.device("meta"):
        model = LlavaModel(read_model_config(large_folder).dimensions)
        quantize.quantise_decoder(model, weight_format)
    kept_bytes = weights_bytes(model, torch.bfloat16)
    limit_bytes = 1.1 * kept_bytes + max(files)
    assert len(files) >= 6
    assert any(isinstance(layer, QuantLinear) for layer in model.modules())

    def peak_bytes(how: str) -> int:
        arguments = [str(large_folder), how, weight_format, str(tiny_folder)]
        run = [sys.executable, "-c", MEASURE, *arguments]
        return int(subprocess.run(run, capture_output=True, text=True, check=True).stdout)

    assert peak_bytes("shard by shard") <= limit_bytes
    assert peak_bytes("plain first") > limit_bytes
