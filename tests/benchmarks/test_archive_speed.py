"""Archives and what stands beside them do the same work at toy size."""

import json

import archive_speed
import pytest


@pytest.mark.slow
def test_a_toy_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert archive_speed.main(["--check"]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    for name in ("archive", "workers"):
        assert row["clips"][f"same_answers_of_{name}"] == row["clips"]["clips"] == 3
    assert row["films"]["films"] == 2
    assert row["clips"]["ratio"]["workers"] > 0 < row["films"]["ratio"]["archive"]
