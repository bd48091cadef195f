"""Loading takes the memory of the weights and one shard, not of the weights twice."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llava_video.model.checkpoint import save_model
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import parse_model_config
from llava_video.model.tiny import write_tiny_checkpoint

# Peak resident memory of one load, in a process of its own. "all at once" is the obvious loader:
# read every shard, then build the model from the dictionary. A delta is loaded over its base.
MEASURE = """
import sys
from pathlib import Path
import torch
from safetensors.torch import load_file
from llava_video.model.checkpoint import load_model
from llava_video.model.model_config import read_model_config
from llava_video.model.sources import Sources

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

folder, how, dtype = Path(sys.argv[1]), sys.argv[2], getattr(torch, sys.argv[3])
torch.set_num_threads(1)
load_model(Path(sys.argv[4]), config=read_model_config(sys.argv[4]), device="cpu")  # warm up
config = read_model_config(folder)
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
before = status("VmRSS")
if how == "shard by shard":
    if len(sys.argv) > 5:
        folder = Sources(kind="delta", folder=folder, base=Path(sys.argv[5]))
    model = load_model(folder, config=config, device="cpu", dtype=dtype)
else:
    open_file = {".safetensors": load_file, ".bin": torch.load}
    read = {
        name: tensor
        for path in sorted(folder.iterdir())
        if path.suffix in open_file
        for name, tensor in open_file[path.suffix](path).items()
    }
    model = {n: t.to(dtype, copy=True) for n, t in read.items()}
print(status("VmHWM") - before)
"""


def peak_bytes(folder: Path, tiny_folder: Path, how: str, dtype: str, *base: Path) -> int:
    arguments = [sys.executable, "-c", MEASURE, folder, how, dtype, tiny_folder, *base]
    run = subprocess.run(arguments, capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.fixture(scope="module")
def large_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 265 MB in nine shards, as fast as weights can be written: all ones."""
    folder = tmp_path_factory.mktemp("large")
    tiny = write_tiny_checkpoint(folder / "tiny")
    values = json.loads((tiny / "config.json").read_text())
    values |= {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}
    values |= {"num_key_value_heads": 4, "num_hidden_layers": 4, "vocab_size": 2048}
    config = parse_model_config(values)
    with torch.device("meta"):
        model = LlavaModel(config.dimensions)
    model = model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    return save_model(model, folder / "large", config=config, shard_bytes=36_000_000)


@pytest.fixture(scope="module")
def pickled_folder(large_folder: Path) -> Path:
    """Write the same shards as `.bin` files."""
    folder = large_folder.parent / "pickled"
    folder.mkdir()
    shutil.copy(large_folder / "config.json", folder)
    weight_map = {}
    for idx, path in enumerate(sorted(large_folder.glob("*.safetensors"))):
        tensors = load_file(path)
        name = f"pytorch_model-{idx:05}.bin"
        torch.save(tensors, folder / name)
        weight_map |= dict.fromkeys(tensors, name)
    index = json.dumps({"weight_map": weight_map})
    (folder / "pytorch_model.bin.index.json").write_text(index)
    return folder


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("kind", "suffix"), [("large_folder", "safetensors"), ("pickled_folder", "bin")]
)
def test_loading_peaks_at_the_weights_and_one_shard(
    request: pytest.FixtureRequest, tiny_folder: Path, dtype: str, kind: str, suffix: str
):
    folder: Path = request.getfixturevalue(kind)
    files = [path.stat().st_size for path in folder.glob(f"*.{suffix}")]
    kept_bytes = sum(files) * (1.0 if dtype == "float32" else 0.5)
    limit_bytes = 1.1 * kept_bytes + max(files)
    assert len(files) >= 6
    assert sum(files) > 200_000_000
    assert peak_bytes(folder, tiny_folder, "shard by shard", dtype) <= limit_bytes
    assert peak_bytes(folder, tiny_folder, "all at once", dtype) > limit_bytes


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's /proc")
def test_merging_adds_one_shard_of_the_base(large_folder: Path, tiny_folder: Path):
    """A delta and its base of the same size: twice the files, but not twice the memory."""
    files = [path.stat().st_size for path in large_folder.glob("*.safetensors")]
    limit_bytes = 1.1 * sum(files) + 2 * max(files)
    assert limit_bytes < 1.5 * sum(files)
    found_bytes = peak_bytes(large_folder, tiny_folder, "shard by shard", "float32", large_folder)
    assert found_bytes <= limit_bytes
