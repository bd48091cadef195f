"""Scores are those counted by hand, failures count as wrong, and facts come with every score."""

import pytest

from llava_video.eval.records import Failure, Judged, Record, Shown
from llava_video.eval.report import report_of
from llava_video.eval.settings import EvalSettings

LOST = Failure(kind="SourceError", message="gone.")


def shown(num_frames: int) -> tuple[Shown, ...]:
    return (
        Shown(
            kind="video",
            num_frames=num_frames,
            num_tokens=6 * num_frames,
            height_px=1,
            width_px=1,
            first_s=0.0,
            last_s=1.0,
        ),
    )


def record(name: str, correct: bool | None, cluster: str = "v", **facts) -> Record:
    base = {
        "id": name,
        "cluster": cluster,
        "view": "video",
        "run": "r",
        "example": "e",
        "groups": {"type": "count"},
        "choices": ("A", "B"),
        "answer": "A",
        "correct": correct,
        "exact": correct,
        "shown": shown(4),
        "prompt_hash": name,
        "model": "tiny",
        "library": "0.1.0",
        "commit": "c1",
    }
    return Record(**{**base, **facts})


def test_scores_counted_by_hand() -> None:
    colour = {"groups": {"type": "colour"}}
    records = [
        record("1", True, "v", confidence=0.9),
        record("2", False, "v", confidence=0.7),
        record("3", True, "w", answer="B", shown=shown(8)),
        record("4", True, "w", **colour),
        record("5", None, "x", failure=LOST, shown=(), prompt_hash="", **colour),
        record("6", None, "x", answer=None),  # a test split without answers
        record("7", None, "y", answer=None, failure=LOST, groups={}),  # a broken row
    ]
    report = report_of("task", records, EvalSettings())
    overall = report.overall
    assert overall.accuracy is not None
    # Right are 1, 3 and 4 of the five whose answer is known; 5 failed and is wrong.
    assert overall.accuracy.value == pytest.approx(3 / 5)
    assert (overall.accuracy.num_examples, overall.accuracy.num_clusters) == (5, 3)
    assert overall.answered == pytest.approx(3 / 4)
    assert (overall.num_failed, overall.num_unknown) == (2, 1)
    # The commonest answers: of counts A twice in three, of colours A twice in two.
    assert overall.majority == pytest.approx(4 / 5)
    names = [(score.kind, score.name) for score in report.scores]
    assert names == [("all", ""), ("type", "colour"), ("type", "count")]
    colours = report.scores[1]
    assert colours.accuracy is not None
    assert (colours.accuracy.value, colours.num_failed) == (0.5, 1)
    assert report.failures == {"SourceError": 2}
    assert report.calibration is not None
    # |1 - 0.9| and |0 - 0.7|, one answer each.
    assert report.calibration.error == pytest.approx((0.1 + 0.7) / 2)


def test_every_score_carries_what_decided_it() -> None:
    records = [record("1", True), record("2", True, shown=shown(8)), record("3", True)]
    facts = report_of("t", records, EvalSettings()).overall.facts
    assert facts.frames is not None
    assert facts.visual_tokens is not None
    assert (facts.frames.least, facts.frames.middle, facts.frames.greatest) == (4, 4, 8)
    assert (facts.visual_tokens.least, facts.visual_tokens.greatest) == (24, 48)
    assert (facts.models, facts.libraries, facts.run) == (("tiny",), ("0.1.0 @ c1",), ("r",))
    other = [*records[:2], record("3", True, prompt_hash="another", commit="c2")]
    report = report_of("t", other, EvalSettings())
    assert report.overall.facts.prompts != facts.prompts
    assert any("several versions" in warning for warning in report.warnings)
    shuffled = report_of("t", records[::-1], EvalSettings())
    assert shuffled.overall.facts.prompts == facts.prompts


def test_noise_stands_beside_the_same_examples() -> None:
    records = [record("1", True), record("2", True)]
    noise = [record("1", True, view="noise"), record("2", False, view="noise")]
    overall = report_of("t", records + noise, EvalSettings()).overall
    assert overall.accuracy is not None
    assert overall.noise is not None
    assert (overall.accuracy.value, overall.noise.value) == (1.0, 0.5)
    assert report_of("t", records, EvalSettings()).overall.noise is None


def test_free_answers_have_an_exact_share_and_a_judge() -> None:
    free = {"choices": ()}
    records = [
        record("1", True, exact=False, judged=Judged(correct=True), **free),
        record("2", False, judged=Judged(correct=True), **free),
        record("3", True, judged=Judged(correct=None), finish_reason="length", **free),
    ]
    report = report_of("t", records, EvalSettings())
    overall = report.overall
    assert overall.exact == pytest.approx(1 / 3)
    assert overall.judged is not None
    assert (overall.judged.value, overall.judged.num_examples) == (1.0, 2)
    assert report.calibration is None
    assert any("1 answers were cut" in warning for warning in report.warnings)


def test_nothing_that_is_known_is_no_score() -> None:
    records = [record("1", None, answer=None)]
    report = report_of("t", records, EvalSettings())
    assert report.overall.accuracy is None
    assert report.overall.majority is None
    values = report.to_mapping()
    assert values["scores"][0]["num_unknown"] == 1
    assert "records" not in values
