"""Archives and what stands beside them do the same work at toy size."""

import json

import archive_speed
import pytest


@pytest.mark.slow
def test_a_toy_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert archive_speed.main(["--check"]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert row["clips"]["same_answers"] == row["clips"]["clips"] == 3
    assert row["films"]["films"] == 2
    assert row["clips"]["ratio"] > 0 < row["films"]["ratio"]
