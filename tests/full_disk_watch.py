"""Runs a whole watch on a small disk of its own that fills up and has room again.

A script that runs where a file system of memory may be mounted for itself alone: FOLDER ELSEWHERE.
Prints one JSON object.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from full_disk import fill
from watch_footage import START_S, FakeStreams

from llava_video.monitor.loop_settings import LoopSettings
from llava_video.monitor.questions import WindowAnswers, WindowFrames
from llava_video.monitor.rules import Observation, Rule
from llava_video.monitor.settings import WatchSettings, rules_of
from llava_video.monitor.summary import WatchSummary
from llava_video.monitor.watch import Asker, run_watch
from llava_video.video.stream_events import StreamFrame

NOISE = np.random.default_rng(1).integers(0, 256, (200, 240, 3), np.uint8)  # no JPEG makes it small


def ask(window: WindowFrames, rules: Sequence[Rule]) -> WindowAnswers:
    """Say whether the left is white."""
    value = "yes" if window.frames[-1][:, :8].mean() > 127 else "no"
    seen = {
        rule.name: Observation(
            start_s=window.start_s, at_s=window.end_s, value=value, confidence=0.9
        )
        for rule in rules
    }
    return WindowAnswers(observations=seen, num_asked=1, reused_tokens=0, seconds={})


class Footage:
    """Frames in which something comes and goes, while others fill the disk and make room.

    Args:
        folder: on the small disk.

    Attributes:
        notes: what the watch says.
        wanted: the number of each alert that is to be raised.
        num_full: of them, those that came while there was no room.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._second = folder, 0
        self.notes: list[str] = []
        self.wanted: list[int] = []
        self.num_full = 0

    def note(self, camera: str, text: str) -> None:
        """Take a word of the watch."""
        self.notes.append(camera + text)

    def event(self) -> Iterator[StreamFrame]:
        """It comes, and goes."""
        self.wanted.append(len(self.wanted) + 1)
        for level in (255, 0):
            yield self.frame(level)

    def frame(self, level: int) -> StreamFrame:
        """Draw the next second."""
        picture = NOISE.copy()
        picture[:, :8] = level
        second, self._second = self._second, self._second + 1
        return StreamFrame(
            idx=second, picture=picture, pts_s=float(second), wall_s=START_S + second
        )

    def fill(self) -> None:
        """Take all room."""
        fill(self._folder / f"theirs{self._second}")

    def __iter__(self) -> Iterator[StreamFrame]:
        """Play: room, none, and room again."""
        for _ in range(10):
            yield from self.event()
        while not any("memory" in note for note in self.notes):
            self.fill()
            yield from self.event()
        for _ in range(20):
            self.num_full += 1
            self.fill()
            yield from self.event()
        for path in self._folder.glob("theirs*"):
            path.unlink()
        while not any("room again" in note for note in self.notes):
            yield self.frame(0)
        for _ in range(10):
            yield from self.event()
        yield self.frame(0)

    def to_a_full_end(self) -> Iterator[StreamFrame]:
        """Play one event for which there is no room, to the end."""
        self._second = 100_000
        self.fill()
        while not any("memory" in note for note in self.notes):
            yield self.frame(255)
            self.fill()
            yield self.frame(0)


def settings_of(folder: Path, elsewhere: Path) -> WatchSettings:
    """Return one camera and one rule, told on the small disk and elsewhere."""
    waits = {"kind": "jsonl", "first_wait_s": 0.01, "most_wait_s": 0.05}
    return rules_of(
        {
            "cameras": [{"name": "gate", "address": "gate.mp4", "window_s": 1, "step_s": 1}],
            "rules": [{"name": "object", "question": "Is it there?", "cooldown_s": 0}],
            "sinks": [
                {"name": "here", "path": str(folder / "here.jsonl"), **waits},
                {"name": "elsewhere", "path": str(elsewhere / "elsewhere.jsonl"), **waits},
            ],
            "retention": {"reserve_bytes": 300_000, "most_bytes": 600_000},
        }
    )


def told(path: Path) -> list[dict[str, Any]]:
    """Read what a sink took."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def numbers(messages: list[dict[str, Any]], kind: str) -> list[int]:
    """Return the numbers of alerts in messages of a kind, in order."""
    of_alert = {one["alert_id"]: one["number"] for one in messages if one["kind"] == "alert"}
    return [of_alert[one["alert_id"]] for one in messages if one["kind"] == kind]


def main(folder: Path, elsewhere: Path) -> dict[str, Any]:
    """Watch over a full disk; again, where nothing happens; and to an end without room."""
    footage = Footage(folder)

    def watched(frames: Iterator[StreamFrame], stop_s: float) -> WatchSummary:
        return run_watch(
            settings_of(folder, elsewhere), Asker(ask=ask, describe=lambda _: ("something", ())),
            folder / "watch", environ={}, pace="fast", on_note=footage.note,
            loop=LoopSettings(evidence_frames=2, tend_every_s=0.1, stop_s=stop_s),
            open_streams=lambda _: FakeStreams({"gate": frames}),
        )  # fmt: skip

    summary = watched(iter(footage), stop_s=20.0)
    here, there = told(folder / "here.jsonl"), told(elsewhere / "elsewhere.jsonl")
    notes, footage.notes = footage.notes, []
    again = watched(iter([footage.frame(0) for _ in range(5)]), stop_s=20.0)
    lost = watched(footage.to_a_full_end(), stop_s=0.2)
    return {
        "wanted": footage.wanted,
        "raised while it was full": footage.num_full,
        "alerts": summary.alerts,
        "here": numbers(here, "alert"),
        "elsewhere": numbers(there, "alert"),
        "updated": [sorted(numbers(here, "update")), sorted(numbers(there, "update"))],
        "same order": [one["id"] for one in here] == [one["id"] for one in there],
        "status": [summary.exit_status, summary.held, summary.waiting],
        "notes": notes,
        "raised by the next watch": again.alerts,
        "status without room": lost.exit_status,
        "lost without room": lost.held,
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
