"""The benchmark of a stream's answers runs at toy size, and counts what it should."""

import json

import pytest
import stream_answers


def test_one_scene(capsys: pytest.CaptureFixture[str]) -> None:
    assert stream_answers.main(["--check"]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (row["question"], row["scenes"]) == ("stream_answers", 1)
    assert row["questions"] > 3


def test_pairs_are_counted() -> None:
    pairs = [(True, True, True), (True, False, False), (False, False, False), (True, False, False)]
    row = stream_answers.counts_of(pairs)
    assert (row["questions"], row["right_as_clip"], row["right_as_window"]) == (4, 0.75, 0.25)
    assert (row["same_answer"], row["difference"], row["standard_error"]) == (0.25, -0.5, 0.25)
