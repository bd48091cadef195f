"""Waits grow, are jittered, keep to what the server says, and end."""

import pytest

from llava_video.errors import ServerError
from llava_video.remote.faults import Fault
from llava_video.remote.patience import Patience
from llava_video.remote.settings import RemoteSettings

SETTINGS = RemoteSettings(retry_wait_s=1.0, max_retry_wait_s=8.0, retry_for_s=60.0)


class Clock:
    """A clock that goes when somebody waits."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def fault(**more: object) -> Fault:
    return Fault(ServerError("away"), **{"may_pass": True, **more})


def waits_of(dice: float, one: Fault, settings: RemoteSettings = SETTINGS) -> list[float]:
    clock, waits = Clock(), []
    patience = Patience(settings, now_s=clock, dice=lambda: dice)
    while (wait_s := patience.wait_s(one)) is not None:
        waits.append(wait_s)
        clock.now_s += wait_s
    return waits


def test_waits_double_up_to_the_longest_and_end() -> None:
    assert waits_of(1.0, fault()) == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0]  # 55 s of 60
    assert waits_of(0.0, fault())[:5] == [0.5, 1.0, 2.0, 4.0, 4.0]


def test_the_server_says_when() -> None:
    assert waits_of(1.0, fault(after_s=25.0)) == [25.0, 25.0]
    assert waits_of(1.0, fault(after_s=61.0)) == []


def test_what_does_not_pass_is_not_waited_for() -> None:
    assert waits_of(1.0, fault(may_pass=False)) == []
    assert waits_of(1.0, fault(most_tries=3)) == [1.0, 2.0]


def test_no_patience_is_one_try() -> None:
    assert waits_of(1.0, fault(), RemoteSettings(retry_for_s=0.0)) == []


def test_patience_of_days_does_not_overflow() -> None:
    settings = RemoteSettings(retry_for_s=1e5, max_retry_wait_s=10.0)
    waits = waits_of(1.0, fault(), settings)
    assert len(waits) > 9_000
    assert max(waits) == 10.0


def test_dice_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import random

    monkeypatch.setattr(random, "random", lambda: pytest.fail("a user's seed was spent"))
    assert 0.25 <= (Patience(RemoteSettings()).wait_s(fault()) or 0) <= 0.5
