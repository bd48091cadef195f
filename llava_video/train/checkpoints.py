"""A run's folder → the checkpoint it goes on from, and whether these processes may."""

import json
from pathlib import Path
from typing import Final

from llava_video.errors import ConfigError

STATE: Final = "trainer_state.json"


def check_processes(num_gpus: int, num_processes: int, begun: Path | None = None) -> None:
    """See that a process has one GPU, and that a run goes on with as many processes as it had.

    With several GPUs, `Trainer` would wrap the model in `nn.DataParallel`, which cuts a batch's ids
    into as many pieces and leaves the plans and shares that belong to them whole. With other
    processes a step has another batch, and what was learned already would come again.

    Args:
        num_gpus: that this process sees.
        num_processes: of this run.
        begun: the checkpoint it goes on from.

    Raises:
        ConfigError: it has several GPUs, or the checkpoint is of other processes.
    """
    if num_gpus > 1:
        raise ConfigError(
            f"{num_gpus} GPUs and one process: training takes a process for each GPU.",
            f"torchrun --nproc-per-node {num_gpus} -m llava_video train …, or for one of them "
            "CUDA_VISIBLE_DEVICES=0.",
        )
    num_before = 0 if begun is None else len(list(begun.glob("rng_state*.pth")))
    if num_before not in (0, num_processes):
        raise ConfigError(
            f"{begun} was written by {num_before} processes, and this is a run of {num_processes}.",
            f"torchrun --nproc-per-node {num_before} -m llava_video train …, or another folder.",
        )


def last_checkpoint(folder: Path) -> Path | None:
    """Return the last checkpoint that was written to its end; its state comes last."""
    whole = [path for path in folder.glob("checkpoint-*") if _is_whole(path)]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _is_whole(path: Path) -> bool:
    try:
        json.loads((path / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True
