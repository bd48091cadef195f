"""Pairs of the small world: the right answer against a wrong one of the same kind."""

import dataclasses
import json
from collections import Counter
from pathlib import Path

import pytest

from llava_video.world.dataset import read_records, write_world
from llava_video.world.example import make_example, records
from llava_video.world.preference import preferences, write_preferences
from llava_video.world.question import ANSWERS
from llava_video.world.splits import split_settings


def test_every_closed_question_is_a_pair():
    example = make_example(split_settings("train"), "train", 0, 3)
    whole = [record for record in records(example, "one", "a.mp4") if "chat" in record["id"]]
    pairs = [pair for record in whole for pair in preferences(record)]
    closed = [one for one in example.questions if len(one.choices) > 1]
    assert [(pair["prompt"], pair["chosen"]) for pair in pairs] == [
        (one.text, one.answer) for one in closed
    ]
    assert 0 < len(closed) < len(example.questions)  # of signs and times there are none
    for pair, one in zip(pairs, closed, strict=True):
        assert pair["rejected"] in one.choices
        assert not one.is_right(pair["rejected"])
        assert pair["video"] == "a.mp4"
    assert len({pair["id"] for pair in pairs}) == len(pairs)
    again = [pair for record in whole for pair in preferences(record)]
    assert again == pairs


def test_the_wrong_answer_is_any_other():
    asked = {"kind": "colour", "text": "Which?", "answer": "red", "choices": ANSWERS["colour"]}
    found = Counter(
        pair["rejected"]
        for number in range(700)
        for pair in preferences({"id": number, "video": "a", "answers": [asked]})
    )
    assert found.keys() == set(ANSWERS["colour"]) - {"red"}
    assert min(found.values()) > 60  # of 100 each


@pytest.mark.parametrize("choices", [(), ("red",)])
def test_an_open_question_is_none(choices: tuple[str, ...]):
    asked = {"kind": "x", "text": "Which?", "answer": "red", "choices": choices}
    assert list(preferences({"id": 1, "video": "a", "answers": [asked]})) == []


def test_a_file_beside_the_data_file(tmp_path: Path):
    small = dataclasses.replace(
        split_settings("train"), sizes_px=((48, 48),), rates_hz=(2.0,), lengths_s=(4.0,)
    )
    path = write_world(tmp_path, 2, settings=small)
    target, num_pairs = write_preferences(path)
    assert target == tmp_path / "train_preferences.jsonl"
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert lines == [pair for record in read_records(path) for pair in preferences(record)]
    assert len(lines) == num_pairs > 4
    assert {line["video"] for line in lines} == {"videos/000000.mp4", "videos/000001.mp4"}
