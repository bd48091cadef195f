"""A card is written, read back and printed; what is no card is refused or left alone."""

import json
import logging
import shutil
from pathlib import Path

import pytest
from demo_stand_in import FACTS, RESULTS, write_stand_in

from llava_video.api import load
from llava_video.errors import CheckpointError, ConfigError
from llava_video.model.card import Knowledge, ModelCard, Result, read_card, write_card
from llava_video.model.convert import convert_checkpoint
from llava_video.model.spec import read_spec


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = write_card(tmp_path, FACTS, RESULTS)
    assert read_card(tmp_path) == written
    assert written.world == "small"
    assert written.knows.colours == ("red", "blue")
    colour, when = written.results
    assert colour == Result(kind="colour", n=1200, accuracy=0.125, low=0.1, high=0.15, blind=0.12)
    assert (when.kind, when.blind) == ("when", None)
    again = write_card(tmp_path, {**FACTS, "seed": 4}, {})
    assert read_card(tmp_path) == again != written
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]


def test_a_person_can_read_it() -> None:
    card = ModelCard(
        name="toy",
        about="knows two shapes",
        knows=Knowledge(objects=("ring", "cross"), questions=("Who?", "When?")),
        wall_time_s=6300.0,
        limits=("no sound",),
        results=(
            Result(kind="yes/no", n=2000, accuracy=0.975, low=0.97, high=0.98, blind=0.5),
            Result(kind="when", n=9, accuracy=1.0, low=0.7, high=1.0),
        ),
    )
    assert str(card).splitlines() == [
        "toy: knows two shapes",
        "",
        "objects     ring, cross",
        "questions   Who?",
        "            When?",
        "training    1.8 hours",
        "limits      no sound",
        "",
        "measured   share    95 % interval  blind      n",
        "yes/no     97.5%   97.0% to 98.0%  50.0%  2,000",
        "when      100.0%  70.0% to 100.0%             9",
    ]
    assert str(ModelCard(name="bare")) == "bare\n"


@pytest.mark.parametrize(
    "change",
    [
        {"n": 0},
        {"accuracy": 12.5},
        {"accuracy": 0.2},  # above the interval
        {"low": 0.13},
        {"blind": -0.1},
        {"high": float("nan")},
    ],
)
def test_numbers_that_cannot_be_are_refused(tmp_path: Path, change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="the result 'colour' has n = "):
        write_card(tmp_path, FACTS, {"colour": RESULTS["colour"] | change})
    assert list(tmp_path.iterdir()) == []


def test_facts_that_no_card_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no setting 'worlds'") as told:
        write_card(tmp_path, {"name": "x", "worlds": "small"}, {})
    assert "did you mean world?" in told.value.hint
    with pytest.raises(ConfigError, match="lacks name"):
        write_card(tmp_path, {}, {})
    with pytest.raises(ConfigError, match="the facts hold results"):
        write_card(tmp_path, {"name": "x", "results": []}, {})
    with pytest.raises(ConfigError, match="lacks high"):
        write_card(tmp_path, {"name": "x"}, {"a": {"n": 1, "accuracy": 1, "low": 1}})
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_card(tmp_path / "nowhere", {"name": "x"}, {})


def test_what_is_no_card(tmp_path: Path) -> None:
    assert read_card(tmp_path) is None
    path = tmp_path / "card.json"
    path.write_text('{"license": "somebody else\'s form"}')
    assert read_card(tmp_path) is None
    path.write_text('{"card": 1, "name": "x", "world": "large"}')
    with pytest.raises(CheckpointError, match="is no card: world = 'large'"):
        read_card(tmp_path)
    path.write_text("[")
    with pytest.raises(CheckpointError, match="cannot read"):
        read_card(tmp_path)


def test_a_card_of_another_version_is_told_of_and_left(
    tmp_path: Path, tiny_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    (folder / "card.json").write_text('{"card": 2, "name": "x", "hues": ["red"]}')
    with caplog.at_level(logging.WARNING):
        assert read_spec(folder).card is None
    assert "no card of version 1 but of 2" in caplog.text


def test_a_loaded_model_shows_it(demo_checkpoint: Path, tiny_folder: Path) -> None:
    with load("demo", device="cpu") as model:
        assert model.card is not None
        assert model.card.world == "small"
        assert model.card == read_card(demo_checkpoint)
    with load(tiny_folder, device="cpu") as model:
        assert model.card is None


@pytest.mark.parametrize("layout", ["original", "hf"])
def test_it_goes_with_the_weights(tmp_path: Path, layout: str) -> None:
    source = write_stand_in(tmp_path / "source")
    convert_checkpoint(source, tmp_path / layout, layout=layout)
    assert json.loads((tmp_path / layout / "card.json").read_text())["seed"] == 3
    assert read_card(tmp_path / layout) == read_card(source)
