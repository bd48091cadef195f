"""`llava-video doctor`: the findings, and a verdict."""

import json

import pytest

from llava_video.cli.checks import Finding

FINDINGS = [
    Finding(group="packages", name="torch", state="ok", found="2.13.0"),
    Finding(
        group="packages",
        name="flash-attn",
        state="absent",
        found="attention on GPUs.",
        cost="Without it SDPA does the attention, which gives the very same answers.",
        remedy='pip install --upgrade "llava_video[flash]"',
    ),
    Finding(group="readers", name="PyAV", state="ok", found="24 of 24."),
]
BROKEN = Finding(group="readers", name="PyAV", state="broken", found="3 of 24.", is_fatal=True)


@pytest.fixture
def doctor(run, monkeypatch):
    def run_doctor(findings, *arguments: str):
        monkeypatch.setattr("llava_video.cli.doctor.check_everything", lambda: findings)
        return run("doctor", *arguments)

    return run_doctor


def test_findings_stand_in_groups(doctor) -> None:
    outcome = doctor(FINDINGS)
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out == (
        "packages\n"
        "  ok    torch             2.13.0\n"
        "  -     flash-attn        "
        "attention on GPUs. Without it SDPA does the attention, which gives the\n"
        "                          very same answers.\n"
        '                          pip install --upgrade "llava_video[flash]"\n'
        "readers\n"
        "  ok    PyAV              24 of 24.\n"
        "\n"
        "Everything that a description needs works.\n"
    )


def test_what_is_fatal_is_the_verdict(doctor) -> None:
    outcome = doctor([*FINDINGS[:2], BROKEN])
    assert outcome.status == 1
    assert "  FAIL  PyAV              3 of 24.\n" in outcome.out
    assert outcome.out.endswith("No video can be described here until this works: PyAV.\n")


def test_json_is_the_findings(doctor) -> None:
    values = json.loads(doctor(FINDINGS, "--json").out)
    assert [one["name"] for one in values] == ["torch", "flash-attn", "PyAV"]
    assert values[1]["state"] == "absent"
    assert doctor([BROKEN], "--json").status == 1


def test_this_machine_is_well(run) -> None:
    outcome = run("doctor")
    assert outcome.status == 0
    assert outcome.out.endswith("Everything that a description needs works.\n")
