"""How a watch ended is a number that a service can go by."""

from typing import Any

import pytest

from llava_video.monitor.summary import WatchSummary, is_unanswered


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        ({}, 0),
        ({"windows": {"failed": 2, "asked": 1}}, 0),
        ({"windows": {"failed": 2, "idle": 9}}, 1),
        ({"windows": {"failed": 2}, "held": 1}, 1),
        ({"held": 1}, 3),
        ({"errors": {"gate": "refused"}}, 3),
        ({"errors": {"gate": "refused", "yard": "refused"}}, 1),
    ],
)
def test_the_status(facts: dict[str, Any], status: int) -> None:
    plain = {"windows": {}, "alerts": 0, "waiting": {}, "held": 0, "errors": {}}
    summary = WatchSummary(**plain | facts, num_cameras=2, is_stopped=False)
    assert summary.exit_status == status


@pytest.mark.parametrize(
    ("windows", "is_so"),
    [({}, False), ({"idle": 3}, False), ({"failed": 1}, True), ({"failed": 9, "asked": 1}, False)],
)
def test_windows_without_any_answer(windows: dict[str, int], is_so: bool) -> None:
    assert is_unanswered(windows) == is_so
