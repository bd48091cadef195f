"""How much memory does training low-rank changes take over a plain, int8 or int4 decoder (QLoRA)?

Memory bound: the decoder is frozen and only read. A process for each format loads the same seeded
checkpoint of the 0.5B's decoder shape, puts changes of rank 8 beside its linear layers and takes
two steps over 480 tokens of text, layers computed again; one thread, float32. Good: the decoder's
weights take what the integers alone do, and the peak falls by no less than the weights do.

    python benchmarks/lora_memory.py [--append] [--check]
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import parser_of, peak_rss_bytes, report, rss_bytes

FORMATS = ("plain", "int8", "int4")
_SHAPE = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_layers": 24,
    "num_heads": 14,
    "num_kv_heads": 2,
    "dtype": "bfloat16",
}
_NUM_STEPS = 2
_NUM_TOKENS = 480


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, a process for each format, print, and return 1 where the target is missed."""
    parser = parser_of(__doc__)
    parser.add_argument("--child", nargs=2, metavar=("FORMAT", "FOLDER"), help="what one runs")
    asked = parser.parse_args(arguments)
    if asked.child:
        print(json.dumps(_measured(*asked.child)))
        return 0
    from llava_video.model.tiny import write_tiny_checkpoint

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        write_tiny_checkpoint(folder, **({} if asked.check else _SHAPE))
        found = {each: _in_a_process(each, folder) for each in FORMATS}
    for each, own in found.items():
        print(
            f"{each:6} decoder {own['decoder_bytes'] / 1e6:8.1f} MB   loaded "
            f"{own['loaded_bytes'] / 1e6:7.0f}   peak {own['peak_bytes'] / 1e6:7.0f}   "
            f"step {own['step_s']:6.2f} s"
        )
    saved = [_less(found, each, "peak_bytes") >= _less(found, each, "decoder_bytes")
             for each in FORMATS[1:]]  # fmt: skip
    report("lora_memory", {"formats": found, "is_small": all(saved)}, append=asked.append)
    return 0 if asked.check or all(saved) else 1


def _less(found: dict[str, dict[str, Any]], each: str, key: str) -> int:
    return int(found["plain"][key] - found[each][key])


def _in_a_process(weights: str, folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, __file__, "--child", weights, str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    values: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return values


def _measured(weights: Any, folder: str) -> dict[str, Any]:
    """Return the bytes of the decoder's weights and of the process, and the last step's time."""
    import torch

    from llava_video.model.checkpoint import load_model
    from llava_video.model.model_config import read_model_config
    from llava_video.train.forward import Example, TrainingModel, pack
    from llava_video.train.lora import add_lora
    from llava_video.train.parts import compute_again, set_learning
    from llava_video.train.settings import LoraSettings

    config = read_model_config(Path(folder))
    model = load_model(folder, config=config, device="cpu", dtype=torch.float32, weights=weights)
    loaded_bytes = rss_bytes()
    layers = model.language_model.layers
    held = [*layers.parameters(), *layers.buffers()]
    set_learning(model, ["projector"])
    add_lora(model, LoraSettings(r=8, alpha=16, dropout=0.0), 0)
    compute_again(model)
    ids = tuple(10 + idx % 240 for idx in range(_NUM_TOKENS))
    px = config.vision.image_px
    batch = pack([Example(ids=ids, labels=ids, plans=(), tiles=torch.zeros(0, 3, px, px))])
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser, step_s = torch.optim.AdamW(learning, lr=1e-4), 0.0
    for _ in range(_NUM_STEPS):
        before_s = time.perf_counter()
        optimiser.zero_grad()
        TrainingModel(model)(**batch)["loss"].backward()
        optimiser.step()
        step_s = time.perf_counter() - before_s
    return {
        "decoder_bytes": sum(tensor.nbytes for tensor in held),
        "loaded_bytes": loaded_bytes,
        "peak_bytes": peak_rss_bytes(),
        "step_s": round(step_s, 2),
    }


if __name__ == "__main__":
    sys.exit(main())
