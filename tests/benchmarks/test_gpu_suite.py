"""The GPU suite runs at toy size, asks for what was promised, and invents nothing without a GPU."""

import json

import gpu_suite
import pytest
import torch
from gpu_bench import Bench, Measured, Section, Target, table_of
from gpu_suite import SECTIONS

# The table of the promise: section -> {key: (target, limit, whether less is better)}.
PROMISED = {
    "capacity": {
        "7b_bf16": (500, 586, False),
        "7b_int4_int8kv": (2500, 2714, False),
        "7b_bf16_int8kv_16": (10_000, 15_000, False),
        "0.5b_bf16": (7500, 8250, False),
    },
    "slope": {
        "ours": (11.8, 11.24, True),
        "overhead": (0.8, 0.0, True),
        "prediction": (5, None, True),
    },
    "long": {"seconds": (35.0, 17.4, True)},
    "vision": {"frames_per_s": (650, 1231, False), "times_hf": (1.4, None, False)},
    "pool": {"share": (85, 100, False), "times_hf": (5, None, False)},
    "rope": {
        "share": (88, 100, False),
        "times_eager": (8, None, False),
        "times_liger": (1.2, None, False),
    },
    "decode": {
        "7b_share": (75, 100, False),
        "7b_rate": (215, 289, False),
        "7b_times_hf": (4, None, False),
        "0.5b_times_hf": (10, None, False),
        "int8_long": (1.2, 1.24, False),
    },
    "second": {"share": (1.5, 0.1, True)},
    "ttft": {"share_of_hf": (0.6, None, True)},
    "archive": {
        "clips_per_h": (5000, None, False),
        "times_hf": (5, None, False),
        "busy": (85, 100, False),
    },
    "quantprefill": {},
    "tiles": {},
}


def rows_in(folder) -> list[dict]:
    lines = (folder / "gpu.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_the_sections_ask_for_what_was_promised():
    asked = {
        name: {
            target.key: (target.target, target.limit, target.is_most)
            for target in section.targets
            if target.target is not None
        }
        for name, section in SECTIONS.items()
    }
    assert asked == PROMISED


@pytest.mark.parametrize("name", list(SECTIONS))
def test_every_section_runs_at_toy_size(name, tmp_path, capsys):
    assert gpu_suite.main(["--check", "--only", name, "--results", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    row = json.loads(printed.splitlines()[-1])
    assert row["status"] == "checked"
    assert set(row["checked"]) >= set(PROMISED[name])
    # Tiles have no target yet, and so no figure; every other section has, and none is measured.
    figures = {figure["measured"] for figure in row["figures"]}
    assert figures == (set() if name == "tiles" else {None})
    assert row["figures"] or row["details"]
    assert list(tmp_path.iterdir()) == []  # a toy is no result


@pytest.mark.parametrize("name", list(SECTIONS))
def test_nothing_is_measured_without_a_gpu(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    arguments = ["--only", name, "--append", "--results", str(tmp_path)]
    assert gpu_suite.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "not measured" in printed
    (row,) = rows_in(tmp_path)
    assert row["status"].startswith("not measured")
    assert [figure["measured"] for figure in row["figures"]] == [None] * len(row["figures"])
    assert "details" not in row


def test_what_is_measured_is_kept_and_judged(tmp_path, capsys, monkeypatch):
    def run(bench: Bench, found: Measured) -> None:
        assert not bench.is_check
        found.values |= {"rate": 12.0, "wait": 3.0}

    targets = (
        Target(key="rate", what="the rate", unit="tok/s", target=10, limit=20),
        Target(key="wait", what="the wait", unit="s", target=2, is_most=True),
        Target(key="peer", what="of a peer that is not here", unit="x", target=4),
    )
    monkeypatch.setitem(SECTIONS, "rope", Section(question="?", targets=targets, run=run))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    assert gpu_suite.main(["--only", "rope", "--results", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[-1] for line in printed.splitlines() if "the " in line][:2] == [
        "met",
        "MISSED",
    ]
    (row,) = rows_in(tmp_path)
    assert (row["status"], row["gpu"]) == ("measured", "a GPU")
    assert [figure["measured"] for figure in row["figures"]] == [12.0, 3.0, None]


def test_a_section_that_breaks_says_so_and_keeps_what_it_had(tmp_path, monkeypatch):
    def run(bench: Bench, found: Measured) -> None:
        found.values["rate"] = 12.0
        raise ValueError("a kernel is wrong")

    targets = (Target(key="rate", what="the rate", unit="tok/s", target=10),)
    monkeypatch.setitem(SECTIONS, "rope", Section(question="?", targets=targets, run=run))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    assert gpu_suite.main(["--only", "rope", "--results", str(tmp_path)]) == 1
    (row,) = rows_in(tmp_path)
    assert "a kernel is wrong" in row["status"]
    assert row["figures"][0]["measured"] == 12.0


def test_the_table_shows_target_and_limit_beside_each_figure():
    target = Target(key="a", what="some figure", unit="GB", target=0.5, limit=0.25, is_most=True)
    section = Section(question="?", targets=(target,), run=lambda *_: None)
    assert table_of(section, {"a": 1234.5})[1].split() == (
        ["some", "figure", "1,234", "<=", "0.5", "0.25", "GB", "MISSED"]
    )
    assert table_of(section, None)[1].split() == ["some", "figure", "-", "<=", "0.5", "0.25", "GB"]


def test_help_lists_the_sections(capsys):
    with pytest.raises(SystemExit):
        gpu_suite.main(["--help"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in PROMISED)
