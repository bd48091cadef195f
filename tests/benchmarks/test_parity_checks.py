"""What counts as equal: nothing that is missing, of another shape, or no number."""

import json

import numpy as np
import pytest
from parity_checks import Findings, summary, table, worst_by_stage


def findings_of(method: str, *arguments, **options):
    found = Findings("model", "case")
    getattr(found, method)("stage", "key", *arguments, **options)
    return found.checks[0]


@pytest.mark.parametrize(
    ("ours", "theirs", "passed", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], True, 0.0),
        ([1.0, 2.0], [1.0, 2.5], False, 0.5),
        ([1.0, 2.0], [1.0, 2.0625], True, 0.0625),
        ([1.0, np.nan], [1.0, 2.0], False, np.inf),
        ([1.0, np.nan], [1.0, np.nan], False, np.inf),
        ([np.inf], [np.inf], False, np.inf),
        ([[1.0]], [1.0], False, np.inf),  # never broadcast
        ([], [], True, 0.0),
        (np.uint8([1]), np.uint8([2]), False, 1.0),  # not 255
    ],
)
def test_near(ours, theirs, passed, error):
    check = findings_of("near", ours, theirs, 0.1)
    assert (check.passed, check.error) == (passed, error)


@pytest.mark.parametrize(
    ("ours", "theirs", "error"),
    [
        ([1, 2, 3], [1, 2, 3], 0),
        ([1, 2, 3], [1, 5, 4], 2),
        ([1, 2], [1, 2, 3], np.inf),
        ("text", "text", 0),
        ("text", "test", 1),
    ],
)
def test_same(ours, theirs, error):
    check = findings_of("same", ours, theirs)
    assert (check.passed, check.error) == (error == 0, error)
    assert bool(check.note) == (error != 0)


def test_a_difference_is_named_where_it_is():
    assert "at (1,)" in findings_of("same", [1, 2, 3], [1, 5, 3]).note


def test_the_worst_check_of_a_stage_is_shown():
    found = Findings("model", "case")
    found.near("rows", "far", [1.0], [1.05], 0.1)
    found.near("rows", "near", [1.0], [1.01], 0.1)
    found.same("ids", "ids", [1], [2])
    assert worst_by_stage(found.checks)["rows"].key == "far"
    found.near("rows", "wrong", [1.0], [1.0, 1.0], 0.1)
    assert worst_by_stage(found.checks)["rows"].key == "wrong"
    lines = list(table(found.checks))
    assert [line.split()[0] for line in lines] == ["FAIL", "FAIL"]
    assert "(1,) is not (2,)" in lines[0]
    assert len(list(summary(found.checks))) == 2
    assert json.loads(json.dumps(found.checks[-1].to_json()))["error"] == "inf"
