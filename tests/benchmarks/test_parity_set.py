"""A folder is read as a set, and a case with the inputs that its facts say are another's."""

import json
from pathlib import Path

import numpy as np
import pytest
from parity_set import GoldenSet, read_set


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for model in ("whole", "part"):
        (tmp_path / model).mkdir()
        (tmp_path / model / "config.json").write_text("{}", encoding="utf-8")
    cases = tmp_path / "cases"
    cases.mkdir()
    np.savez(
        cases / "first.npz",
        image_0=np.zeros((2, 2, 3), np.uint8),
        input_ids=np.array([1]),
        logits=np.zeros(2),
    )
    np.savez(cases / "second.npz", seq_len=np.int64(1))
    return tmp_path


def with_facts(folder: Path, **facts: object) -> GoldenSet:
    (folder / "cases.json").write_text(json.dumps(facts), encoding="utf-8")
    return read_set(folder)


@pytest.mark.parametrize(
    ("facts", "keys"),
    [
        ({"inputs_from": "first"}, {"seq_len", "image_0", "input_ids"}),
        ({"picture_from": "first"}, {"seq_len", "image_0"}),
        ({"remark": "the row uses the picture of first; the other none"}, {"seq_len", "image_0"}),
        ({"remark": "nothing of the sort"}, {"seq_len"}),
        ({}, {"seq_len"}),
    ],
)
def test_inputs_come_from_another_case_where_the_facts_say_so(folder, facts, keys):
    assert set(with_facts(folder, second=facts).arrays_of("second")) == keys


def test_a_case_keeps_its_own_picture(folder):
    golden = with_facts(folder, first={"remark": "not as second"})
    assert set(golden.arrays_of("first")) == {"image_0", "input_ids", "logits"}


def test_another_case_that_is_not_there_is_refused(folder):
    with pytest.raises(ValueError, match="picture_from is 'nobody'"):
        with_facts(folder, second={"picture_from": "nobody"}).arrays_of("second")


def test_a_model_lies_over_the_folder_its_cases_name(folder):
    golden = with_facts(folder, second={"checkpoint": "part", "base": "whole"})
    assert golden.base_of("part") == folder / "whole"
    assert golden.base_of("whole") is None
    with pytest.raises(ValueError, match="part lies over nobody"):
        with_facts(folder, second={"checkpoint": "part", "base": "nobody"}).base_of("part")


def test_what_others_consist_of_is_not_tested_itself(folder):
    (folder / "tower").mkdir()
    (folder / "tower" / "config.json").write_text("{}", encoding="utf-8")
    assert set(read_set(folder).tested) == {"whole", "part", "tower"}
    named = '{"mm_vision_tower": "tower"}'
    (folder / "part" / "config.json").write_text(named, encoding="utf-8")
    over = {"checkpoint": "part", "base": "whole"}
    assert set(with_facts(folder, second=over).tested) == {"part"}
    assert set(with_facts(folder, first={"checkpoint": "whole"}, second=over).tested) == {
        "part",
        "whole",
    }


def test_a_case_without_a_file_is_refused(folder):
    with pytest.raises(ValueError, match=r"there is no cases/third\.npz"):
        with_facts(folder, third={"checkpoint": "part"}).arrays_of("third")


def test_sets_that_say_what_their_cases_are_are_compared_more_closely(folder):
    assert read_set(folder).logits_limit == 2e-3
    assert with_facts(folder, second={}).logits_limit == 2e-4


def test_a_folder_without_models_or_cases_is_no_set(tmp_path):
    with pytest.raises(FileNotFoundError, match="no cases"):
        read_set(tmp_path)
    (tmp_path / "cases").mkdir()
    with pytest.raises(FileNotFoundError, match="model folders"):
        read_set(tmp_path)
