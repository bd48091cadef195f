"""`llava-video train`: what it checks, what it trains, and what it refuses."""

import json
import shutil
from pathlib import Path

import pytest
from training_runs import broken_off

from llava_video.api import load
from llava_video.config import read_yaml
from llava_video.train.run import Trained
from llava_video.train.settings import StageSettings


@pytest.fixture
def config(tmp_path: Path, tiny_folder: Path) -> Path:
    """Return a stage over four texts."""
    entries = [
        {
            "id": idx,
            "conversations": [
                {"from": "human", "value": f"What is {idx}?"},
                {"from": "gpt", "value": "A number."},
            ],
        }
        for idx in range(4)
    ]
    (tmp_path / "data.json").write_text(json.dumps(entries))
    path = tmp_path / "stage.yaml"
    path.write_text(
        f"name: toy\nmodel: {tiny_folder}\noutput: {tmp_path / 'run'}\nlearn: [projector]\n"
        f"batch_size: 2\nlog_every: 1\ndata:\n  sources: [{{path: {tmp_path / 'data.json'}}}]\n"
        "  num_workers: 0\n"
    )
    return path


LEARN = "learn=[language_model]"


def test_a_stage_is_trained_and_loads(run, config: Path, tmp_path: Path):
    outcome = run("train", "--config", config, "--set", LEARN, "--set", "epochs=2")
    assert outcome.status == 0, outcome
    assert outcome.err == ""
    assert outcome.out.startswith("toy: 4 steps; loss ")
    with load(tmp_path / "run" / "original") as model:
        assert model.ask(None, "What?", max_new_tokens=2).usage.new_tokens <= 2


def test_what_was_made_as_json(run, config: Path, tmp_path: Path):
    short = run("train", "--config", config, "--set", "max_steps=1", "--set", "log_every=9")
    assert short.out.startswith("toy: 1 steps; loss ")  # a last line, however few its steps
    shutil.rmtree(tmp_path / "run")
    values = json.loads(
        run("train", "--config", config, "--set", LEARN, "--set", "max_steps=1", "--json").out
    )
    assert values["folders"] == {"original": str(tmp_path / "run" / "original")}
    assert (values["num_steps"], values["resumed_from"], values["broken"]) == (1, 0, {})


def test_several_stages_are_one_list_of_json(run, config: Path, tmp_path: Path):
    second = tmp_path / "second.yaml"
    second.write_text(
        config.read_text().replace("toy", "next").replace(f"{tmp_path}/run", f"{tmp_path}/run2")
    )
    both = ("--config", config, "--config", second, "--set", "max_steps=1", "--json")
    checked = json.loads(run("train", *both, "--check").out)
    assert [(one["name"], one["num_examples"]) for one in checked] == [("toy", 4), ("next", 4)]
    run("train", "--config", config, "--set", "max_steps=1")
    made = json.loads(run("train", *both).out)
    assert [(one["name"], one["is_done_before"]) for one in made] == [
        ("toy", True),
        ("next", False),
    ]
    assert made[0]["folders"] == {"original": str(tmp_path / "run" / "original")}
    assert made[1]["num_steps"] == 1


@pytest.mark.parametrize(
    ("place", "speaks"),
    [
        ({"LOCAL_RANK": "1", "RANK": "1"}, False),
        ({"LOCAL_RANK": "0", "RANK": "2"}, False),  # the first of a second machine
        ({"LOCAL_RANK": "0", "RANK": "0"}, True),
        ({"RANK": "1"}, True),  # a machine's number, where there is one process
    ],
)
def test_of_several_processes_the_first_one_speaks(
    run,
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: dict[str, str],
    speaks: bool,
):
    monkeypatch.setattr("llava_video.train.run.is_done", lambda stage: True)
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    twice = ("train", "--config", config, "--config", config)
    for given in (twice, (*twice, "--json"), (*twice, "--check"), (*twice, "--check", "--json")):
        outcome = run(*given)
        assert (outcome.status, bool(outcome.out)) == (0, speaks), given


def test_a_stage_that_was_trained_is_told_by_the_first_process_alone(
    run, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What `run.train` gives in the second of two processes, which do not meet here."""
    done = Trained(folders={}, num_steps=4, loss=1.0, resumed_from=0, broken={"marks": 1})
    monkeypatch.setattr("llava_video.train.run.train", lambda stage, show: done)
    given = ("train", "--config", config)
    assert run(*given).out == "toy: 4 steps; loss 1.0000. 1 example left out: 1 marks.\n"
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("RANK", "1")
    assert run(*given).out == run(*given, "--json").out == ""


def test_stages_are_run_in_turn_and_those_that_are_done_are_left(run, config: Path, tmp_path: Path):
    second = tmp_path / "second.yaml"
    text = config.read_text().replace("name: toy", "name: next")
    model, output = (line.split(": ")[1] for line in text.splitlines()[1:3])
    text = text.replace(model, f"{output}/original").replace(
        f"output: {output}", f"output: {output}2"
    )
    second.write_text(text)
    both = ("--config", config, "--config", second, "--set", "max_steps=1")
    outcome = run("train", *both)
    assert outcome.status == 0, outcome
    assert [line.partition(":")[0] for line in outcome.out.splitlines()] == [
        "toy",
        "  original",
        "next",
        "  original",
    ]
    before = (tmp_path / "run" / "metrics.jsonl").stat().st_mtime_ns
    shutil.rmtree(tmp_path / "run2")
    again = run("train", *both)
    assert again.status == 0, again
    assert again.out.startswith("toy: done before.\nnext: 1 steps")
    changed = run("train", *both, "--set", "learning_rate=5e-3")
    assert changed.status == 1
    assert "with other settings: learning_rate" in changed.err
    assert (tmp_path / "run" / "metrics.jsonl").stat().st_mtime_ns == before


def test_the_data_is_checked_and_nothing_is_trained(run, config: Path, tmp_path: Path):
    outcome = run("train", "--config", config, "--check")
    assert outcome.status == 0, outcome
    assert "4 examples: 4 text." in outcome.out
    assert "0 broken." in outcome.out
    assert not (tmp_path / "run").exists()
    some = json.loads((tmp_path / "data.json").read_text())
    some[1]["image"] = "none.png"
    (tmp_path / "data.json").write_text(json.dumps(some))
    outcome = run("train", "--config", config, "--check", "--json")
    assert outcome.status == 3
    assert json.loads(outcome.out)["num_broken"] == 1
    outcome = run("train", "--config", config, "--check", "--set", "data.max_tokens=2")
    assert outcome.status == 1
    assert "4 broken: 3 too long, 1 marks." in outcome.out


def with_two_broken(path: Path) -> None:
    some = json.loads(path.read_text())
    some[1]["conversations"][1]["value"] = " "
    some[2] |= {
        "image": "none.png",
        "conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "A"}],
    }
    path.write_text(json.dumps(some))


def test_what_is_left_out_is_told(run, config: Path, tmp_path: Path):
    """Of four examples the second leads to the third, and both to the fourth: 1 + 2 an epoch."""
    with_two_broken(tmp_path / "data.json")
    given = ("train", "--config", config, "--set", LEARN, "--set", "log_every=3")
    first = run(*given, "--set", "epochs=2").out.splitlines()[0]
    assert first.startswith("toy: 4 steps; loss ")
    assert first.endswith(" 6 examples left out: 4 missing file, 2 empty answer.")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [3, 4]
    assert json.loads(lines[-1])["broken"] == {"missing file": 4, "empty answer": 2}


def test_what_an_earlier_run_left_out_is_told_too(
    run, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with_two_broken(tmp_path / "data.json")
    changes = (LEARN, "epochs=2", "log_every=3", "save_every=2")
    broken_off(read_yaml(StageSettings, config, changes), monkeypatch, 3)
    given = [one for change in changes for one in ("--set", change)]
    outcome = run("train", "--config", config, *given, "--json")
    assert outcome.status == 0, outcome
    values = json.loads(outcome.out)
    assert values["resumed_from"] == 2
    assert values["broken"] == {"missing file": 4, "empty answer": 2}


def test_pairs_are_checked_as_pairs(run, config: Path, tmp_path: Path):
    given = ("train", "--config", config, "--set", "dpo.beta=0.2")
    assert "4 broken: 4 preference." in run(*given, "--check").out
    pairs = [{"prompt": f"{idx}?", "chosen": "Yes", "rejected": "No"} for idx in range(4)]
    (tmp_path / "data.json").write_text(json.dumps(pairs))
    outcome = run(*given, "--set", LEARN)
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.startswith("toy: 2 steps; loss 0.69")


def test_bad_input_is_refused(refused, config: Path, tmp_path: Path):
    assert "--config" in refused("train")
    assert "cannot read" in refused("train", "--config", tmp_path / "none.yaml")
    given = ("train", "--config", config, "--set")
    assert "did you mean learning_rate" in refused(*given, "lerning_rate=1")
    assert "did you mean max_frames" in refused(*given, "data.max_frame=1")
    assert "names no place" in refused(*given, "learning_rate")
    assert "at_least" not in refused(*given, "batch_size=0")
    world = (*given, "data.sources=[]", "--set", "data.world={}")
    assert "no file to check" in refused(*world, "--check")
    assert "none.json" in refused(*given, f"data.sources.0.path={tmp_path / 'none.json'}")
