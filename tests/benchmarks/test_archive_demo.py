"""An archive's answers are held against the card by group, and a toy run gives all figures."""

import json

import archive_demo
import pytest
from archive_demo import compared, faults_of

from llava_video.eval.records import Record
from llava_video.model.card import Knowledge, ModelCard, Result


def record(number: int, *, correct: bool) -> Record:
    return Record(
        id=f"{number}",
        cluster=f"{number // 2}",
        view="video",
        run="archive",
        example=f"{number}",
        groups={"type": "colour", "skill": "colour"},
        answer="red",
        correct=correct,
        exact=correct,
    )


def card(accuracy: float) -> ModelCard:
    results = (
        Result(kind="colour", n=900, accuracy=accuracy, low=accuracy - 0.01, high=accuracy + 0.01),
    )
    return ModelCard(name="demo", about="a model", knows=Knowledge(), results=results)


def test_a_card_outside_of_the_interval_is_a_fault() -> None:
    records = [record(number, correct=number % 4 != 0) for number in range(80)]
    row = {"exit_status": 0, "other_answers": 0}
    groups = compared(records, card(0.7))
    assert groups["colour"]["accuracy"] == 0.75
    assert groups["colour"]["card"] == 0.7
    assert groups["all questions"]["card"] is None
    assert list(faults_of(row | {"groups": groups})) == []
    (fault,) = faults_of(row | {"groups": compared(records, card(0.97))})
    assert fault == "colour: 0.750 is not the card's 0.970"
    told = list(faults_of({"exit_status": 3, "other_answers": 2, "groups": {}}))
    assert [fault.partition(" ")[0] for fault in told] == ["exit_status", "2"]


@pytest.mark.slow
def test_a_toy_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert archive_demo.main(["--check"]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (row["clips"], row["exit_status"], row["other_answers"]) == (3, 0, 0)
    assert row["questions"] > 30
    assert row["groups"]["all questions"]["n"] == row["questions"]
