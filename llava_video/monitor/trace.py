"""Decisions → a line of JSON each, in files of bounded size: why there was an alert, and why not.

The newest file is `why.jsonl`; older ones are `why.1.jsonl`, `why.2.jsonl` … and the oldest goes. A
line that cannot be written is counted and lost, and stops no watch. Knows no camera and no model.
"""

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

from llava_video.monitor.instructions import printable
from llava_video.monitor.message import wall_text
from llava_video.monitor.rules import Decision

NAME: Final = "why"


class WhyTrace:
    """Write the trace of a watch; may be used from several threads.

    Args:
        folder: where its files lie; it exists.
        most_bytes: size at which a new file is begun.
        most_files: files kept, the newest included.

    Attributes:
        num_lost: lines that could not be written.
    """

    def __init__(self, folder: Path, *, most_bytes: int, most_files: int) -> None:
        self._folder, self._most_bytes, self._most_files = folder, most_bytes, most_files
        self._guard = threading.Lock()
        self._file: BinaryIO | None = None
        self._size = 0
        self.num_lost = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def decided(self, decision: Decision, window_idx: int, **more: Any) -> None:
        """Write what a rule made of a window.

        Args:
            decision: with its reason.
            window_idx: the window's number.
            **more: facts of the window, plain values.
        """
        facts = {
            "at": wall_text(decision.at_s),
            "at_s": decision.at_s,
            "start_s": decision.start_s,
            "camera": decision.camera,
            "window": window_idx,
            "rule": decision.rule,
            "why": str(decision.why),
            "value": decision.value,
            "confidence": decision.confidence,
            "hits": decision.hits,
            "needed": decision.needed,
            "signal": decision.signal,
            "alert_id": decision.alert_id,
            "reused_from_s": decision.reused_from_s,
            "reason": printable(decision.reason),
            "warnings": [printable(one) for one in decision.warnings],
        }
        self.write({name: value for name, value in facts.items() if value not in (None, "", [])}
                   | more)  # fmt: skip

    def befell(self, camera: str, kind: str, wall_s: float, text: str) -> None:
        """Write what befell a camera: a lost connection, dropped frames, a frozen picture."""
        self.write(
            {"at": wall_text(wall_s), "at_s": wall_s, "camera": camera, "mark": kind,
             "reason": printable(text)}
        )  # fmt: skip

    def write(self, facts: Mapping[str, Any]) -> None:
        """Add a line."""
        text = json.dumps(facts, ensure_ascii=False, default=str)
        line = text.encode(errors="replace") + b"\n"  # half a character must not end a watch
        with self._guard:
            try:
                self._add(line)
            except OSError:  # most of all a full disk
                self.num_lost += 1
                self._let_go()

    def close(self) -> None:
        """Let go of the file; the next line opens it again."""
        with self._guard:
            self._let_go()

    def _add(self, line: bytes) -> None:
        before = b""
        if self._file is None:
            path = self._path(0)
            self._size = path.stat().st_size if path.exists() else 0
            self._file = path.open("ab")
            if self._size and not _ends_whole(path):
                before = b"\n"  # or the next line would be the end of one that nobody can read
        if self._size and self._size + len(before + line) > self._most_bytes:
            self._rotate()
            before = b""
        self._file.write(before + line)
        self._file.flush()  # a watch that is killed has told all it did
        self._size += len(before + line)

    def _rotate(self) -> None:
        self._let_go()
        self._path(self._most_files - 1).unlink(missing_ok=True)
        for number in range(self._most_files - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                self._path(number - 1).rename(self._path(number))
        self._file, self._size = self._path(0).open("ab"), 0

    def _let_go(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def _path(self, number: int) -> Path:
        return self._folder / (f"{NAME}.{number}.jsonl" if number else f"{NAME}.jsonl")


def _ends_whole(path: Path) -> bool:
    """Say whether the last line of a file is whole: a full disk or a power cut leaves half."""
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def read_trace(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a trace, oldest first; half a line is passed over.

    Args:
        folder: of the watch.
    """
    numbered = {
        int(path.suffixes[0][1:]): path
        for path in folder.glob(f"{NAME}.*.jsonl")
        if path.suffixes[0][1:].isdecimal()
    }
    paths = [numbered[number] for number in sorted(numbered, reverse=True)]
    for path in [*paths, folder / f"{NAME}.jsonl"]:
        if not path.exists():
            continue
        with path.open(encoding="utf-8", errors="replace") as file:  # half a character, too
            for line in file:
                with contextlib.suppress(json.JSONDecodeError):
                    yield json.loads(line)
