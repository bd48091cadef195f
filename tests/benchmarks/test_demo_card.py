"""The card's script puts facts and results together, and refuses what it cannot read."""

import json
from pathlib import Path

import demo_card
import pytest

from llava_video.model.card import Result, read_card
from llava_video.world.question import ANSWERS

FACTS = "name: demo\nworld: small\nseed: 7\nlimits: [knows nothing else]\nknows: {colours: [red]}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "facts.yaml").write_text(FACTS)
    first = {"a": {"n": 4, "accuracy": 0.5, "low": 0.2, "high": 0.8, "blind": 0.25}}
    second = {"a": {"n": 9, "accuracy": 1, "low": 0.7, "high": 1}, "b": first["a"]}
    (tmp_path / "first.json").write_text(json.dumps(first))
    (tmp_path / "second.json").write_text(json.dumps(second))
    return tmp_path


def written(folder: Path, *results: str) -> int:
    paths = [str(folder / name) for name in results]
    facts = ["--facts", str(folder / "facts.yaml")]
    return demo_card.main([str(folder), *facts, "--results", *paths])


def test_the_card_is_written_and_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert written(folder, "first.json", "second.json") == 0
    card = read_card(folder)
    assert card is not None
    assert (card.name, card.seed, card.limits) == ("demo", 7, ("knows nothing else",))
    assert card.results[0] == Result(kind="a", n=9, accuracy=1, low=0.7, high=1)
    assert [result.kind for result in card.results] == ["a", "b"]
    assert capsys.readouterr().out == f"{card}\n"


def test_what_is_taught_is_filled_in(folder: Path) -> None:
    written(folder, "first.json")
    card = read_card(folder)
    assert card is not None
    assert card.describe == "Describe the video in detail."
    assert card.knows.colours == ("red",)  # as the facts have it
    assert card.knows.objects == ("circle", "square", "triangle", "diamond", "cross", "ring")
    assert "it hides behind the wall" in card.knows.events
    assert len(card.knows.questions) == 3 + len(ANSWERS)
    assert card.knows.questions[2] == "Describe the video with times."
    (folder / "facts.yaml").write_text("name: other\n")
    written(folder, "first.json")
    assert read_card(folder).knows.objects == ()


def test_what_one_training_decides_is_set_beside_the_facts(folder: Path) -> None:
    changes = ("seed=12", "wall_time_s=5400", "trained_on=two stages: a, then b", 'limits=["one"]')
    results = ["--results", str(folder / "first.json")]
    assert demo_card.main([str(folder), *results, *(f"--set={one}" for one in changes)]) == 0
    card = read_card(folder)
    assert card is not None
    assert (card.name, card.world, card.seed) == ("demo", "small", 12)
    assert (card.wall_time_s, card.limits) == (5400.0, ("one",))
    assert card.trained_on == "two stages: a, then b"
    assert card.licence == "Apache-2.0"


@pytest.mark.parametrize("change", ["seed", "=3", "sed=3", "seed=many"])
def test_a_change_that_is_none_is_told(
    folder: Path, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(folder), "--results", str(folder / "first.json"), "--set", change]
    assert demo_card.main(arguments) == 1
    assert "hint: " in capsys.readouterr().err
    assert read_card(folder) is None


def test_what_is_wrong_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert written(folder, "nowhere.json") == 1
    assert "cannot read" in capsys.readouterr().err
    (folder / "second.json").write_text("[1]")
    assert written(folder, "second.json") == 1
    assert "holds no object" in capsys.readouterr().err
    (folder / "second.json").write_text('{"a": {"n": 4, "accuracy": 50, "low": 20, "high": 80}}')
    assert written(folder, "second.json") == 1
    assert "shares of 1" in capsys.readouterr().err
    assert read_card(folder) is None
