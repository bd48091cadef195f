"""What a run goes on from: a checkpoint that is whole, written by as many processes."""

from pathlib import Path

import pytest

from llava_video.errors import ConfigError
from llava_video.train.checkpoints import check_processes, last_checkpoint


@pytest.mark.parametrize("num_gpus", [0, 1])
def test_a_process_has_at_most_one_gpu(num_gpus: int):
    check_processes(num_gpus, 1)
    with pytest.raises(ConfigError, match="4 GPUs and one process") as caught:
        check_processes(4, 1)
    assert "torchrun --nproc-per-node 4" in str(caught.value)


def test_a_run_goes_on_with_as_many_processes_as_it_had(tmp_path: Path):
    check_processes(0, 2, tmp_path)
    for rank in range(2):
        (tmp_path / f"rng_state_{rank}.pth").touch()
    check_processes(0, 2, tmp_path)
    with pytest.raises(ConfigError, match="by 2 processes, and this is a run of 1") as caught:
        check_processes(0, 1, tmp_path)
    assert "torchrun --nproc-per-node 2" in str(caught.value)


def test_the_last_whole_checkpoint(tmp_path: Path):
    assert last_checkpoint(tmp_path) is None
    for step, state in ((9, "{}"), (10, "{}"), (11, '{"a":'), (12, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    # By number, not by name: "checkpoint-9" comes last among the names.
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
