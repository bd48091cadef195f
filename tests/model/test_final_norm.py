"""The size of the last norm is read from either kind of file, in every dtype, without torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from llava_video.model.final_norm import final_norm_size

NUMBERS = torch.tensor([0.5, -1.5, 2.0, -1.0])  # mean size 1.25; the mean itself is 0
OTHERS = {"model.layers.0.input_layernorm.weight": torch.zeros(4), "a.b": torch.ones(3, 5)}


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str
)
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_the_mean_of_the_absolute_numbers(tmp_path: Path, dtype: torch.dtype, suffix: str):
    tensors = {**OTHERS, "model.norm.weight": NUMBERS.to(dtype)}
    if suffix == "bin":
        torch.save(tensors, tmp_path / "pytorch_model.bin")
    else:
        save_file(tensors, tmp_path / "model.safetensors")
    assert final_norm_size(tmp_path) == 1.25


@pytest.mark.parametrize(
    "name", ["language_model.model.norm.weight", "model.language_model.norm.weight"]
)
def test_found_in_whichever_shard_and_spelling(tmp_path: Path, name: str):
    shards = {"model-1.safetensors": {name: NUMBERS}, "model-2.safetensors": OTHERS}
    for file, tensors in shards.items():
        save_file(tensors, tmp_path / file)
    weight_map = {one: file for file, tensors in shards.items() for one in tensors}
    index = json.dumps({"weight_map": weight_map})
    (tmp_path / "model.safetensors.index.json").write_text(index)
    assert final_norm_size(tmp_path) == 1.25
    (tmp_path / "model-1.safetensors").unlink()
    assert final_norm_size(tmp_path) is None  # not all here


def test_nothing_to_read(tmp_path: Path):
    assert final_norm_size(tmp_path) is None
    save_file(OTHERS, tmp_path / "model.safetensors")
    assert final_norm_size(tmp_path) is None
    save_file({"model.norm.weight": torch.ones(4).long()}, tmp_path / "model.safetensors")
    assert final_norm_size(tmp_path) is None
    (tmp_path / "model.safetensors").write_bytes(b"cut off")
    assert final_norm_size(tmp_path) is None


def test_safetensors_need_no_torch(tmp_path: Path):
    save_file({"model.norm.weight": NUMBERS.bfloat16()}, tmp_path / "model.safetensors")
    code = (
        "import sys; from pathlib import Path\n"
        "from llava_video.model.final_norm import final_norm_size\n"
        "assert final_norm_size(Path(sys.argv[1])) == 1.25\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
