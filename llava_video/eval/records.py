"""One answer to one example → a line of a file, and back: an evaluation that was stopped goes on.

A line is whole or not there: one that a killed run left half written is taken off before the next
is added. Of several lines about the same example the last counts. Knows no model.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self

from llava_video.config import from_mapping, to_mapping
from llava_video.errors import ConfigError, LlavaVideoError
from llava_video.eval.example import Measure, Truth

View = Literal["video", "noise"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why there is no answer.

    Attributes:
        kind: class of the error.
        message: its sentence.
        hint: what to do, or "".
    """

    kind: str
    message: str
    hint: str = ""

    @classmethod
    def of(cls, error: BaseException) -> "Failure":
        """Return what an error says."""
        if isinstance(error, LlavaVideoError):
            return cls(kind=type(error).__name__, message=error.message, hint=error.hint)
        return cls(kind=type(error).__name__, message=str(error) or repr(error))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One visual as it was planned.

    Attributes:
        kind: "video" or "image".
        num_frames: frames.
        num_tokens: visual tokens.
        height_px: of the frames as shown.
        width_px: of the frames as shown.
        first_s: time of the first frame, s.
        last_s: time of the last one, s.
    """

    kind: str
    num_frames: int
    num_tokens: int
    height_px: int
    width_px: int
    first_s: float
    last_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a judge says of a free answer.

    Attributes:
        correct: None when it does not say.
        score: its score, in its own unit; None when it gives none.
        reasons: its words.
    """

    correct: bool | None
    score: float | None = None
    reasons: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One answer to one example, or why there is none.

    Attributes:
        id: of the example.
        cluster: its video.
        view: what was shown: the "video" itself or "noise".
        run: hash of everything that decides answers: task, model, options, version.
        example: hash of the question and its answer.
        groups: as the example's.
        footage: file of the video or picture.
        prompt: what was asked.
        choices: as the example's.
        answer: the right one.
        tolerance: how far a number may be off.
        given: the choice that was taken, or the text.
        correct: None where the right answer is not known.
        exact: whether it was right without normalisation.
        confidence: probability of the choice among the choices; None of free answers.
        judged: a judge's word on a free answer; None without judge.
        measures: what else was counted of the answer.
        prompt_hash: of the whole prompt, template and time sentence included.
        shown: the visuals as planned.
        text_tokens: of the prompt.
        new_tokens: of the answer.
        position_scale: of the plan.
        finish_reason: "stop", "length", "loop"; "" of a failure.
        warnings: of the answer.
        seconds: from the request to the answer, waiting included.
        model: its name.
        revision: commit or revision of a hub model.
        library: version of this library.
        commit: of this library's repository, where it runs from one.
        failure: why there is no answer.
    """

    id: str
    cluster: str
    view: View
    run: str
    example: str
    groups: Mapping[str, str] = field(default_factory=dict)
    footage: str = ""
    prompt: str = ""
    choices: tuple[str, ...] = ()
    answer: Truth = None
    tolerance: float = 0.0
    given: str = ""
    correct: bool | None = None
    exact: bool | None = None
    confidence: float | None = None
    judged: Judged | None = None
    measures: tuple[Measure, ...] = ()
    prompt_hash: str = ""
    shown: tuple[Shown, ...] = ()
    text_tokens: int = 0
    new_tokens: int = 0
    position_scale: float = 1.0
    finish_reason: str = ""
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    model: str = ""
    revision: str | None = None
    library: str = ""
    commit: str | None = None
    failure: Failure | None = None

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What a record answers: run, view, id and hash of the example."""
        return self.run, self.view, self.id, self.example

    @property
    def num_frames(self) -> int:
        """Frames of all visuals."""
        return sum(one.num_frames for one in self.shown)

    @property
    def visual_tokens(self) -> int:
        """Visual tokens of all visuals."""
        return sum(one.num_tokens for one in self.shown)

    def to_line(self) -> str:
        """Return the record as one line of JSON."""
        return json.dumps(to_mapping(self), ensure_ascii=False) + "\n"


class RecordFile:
    """A file of records that grows by one line at a time; a context manager.

    Args:
        path: made when the first record comes; None keeps records in memory only.

    Raises:
        ConfigError: the file is none of records, or cannot be read.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._file: IO[str] | None = None
        self.records: dict[tuple[str, str, str, str], Record] = {}
        if path is not None and path.exists():
            self.records = {record.key: record for record in read_records(path)}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def add(self, record: Record) -> None:
        """Write a record; it is on its way to the disk when this returns.

        Raises:
            OSError: the file cannot be written.
        """
        self.records[record.key] = record
        if self.path is None:
            return
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _take_off_torn_line(self.path)
            self._file = self.path.open("a", encoding="utf-8")
        self._file.write(record.to_line())
        self._file.flush()


def read_records(path: Path) -> Iterator[Record]:
    """Read a file of records, a half-written last line left out.

    Raises:
        ConfigError: the file cannot be read, or a line is no record.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as cause:
        raise ConfigError(f"{path} cannot be read: {cause}.", "name another file.") from cause
    lines = text.split("\n")  # JSON keeps its line breaks escaped, but not other separators
    for number, line in enumerate(lines[:-1], 1):
        if line.strip():
            yield _record(line, f"{path}, line {number}")


def _record(line: str, where: str) -> Record:
    try:
        values: Any = json.loads(line)
        if not isinstance(values, dict):
            raise ConfigError(f"{line[:40]} is no record.", "")
        return from_mapping(Record, values)
    except (ValueError, ConfigError) as cause:
        reason = cause.message if isinstance(cause, ConfigError) else str(cause)
        raise ConfigError(
            f"{where} is no record: {reason}", "name another file, or mend this one."
        ) from cause


def _take_off_torn_line(path: Path) -> None:
    if not path.exists():
        return
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)
