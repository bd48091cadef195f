"""A worker takes a GPU of its own, in turn, among those that may be seen."""

import os

import pytest
import torch

from llava_video.archive.worker_process import take_own_gpu


@pytest.mark.parametrize(
    ("visible", "count", "number", "own"),
    [
        (None, 4, 0, "0"),
        (None, 4, 3, "3"),
        (None, 2, 5, "1"),
        ("2,5", 2, 1, "5"),
        ("GPU-aa,GPU-bb", 2, 2, "GPU-aa"),
        (None, 0, 1, None),
    ],
)
def test_gpus_are_shared_out(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, count: int, number: int, own: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")  # put back behind the test
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    take_own_gpu(number)
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == own
