"""Raises alerts on a small disk of its own until it is full and beyond, and looks what is left.

A script that runs where a file system of memory may be mounted for itself alone: FOLDER. Prints one
JSON object.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from monitor_cases import person, said, watch

from llava_video.errors import LedgerError
from llava_video.monitor.alerts import AlertDesk
from llava_video.monitor.delivery import Couriers
from llava_video.monitor.evidence import RESERVE
from llava_video.monitor.rules import RuleState, decide
from llava_video.monitor.spool import Spool

DICE = np.random.default_rng(1)
FRAME = DICE.integers(0, 256, (200, 240, 3), np.uint8)  # noise, which no JPEG makes small
RULE = person()


class Watch:
    """One camera where somebody comes and goes."""

    def __init__(self, desk: AlertDesk) -> None:
        self.desk, self.state, self.at_s = desk, RuleState(), 1000.0
        self.raised: list[str] = []

    def see(self) -> None:
        """Somebody comes, and goes."""
        for word in ("yes", "no"):
            self.at_s += 1
            self.state, decision = decide(RULE, "gate", self.state, said(self.at_s, word))
            message = self.desk.take(RULE, self.state, decision, FRAME)
            self.raised += [message.id] if message else []


def stored(spool: Spool) -> list[str]:
    return [one.id for one in reversed(spool.messages(10**6))]


def fill(path: Path) -> None:
    """Take all room that is left, as somebody else's file does."""
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


def main(folder: Path, elsewhere: Path) -> dict[str, object]:
    """Fill the disk by evidence, then by somebody else, then make room."""
    found: dict[str, object] = {}
    log = {"name": "log", "kind": "jsonl", "path": str(elsewhere / "log.jsonl")}
    settings = watch(log, retention={"reserve_bytes": 300_000})
    now_s = [1000.0]
    with Spool(folder / "spool") as spool:
        desk = AlertDesk(spool, settings, clock=lambda: now_s[0])
        cam = Watch(desk)
        for _ in range(200):  # more pictures than the disk holds, none of them delivered
            now_s[0] += 1
            cam.see()
        files = desk.evidence.files()
        found["alerts stored"] = stored(spool) == cam.raised
        found["held with evidence to remove"] = desk.num_held
        found["evidence left"] = len(files)
        found["newest is there"] = files[-1].alert_id == cam.raised[-1].removesuffix("-alert")
        found["oldest is gone"] = files[0].alert_id != cam.raised[0].removesuffix("-alert")
        here = {path.name for path in desk.evidence.folder.iterdir()}
        found["files are those listed"] = {one.name for one in files} == here

        fill(folder / "theirs")
        for _ in range(100):
            now_s[0] += 1
            cam.see()
        found["stored or held"] = len(stored(spool)) + desk.num_held == len(cam.raised)
        before = len(stored(spool))
        found["more stored after their file"] = before > 200

        for number in range(100):  # until nothing goes any more
            fill(folder / f"theirs{number}")
            cam.see()
            if desk.num_held > 5:
                break
        found["held at last"] = desk.num_held > 5
        found["reserve was given"] = not (folder / "spool" / RESERVE).exists()
        found["all evidence was given"] = desk.evidence.num_bytes == 0
        held = [*stored(spool)]
        found["what was stored is in order"] = held == cam.raised[: len(held)]

        with Couriers(spool, settings.sinks, {}, desk.evidence.folder) as couriers:
            time.sleep(0.3)  # marks fail on the full disk, and no message is lost or stuck
            for path in folder.glob("theirs*"):
                path.unlink()
            desk.tend()
            couriers.wake()
            for _ in range(2000):
                if not spool.num_waiting():
                    break
                time.sleep(0.01)
        found["all stored at last"] = stored(spool) == cam.raised
        reserve = folder / "spool" / RESERVE
        found["reserve is back"] = reserve.exists() and reserve.stat().st_size == 300_000
        found["waiting"] = spool.num_waiting()
    ids = [json.loads(line)["id"] for line in (elsewhere / "log.jsonl").read_text().splitlines()]
    found["all delivered in order"] = list(dict.fromkeys(ids)) == cam.raised
    with Spool(folder / "spool") as spool:
        found["whole after all"] = spool._select("PRAGMA integrity_check") == [("ok",)]
    return found


if __name__ == "__main__":
    try:
        print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
    except LedgerError as error:
        print(json.dumps({"error": str(error)}))
        os._exit(1)
