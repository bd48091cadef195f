"""A place of work waits for another try where one may help, and not when it is to finish."""

import time
from pathlib import Path
from typing import Any

import pytest
from archive_runs import slow_model
from archive_units import unit_of

from llava_video.archive.settings import ArchiveSettings
from llava_video.archive.work import Outcome, Worker
from llava_video.archive.workplace import Workplace
from llava_video.video.sandbox import DecoderPool
from llava_video.video.settings import SandboxSettings


def place_of(folder: Path, options: dict[str, Any] | None = None, **settings: Any) -> Workplace:
    return Workplace(slow_model(folder, 0.0), ArchiveSettings(**settings), options or {})


@pytest.mark.parametrize(("attempts", "waits"), [(3, True), (1, False)])
def test_it_waits_before_another_try(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, attempts: int, waits: bool
) -> None:
    monkeypatch.setattr(Worker, "work", lambda _, unit: Outcome(unit=unit, may_pass=True))
    place = place_of(tiny_folder, sandbox=False, attempts=attempts, retry_wait_s=0.2)
    began_s = time.monotonic()
    place.work(unit_of(0))
    assert (time.monotonic() - began_s >= 0.2) is waits
    place.finish()
    long = place_of(tiny_folder, sandbox=False, retry_wait_s=60.0)
    long.finish()
    long.work(unit_of(0))
    assert time.monotonic() - began_s < 30.0


@pytest.mark.parametrize(
    ("settings", "options", "kind"),
    [
        ({}, {}, DecoderPool),
        ({"in_flight": 3}, {"sandbox": SandboxSettings(max_read_bytes=9)}, DecoderPool),
        ({"sandbox": False}, {}, bool),
        ({}, {"sandbox": False}, bool),
        ({"task": "timeline"}, {}, SandboxSettings),
    ],
)
def test_how_videos_are_read(
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    options: dict[str, Any],
    kind: type,
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(
        "llava_video.archive.workplace.Worker", lambda *given, **_: seen.append(given[2]["sandbox"])
    )
    place_of(tiny_folder, options, **settings).close()
    assert isinstance(seen[0], kind)


def test_what_decides_answers_is_known(tiny_folder: Path) -> None:
    place = place_of(tiny_folder, sandbox=False)
    assert (place.maker.model, place.facts["engine"]) == (str(tiny_folder), "OracleEngine")
    assert place.busy.device is None or 0.0 <= place.busy.device <= 1.0
