"""What a GPU's driver says is averaged over the seconds; where nobody says it, nothing is."""

import pytest
import torch

from llava_video.archive import device_use
from llava_video.archive.device_use import DeviceUse


def test_without_a_gpu_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert DeviceUse().mean() is None


def test_without_the_package_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device_use, "version", lambda _: None)
    assert DeviceUse().mean() is None


def test_the_mean_of_the_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, said = [0.0], [100, 50, 0, 90]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device_use, "version", lambda _: "13")
    monkeypatch.setattr(torch.cuda, "utilization", lambda: said.pop(0))
    monkeypatch.setattr(device_use.time, "monotonic", lambda: now_s[0])
    use = DeviceUse()
    assert use.mean() == 1.0
    now_s[0] = 0.9
    assert use.mean() == 1.0  # not asked again within a second
    now_s[0] = 2.0
    assert use.mean() == 0.75
    now_s[0] = 3.5
    assert use.mean() == 0.5


def test_a_driver_that_does_not_count_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def refuse() -> int:
        asked.append(1)
        raise RuntimeError("not supported")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device_use, "version", lambda _: "13")
    monkeypatch.setattr(torch.cuda, "utilization", refuse)
    monkeypatch.setattr(device_use, "_EVERY_S", 0.0)
    use = DeviceUse()
    assert (use.mean(), use.mean(), len(asked)) == (None, None, 1)


@pytest.mark.gpu
def test_a_gpu_says_a_share() -> None:
    mean = DeviceUse().mean()
    assert mean is None or 0.0 <= mean <= 1.0
