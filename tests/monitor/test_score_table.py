"""Tables say what was found, and each fault has its line and its reason."""

from collections.abc import Sequence

from monitor_cases import person, run, said

from llava_video.monitor.labels import Label
from llava_video.monitor.rehearsal import Rehearsal
from llava_video.monitor.rules import Observation
from llava_video.monitor.score_table import curve_table, faults_of, score_table
from llava_video.monitor.settings import rules_of

RULE = {"name": "person", "question": "Is there a person?", "cooldown_s": 0}
SETTINGS = rules_of({"cameras": [{"name": "gate", "address": "a.mp4"}], "rules": [RULE]})


def rehearsal(observations: Sequence[Observation]) -> Rehearsal:
    return Rehearsal(
        started_s=1000.0, seconds=60.0, seen={"person": {"gate": observations}},
        decisions=run(person(), observations)[1], windows={"asked": len(observations)},
        num_frames=60, questions=3, model_s=1.0,
    )  # fmt: skip


MADE = rehearsal([said(1010.0), said(1020.0, "no"), said(1030.0), said(1040.0, "no", 0.4)])
LABELS = [Label(start_s=7, end_s=12, rule="person"), Label(start_s=36, end_s=41, rule="person")]


def test_a_table_by_rule() -> None:
    head, row, total = score_table(MADE.scores(LABELS, 0.0)).splitlines()
    assert head.split()[:3] == ["rule", "precision", "recall"]
    assert row.split() == ["person", "50.0%", "50.0%", "1", "1", "1", "0", "3.0", "3.0"]
    assert total.split()[0] == "all"


def test_nothing_found_is_no_number() -> None:
    made = rehearsal([said(1010.0, "no")])
    row = score_table(made.scores(LABELS, 0.0)).splitlines()[1]
    assert row.split() == ["person", "-", "0.0%", "0", "2", "0", "0", "-", "-"]


def test_each_fault_has_a_line_that_says_why() -> None:
    missed, false = faults_of(MADE, LABELS, 0.0)
    assert missed == "missed  person 36-41 s: holding (40%)"
    assert false.startswith("false   30 s: ")
    assert 'raised, answer "yes" (90%)' in false


def test_a_curve_marks_its_best() -> None:
    points = MADE.curve(SETTINGS, LABELS, 0.0, thresholds=(0.3, 0.95), needed=())["person"]
    head, low, high = curve_table(points).splitlines()
    assert low.endswith("best")
    assert low.split()[:6] == ["0.3", "1", "of", "1", "50.0%", "50.0%"]
    assert high.split()[4:6] == ["-", "0.0%"]
    assert head.split()[0] == "confidence"
