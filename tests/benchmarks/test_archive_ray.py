"""The cluster's benchmark runs at toy size, and would notice what costs too much."""

import json

import archive_ray
import pytest


@pytest.mark.slow
def test_a_small_archive(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    assert archive_ray.main(["--check"]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (row["question"], row["clips"], row["paced"]) == ("archive_ray", 6, 8)
    assert min(row["plain_s"], row["ray_s"], row["one_node_s"], row["two_nodes_s"]) > 0
    assert row["start_s"] > 0


@pytest.mark.parametrize(("name", "value"), [("added", 0.051), ("gain", 1.79)])
def test_what_costs_too_much_is_a_fault(name: str, value: float) -> None:
    good = {"added": 0.05, "gain": 1.8}
    assert archive_ray.faults_of(good) == []
    assert archive_ray.faults_of(good | {name: value}) == [f"{name} = {value:.3f}"]
