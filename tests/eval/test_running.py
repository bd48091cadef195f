"""Everything is asked once, failures are records, and a run that was stopped goes on."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from llava_video.api import LlavaVideo
from llava_video.engine.oracle import OracleEngine
from llava_video.engine.request import Engine, Event, Request, VisualPart
from llava_video.errors import ConfigError
from llava_video.eval.example import Example
from llava_video.eval.media import Footage
from llava_video.eval.own_questions import read_questions
from llava_video.eval.records import read_records
from llava_video.eval.running import evaluate
from llava_video.eval.settings import EvalSettings
from llava_video.eval.video_choices import read_mlvu
from llava_video.values import Clip


class Counting:
    """The oracle, with a count of what it was asked; breaks down at a word."""

    def __init__(self, model: LlavaVideo, poison: str = "") -> None:
        self._oracle = OracleEngine(model.spec.tokenizer)
        self._decode = model.spec.tokenizer.decode
        self._poison = poison
        self.prompts: list[str] = []

    def run(self, requests: Iterable[Request]) -> Iterator[Event]:
        return self._oracle.run(map(self._noted, requests))

    def _noted(self, request: Request) -> Request:
        prompt = self._decode(request.text_ids)
        self.prompts.append(prompt)
        if self._poison and self._poison in prompt:
            raise ZeroDivisionError("a fault of the engine")
        return request


class Watching:
    """Another engine, with a count of how often the frames of a visual are asked for."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.num_looks = 0

    def run(self, requests: Iterable[Request]) -> Iterator[Event]:
        return self._engine.run(map(self._watched, requests))

    def _watched(self, request: Request) -> Request:
        parts = tuple(
            dataclasses.replace(part, clips=functools.partial(self._look, part.clips))
            if isinstance(part, VisualPart)
            else part
            for part in request.parts
        )
        return dataclasses.replace(request, parts=parts)

    def _look(self, clips: Callable[[], Iterator[Clip]]) -> Iterator[Clip]:
        self.num_looks += 1
        return clips()


@pytest.fixture
def counting(tiny_model: LlavaVideo) -> Callable[..., LlavaVideo]:
    return lambda poison="": LlavaVideo(tiny_model.spec, Counting(tiny_model, poison))


@pytest.fixture
def examples(copy: Callable[[str], Path]) -> list[Example]:
    return list(read_questions(copy("questions")))


def asked_of(model: LlavaVideo) -> int:
    engine = model.engine
    assert isinstance(engine, Counting)
    return len(engine.prompts)


def test_truth_planted_by_hand(oracle: LlavaVideo, examples: list[Example]) -> None:
    told: list[tuple[int, int]] = []
    report = evaluate(
        oracle,
        "questions",
        examples,
        settings=EvalSettings(noise=True),
        on_done=lambda *counts: told.append(counts),
        num_frames=4,
    )
    given = {record.id: record.given for record in report.records if record.view == "video"}
    assert list(given.values()) == ["0", "39", "yes", "0.87", "0.87", "no"]
    marks = [record.correct for record in report.records if record.view == "video"]
    # 0.87 is within 0.5 of 0.4 (0.47) and not within 0.1 of 0.3.
    assert marks == [True, False, True, True, False, False]
    by_type = {score.name: score for score in report.scores[1:]}
    assert set(by_type) == {"first", "last", "yes/no", "when"}
    yes_no = by_type["yes/no"]
    assert yes_no.accuracy is not None
    assert (yes_no.accuracy.value, yes_no.majority) == (0.5, 1.0)
    # Times 0.4 (within 0.5) and 0.3 (within 0.1): either answers for both.
    assert by_type["when"].majority == 1.0
    assert report.overall.noise is not None
    assert report.overall.noise.value < 0.5
    assert report.calibration is not None
    # The oracle is always sure (1.0), and right once in its three choices.
    assert report.calibration.error == pytest.approx(2 / 3)
    assert told[-1] == (12, 12)
    record = report.records[0]
    assert (record.num_frames, record.shown[0].last_s) == (4, pytest.approx(1.3))
    assert record.visual_tokens == record.shown[0].num_tokens > 0
    assert record.library
    assert record.prompt_hash


def test_what_is_recorded_is_not_asked_again(
    counting: Callable[..., LlavaVideo], examples: list[Example], tmp_path: Path
) -> None:
    path = tmp_path / "out.jsonl"
    model = counting()
    first = evaluate(
        model, "q", examples, settings=EvalSettings(limit=2), records=path, num_frames=4
    )
    assert (len(first.records), asked_of(model)) == (2, 2)
    whole = evaluate(model, "q", examples, records=path, num_frames=4)
    assert (len(whole.records), asked_of(model)) == (6, 6)
    again = evaluate(model, "q", examples, records=path, num_frames=4)
    assert asked_of(model) == 6
    assert again.to_mapping() == whole.to_mapping()
    evaluate(model, "q", examples, records=path, num_frames=3)  # another run
    assert asked_of(model) == 12
    changed = [*examples[:5], Example(id="000017/6", cluster="v", prompt="Is index 0 shown?")]
    evaluate(model, "q", changed, records=path, num_frames=4)
    assert asked_of(model) == 13
    noise = EvalSettings(noise=True)
    evaluate(model, "q", examples, settings=noise, records=path, num_frames=4)
    assert asked_of(model) == 19
    evaluate(model, "q", examples, settings=noise, records=path, num_frames=4)
    assert asked_of(model) == 19


def test_a_run_stopped_in_the_middle_goes_on(
    counting: Callable[..., LlavaVideo], examples: list[Example], tmp_path: Path
) -> None:
    path = tmp_path / "out.jsonl"
    unbroken = evaluate(counting(), "q", examples, records=tmp_path / "one.jsonl", num_frames=4)

    def stop(num_done: int, num_all: int) -> None:
        if num_done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(counting(), "q", examples, records=path, on_done=stop, num_frames=4)
    assert len(list(read_records(path))) == 3
    report = evaluate(counting(), "q", examples, records=path, num_frames=4)
    assert len(list(read_records(path))) == 6
    assert report.to_mapping() == unbroken.to_mapping()


def test_failures_are_records_and_end_nothing(
    counting: Callable[..., LlavaVideo], copy: Callable[[str], Path]
) -> None:
    folder = copy("mlvu")
    rows = json.loads((folder / "json/1_plotQA.json").read_text())
    lost = rows[0] | {"video": "gone.mp4"}
    (folder / "video/1_plotQA/torn.mp4").write_bytes(b"no video at all")
    torn = rows[0] | {"video": "torn.mp4"}
    sure = rows[0] | {"candidates": ["7", "8"], "answer": "7"}  # the oracle's answer is no choice
    odd = rows[0] | {"question": "POISON? What is the first index?"}
    rows = [lost, rows[0], torn, sure, odd, rows[1], "no row"]
    (folder / "json/1_plotQA.json").write_text(json.dumps(rows))
    model = counting("POISON")
    report = evaluate(model, "mlvu", list(read_mlvu(folder)), num_frames=4)
    kinds = [record.failure.kind if record.failure else None for record in report.records]
    assert kinds[0] == "SourceError"
    assert kinds[1] is None
    assert kinds[2] in ("SourceError", "DecodeError")
    assert kinds[3:] == ["ConfigError", "ZeroDivisionError", None, "ConfigError"]
    assert report.records[4].failure is not None
    assert report.records[4].failure.message == "a fault of the engine"
    assert report.records[0].failure is not None
    assert report.records[0].failure.hint
    assert [record.correct for record in report.records] == [None, True, *[None] * 3, False, None]
    assert report.overall.accuracy is not None
    # One of six is right; the row that is none is in no score.
    assert report.overall.accuracy.value == pytest.approx(1 / 6)
    assert report.overall.answered == pytest.approx(1 / 2)
    assert any("5 of 7 examples failed" in warning for warning in report.warnings)


def test_failures_are_asked_again_only_when_told(
    counting: Callable[..., LlavaVideo], examples: list[Example], tmp_path: Path
) -> None:
    path = tmp_path / "out.jsonl"
    evaluate(counting("index 26"), "q", examples, records=path, num_frames=4)
    healed = counting()
    report = evaluate(healed, "q", examples, records=path, num_frames=4)
    assert (asked_of(healed), report.overall.num_failed) == (0, 2)
    retry = EvalSettings(retry_failed=True)
    report = evaluate(healed, "q", examples, settings=retry, records=path, num_frames=4)
    assert (asked_of(healed), report.overall.num_failed) == (2, 0)
    assert evaluate(healed, "q", examples, records=path, num_frames=4).overall.num_failed == 0


def test_frames_that_cannot_be_read_fail_their_own_example(
    counting: Callable[..., LlavaVideo], examples: list[Example], tmp_path: Path
) -> None:
    empty = Example(
        id="empty",
        cluster="e",
        prompt="What is the first index?",
        footage=Footage(path=tmp_path, frame_rate_hz=3.0, start_s=90.0),
        answer=0,
    )
    report = evaluate(counting(), "q", [*examples[:2], empty, examples[2]], num_frames=4)
    assert [record.failure is None for record in report.records] == [True, True, False, True]
    assert report.records[2].failure is not None
    assert report.records[2].failure.kind == "SourceError"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"examples": []}, "there are no examples"),
        ({"options": {"response_format": ["a", "b"]}}, "response_format"),
        ({"options": {"num_frames": 0}}, "num_frames = 0"),
        ({"twice": True}, "two examples are called '000017/1'"),
    ],
)
def test_what_cannot_be_run_is_refused_at_once(
    oracle: LlavaVideo, examples: list[Example], change, message: str
) -> None:
    asked = change.get("examples", examples * (2 if change.get("twice") else 1))
    with pytest.raises(ConfigError, match=message):
        evaluate(oracle, "q", asked, **change.get("options", {}))
    with pytest.raises(TypeError, match="did you mean 'num_frames'"):
        evaluate(oracle, "q", examples, num_frame=3)  # type: ignore[call-arg]  # what is tested


def test_a_real_engine_answers_with_choices(
    tiny_model: LlavaVideo, examples: list[Example]
) -> None:
    report = evaluate(tiny_model, "q", examples, num_frames=2, max_new_tokens=4, loop_guard=False)
    assert report.failures == {}
    chosen = [record for record in report.records if record.choices]
    assert all(record.given in record.choices for record in chosen)
    assert all(record.confidence is not None for record in chosen)
    assert report.calibration is not None
    assert report.calibration.num_examples == 3


def test_a_video_is_looked_at_once_for_all_its_questions(
    tiny_model: LlavaVideo, examples: list[Example]
) -> None:
    watching = Watching(tiny_model.engine)
    model = LlavaVideo(tiny_model.spec, watching)
    options = {"num_frames": 5, "max_new_tokens": 4, "loop_guard": False}
    together = evaluate(model, "q", examples, **options)
    assert watching.num_looks == 1
    single = [example for example in examples if example.id.endswith("/1")]
    assert evaluate(model, "q", single, **options).records[0].given == together.records[0].given
    given = [evaluate(model, "q", [one], **options).records[0].given for one in examples]
    assert given == [record.given for record in together.records]
