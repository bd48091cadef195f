"""The ledger's benchmark runs at toy size, and would notice what is too slow."""

import json

import ledger
import pytest


def test_a_small_archive(capsys: pytest.CaptureFixture[str]) -> None:
    ledger.main(["--check"])
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (row["question"], row["num_units"]) == ("ledger", 2000)
    assert row["units_per_s"] > 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("units_per_s", 1999.0),
        ("start_finished_s", 5.1),
        ("work_growth_bytes", 2**24),
        ("peak_bytes", 2**29),
    ],
)
def test_what_is_too_slow_is_a_fault(name: str, value: float) -> None:
    good = {
        "units_per_s": 2000.0, "start_finished_s": 5.0, "work_growth_bytes": 0, "peak_bytes": 2**28
    }  # fmt: skip
    assert ledger.faults_of(good) == []
    assert ledger.faults_of(good | {name: value}) == [f"{name} = {value:,}"]
