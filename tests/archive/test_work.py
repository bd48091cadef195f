"""One unit gives its row or its error, sorted by what another try could do."""

import dataclasses
import errno
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from archive_runs import QUESTION, Slow, oracle, truth, write_clips

from llava_video.api import LlavaVideo
from llava_video.archive.content import content_hash
from llava_video.archive.ledger import Ledger
from llava_video.archive.row import Maker
from llava_video.archive.settings import ArchiveSettings
from llava_video.archive.unit import Item, Unit
from llava_video.archive.work import CRASH, Worker, error_of, has_killed_worker, may_pass, settled
from llava_video.engine.request import Event, Failed, Request
from llava_video.errors import (
    CapacityError,
    ChangedFileError,
    ConfigError,
    DecodeError,
    ServerBusyError,
    ServerError,
    ServerRefusedError,
    SourceError,
)
from llava_video.model.spec import ModelSpec
from llava_video.video.sandbox_process import WorkerEndedError

HERE = Unit(key="k", number=0, item=Item(number=0, address="a.mp4"), content_hash="")
THERE = Unit(key="k", number=0, item=Item(number=0, address="http://x/a.mp4"), content_hash="")


def ended() -> DecodeError:
    error = DecodeError("a.mp4: it died.", "leave it.", 1.5)
    error.__cause__ = WorkerEndedError("it died", "")
    return error


@pytest.mark.parametrize(
    ("error", "unit", "passes"),
    [
        (CapacityError("full"), HERE, True),
        (ServerError("away"), HERE, True),
        (ServerBusyError("full"), THERE, True),
        (ServerRefusedError("no key"), HERE, False),
        (MemoryError(), HERE, True),
        (OSError(errno.EIO, "bad disk"), HERE, True),
        (OSError(errno.ENOENT, "gone"), HERE, False),
        (SourceError("gone"), HERE, False),
        (SourceError("no route"), THERE, True),
        (ChangedFileError("another"), THERE, False),
        (DecodeError("broken"), THERE, False),
        (ConfigError("no"), HERE, False),
        (KeyError("a fault"), HERE, False),
    ],
)
def test_what_may_pass(error: Exception, unit: Unit, passes: bool) -> None:
    assert may_pass(error, unit) is passes


def test_a_dead_decoding_process_is_a_class_of_its_own() -> None:
    assert has_killed_worker(ended())
    assert not has_killed_worker(DecodeError("broken"))
    said = error_of(ended())
    assert (said.kind, said.position_s, said.hint) == (CRASH, 1.5, "leave it.")


def test_a_fault_says_where_it_is() -> None:
    with pytest.raises(KeyError) as caught:
        {}["lost"]
    assert error_of(caught.value).message.startswith("'lost' (test_work.py:")


@pytest.fixture
def asks(tiny_model: LlavaVideo, tmp_path: Path):
    """Return a function that works one clip of four frames, a second each."""
    (path,) = write_clips(tmp_path / "clips", 1)

    def work(item: Item | None = None, **settings: object):
        item = item or Item(number=0, address=str(path))
        with Ledger(tmp_path / "run", settings_digest="", error_row=lambda *_: {}) as ledger:
            unit = Unit(key="k", number=0, item=item, content_hash=content_hash(str(path), ledger))
            made = ArchiveSettings(**settings)
            options = {"max_new_tokens": 64}
            return settled(
                Worker(oracle(tiny_model.spec), made, options, Maker()).work(unit), ledger
            )

    return work, path


def test_spans_and_prompts_are_the_items_own(asks) -> None:
    work, path = asks
    item = Item(number=0, address=str(path), prompts=(QUESTION,), start_s=1.0, end_s=3.0)
    outcome = work(item, prompts=("How many frames?",))
    (answer,) = outcome.row["answers"]
    assert (answer["prompt"], answer["text"]) == (QUESTION, "1, 2")
    assert (answer["start_s"], answer["end_s"]) == (1.0, 3.0)
    assert outcome.row["video"]["start_s"] == 1.0


def test_a_caption_without_a_prompt(asks) -> None:
    outcome = asks[0]()
    assert outcome.error is None
    assert truth(0) in outcome.row["answers"][0]["text"]
    assert outcome.footage_s == pytest.approx(4.0)


def test_what_could_not_be_read_says_why(tiny_model: LlavaVideo, tmp_path: Path) -> None:
    item = Item(number=0, address=str(tmp_path / "none.mp4"))
    unit = Unit(key="k", number=0, item=item, content_hash="")
    worker = Worker(oracle(tiny_model.spec), ArchiveSettings(), {}, Maker())
    assert worker.work(unit).error.kind == "SourceError"
    (tmp_path / "none.mp4").write_bytes(b"there now")
    assert worker.work(unit).error.kind == "ChangedFileError"


@pytest.mark.parametrize(
    ("interruptions", "sandbox", "read"), [(1, False, False), (2, False, True), (0, True, True)]
)
def test_what_runs_keep_ending_over_is_read_apart(
    tiny_model: LlavaVideo,
    monkeypatch: pytest.MonkeyPatch,
    interruptions: int,
    sandbox: bool,
    read: bool,
) -> None:
    seen: list[object] = []

    def note(*arguments: object) -> list[object]:
        seen.append(arguments[3])  # how it is read
        raise DecodeError("enough.")

    monkeypatch.setattr("llava_video.archive.work.answer_item", note)
    unit = dataclasses.replace(HERE, content_hash="c", interruptions=interruptions)
    options = {"sandbox": sandbox, "max_new_tokens": 3}
    Worker(oracle(tiny_model.spec), ArchiveSettings(), options, Maker()).work(unit)
    assert seen == [{"sandbox": read}]


def test_what_was_seen_comes_as_a_picture(asks) -> None:
    outcome = asks[0]()
    assert (outcome.sheet or b"")[:2] == b"\xff\xd8"  # a JPEG
    assert [(time_ms, frame[:2]) for time_ms, frame in outcome.frames.items()] == [
        (2000, b"\xff\xd8")
    ]


def test_another_file_has_no_row(asks, tmp_path: Path) -> None:
    work, path = asks
    outcome = work()
    with Ledger(tmp_path / "run", settings_digest="", error_row=lambda *_: {}) as ledger:
        assert settled(outcome, ledger) is outcome
        path.write_bytes(path.read_bytes() + b"more")
        changed = settled(outcome, ledger)
    assert (changed.row, changed.sheet, changed.may_pass) == (None, None, False)
    assert changed.error is not None
    assert changed.error.kind == "ChangedFileError"


class Crowded(Slow):
    """The oracle, which has no room for one window of a video so many times."""

    def __init__(self, spec: ModelSpec, times: int) -> None:
        super().__init__(spec, 0.0)
        self.left, self.num_asked = times, 0

    def run(self, requests: Iterable[Request]) -> Iterator[Event]:
        for request in requests:
            self.num_asked += 1
            is_second = [visual.plan.times_s[0] for visual in request.visuals] == [2.0]
            if is_second and self.left:
                self.left -= 1
                yield Failed(request.request_id, CapacityError("no room.", "later."))
            else:
                yield from super().run([request])


@pytest.mark.parametrize(("times", "is_told", "num_asked"), [(2, True, 4), (9, False, 4)])
def test_a_window_without_room_is_tried_as_often_as_a_unit(
    tiny_model: LlavaVideo,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    times: int,
    is_told: bool,
    num_asked: int,
) -> None:
    (path,) = write_clips(tmp_path / "clips", 1)
    waits: list[float] = []
    finishing = threading.Event()
    monkeypatch.setattr(finishing, "wait", waits.append)
    engine = Crowded(tiny_model.spec, times)
    settings = ArchiveSettings(
        task="timeline", prompts=(QUESTION,), window_s=2.0, summary=False, retry_wait_s=0.5
    )
    with Ledger(tmp_path / "run", settings_digest="", error_row=lambda *_: {}) as ledger:
        item = Item(number=0, address=str(path))
        unit = Unit(key="k", number=0, item=item, content_hash=content_hash(str(path), ledger))
        model = LlavaVideo(tiny_model.spec, engine)
        row = Worker(model, settings, {"max_new_tokens": 64}, Maker(), finishing).work(unit).row
    assert row is not None
    assert [answer["text"] for answer in row["answers"]] == ["0, 1", "2, 3"][: 1 + is_told]
    assert [warning[:16] for warning in row["warnings"]] == ["2.00 s to 4.00 s"] * (not is_told)
    assert (waits, engine.num_asked) == ([0.5, 1.0], num_asked)


@pytest.mark.parametrize(("attempts", "has_row"), [(0, False), (2, True)])
def test_a_window_does_not_wait_when_the_run_ends(
    tiny_model: LlavaVideo, tmp_path: Path, attempts: int, has_row: bool
) -> None:
    (path,) = write_clips(tmp_path / "clips", 1)
    finishing = threading.Event()
    finishing.set()
    settings = ArchiveSettings(
        task="timeline", prompts=(QUESTION,), window_s=2.0, summary=False, retry_wait_s=600.0
    )
    unit = Unit(key="k", number=0, item=Item(number=0, address=str(path)), content_hash="c",
                attempts=attempts)  # fmt: skip
    model = LlavaVideo(tiny_model.spec, Crowded(tiny_model.spec, 1))
    outcome = Worker(model, settings, {"max_new_tokens": 64}, Maker(), finishing).work(unit)
    # Its last try has its answer; an earlier one leaves the unit to the next run.
    assert (outcome.row is not None, outcome.may_pass) == (has_row, not has_row)


def test_pictures_can_be_left_out(asks, monkeypatch: pytest.MonkeyPatch) -> None:
    work, _ = asks
    assert (work().sheet is None, len(work().frames)) == (False, 1)
    without = work(pictures=False)
    assert (without.sheet, without.frames) == (None, {})
