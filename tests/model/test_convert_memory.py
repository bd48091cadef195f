"""Converting takes one mapped file and one tensor, whatever the checkpoint weighs."""

import json
import subprocess
import sys
from pathlib import Path

import torch

from llava_video.model.checkpoint import save_model
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import parse_model_config
from llava_video.model.tiny import write_tiny_checkpoint

# Peak resident memory of one conversion, in a process of its own.
MEASURE = """
import sys
from pathlib import Path
import torch
from llava_video.model.convert import convert_checkpoint

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

source, target, tiny = map(Path, sys.argv[1:4])
torch.set_num_threads(1)
convert_checkpoint(tiny, target / "tiny", layout="hf")  # warm up
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
before = status("VmRSS")
dtype = getattr(torch, sys.argv[4])
convert_checkpoint(source, target / "large", layout="hf", dtype=dtype)
print(status("VmHWM") - before)
"""
SHARD_BYTES = 36_000_000
LARGEST_BYTES = 1024 * 4096 * 4  # a linear layer of the decoder


def write_large(folder: Path) -> Path:
    """Write 265 MB in nine shards, all ones."""
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
    return save_model(
        model, folder / "large", config=config, shard_bytes=SHARD_BYTES, tokenizer_from=tiny
    )


def test_one_file_and_one_tensor_are_held(tmp_path: Path) -> None:
    large = write_large(tmp_path)
    total_bytes = sum(path.stat().st_size for path in large.glob("*.safetensors"))
    assert total_bytes > 6 * SHARD_BYTES
    arguments = [large, tmp_path / "out", tmp_path / "tiny", "bfloat16"]
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, *arguments], capture_output=True, text=True, check=True
    )
    # The mapped source file, a tensor, and what it is converted to.
    assert int(run.stdout) <= SHARD_BYTES + 2 * LARGEST_BYTES + 8_000_000
