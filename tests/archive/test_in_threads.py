"""Threads work one unit each and give their slots back."""

import time
from pathlib import Path

from archive_runs import QUESTION, slow_model, truth, write_clips

from llava_video.archive.content import content_hash
from llava_video.archive.in_threads import ThreadHands
from llava_video.archive.settings import ArchiveSettings
from llava_video.archive.unit import Item, Unit
from llava_video.archive.workplace import Workplace


def test_units_go_out_and_come_back(tiny_folder: Path, tmp_path: Path) -> None:
    settings = ArchiveSettings(task="ask", prompts=(QUESTION,), sandbox=False)
    place = Workplace(slow_model(tiny_folder, 0.05), settings, {"max_new_tokens": 64})
    hands = ThreadHands(place, 2)
    assert hands.take(0.0) is None
    for number, path in enumerate(write_clips(tmp_path, 2)):
        item = Item(number=number, address=str(path))
        slot = hands.free_slot()
        assert slot == f"worker {number}"
        unit = Unit(key=str(number), number=number, item=item, content_hash=content_hash(str(path)))
        hands.give(slot, unit)
    assert (hands.free_slot(), hands.num_held) == (None, 2)
    texts = {}
    until_s = time.monotonic() + 30
    while hands.num_held and time.monotonic() < until_s:
        if (taken := hands.take(1.0)) is not None and taken.outcome is not None:
            row = taken.outcome.row or {}
            texts[taken.outcome.unit.number] = row["answers"][0]["text"]
    assert texts == {0: truth(0), 1: truth(1)}
    assert {hands.free_slot()} <= {"worker 0", "worker 1"}
    assert 0.0 < hands.busy.engine <= 1.0
    hands.close()
