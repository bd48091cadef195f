"""Cases are read as what their keys say: whose they are, in which order, and what is unknown."""

import json

import numpy as np
import pytest
from parity_set import Visual, case_of, cases_of, read_set


def pixels(level: int, *shape: int) -> np.ndarray:
    return np.full((*shape, 3), level, dtype=np.uint8)


def text(value: object) -> np.ndarray:
    return np.array(json.dumps(value))


def shades(visuals: tuple[Visual, ...]) -> list[tuple[str, int, int]]:
    return [(v.kind, int(v.frames[0, 0, 0, 0]), len(v.frames)) for v in visuals]


def test_one_prompt():
    case = case_of(
        "one",
        {
            "prompt": np.array("a <image> b"),
            "frames": pixels(7, 2, 4, 5),
            "modalities": text(["video"]),
            "config_overrides": text({"rope_scaling": None}),
            "logits_last": np.zeros(3),
            "spliced": np.zeros((2, 2)),
            "mystery": np.zeros(1),
        },
    )
    assert shades(case.samples[0].visuals) == [("video", 7, 2)]
    assert case.overrides == {"rope_scaling": None}
    assert set(case.samples[0].expected) == {"logits_last"}
    assert set(case.expected) == {"spliced"}
    assert case.unknown_keys == ("mystery",)
    assert case.model is None


def test_a_batch_is_told_apart_by_suffixes():
    case = case_of(
        "two",
        {
            "prompts": np.array(["<image> x", "<image> y"]),
            "frames_0": pixels(1, 2, 4, 4),
            "frames_1": pixels(2, 1, 4, 4),
            "modalities": text(["video", "video"]),
            "logits_last_0": np.zeros(3),
            "logits_last_1": np.ones(3),
            "logits_last_2": np.ones(3),
            "repetition_penalty": np.float64(1.1),
        },
    )
    assert [shades(sample.visuals) for sample in case.samples] == [
        [("video", 1, 2)],
        [("video", 2, 1)],
    ]
    assert case.samples[1].expected["logits_last"].tolist() == [1, 1, 1]
    assert [float(s.expected["repetition_penalty"]) for s in case.samples] == [1.1, 1.1]
    assert case.unknown_keys == ("logits_last_2",)


def test_rows_of_a_padded_batch_lose_their_padding():
    case = case_of(
        "two",
        {
            "prompts": np.array(["x", "y"]),
            "greedy_tokens": np.array([[1, 2], [3, 4]]),
            "logits_argmax": np.array([[0, 5, 6], [7, 8, 9]]),
            "attention_mask_out": np.array([[False, True, True], [True, True, True]]),
        },
    )
    found = [{k: v.tolist() for k, v in sample.expected.items()} for sample in case.samples]
    assert found == [
        {"greedy_tokens": [1, 2], "logits_argmax": [5, 6]},
        {"greedy_tokens": [3, 4], "logits_argmax": [7, 8, 9]},
    ]


@pytest.mark.parametrize("numbers", [(0, 1, 2), (0, 1, 0)], ids=["by visual", "by kind"])
def test_mixed_visuals_are_taken_in_the_order_of_the_marks(numbers):
    first, second, third = numbers
    arrays = {
        "prompt": np.array("<image> <image> <image>"),
        "modalities": text(["video", "video", "image"]),
        f"frames_{second}": pixels(2, 2, 4, 4),
        f"frames_{first}": pixels(1, 1, 4, 4),
        f"image_{third}": pixels(3, 4, 4),
    }
    visuals = case_of("mixed", arrays).samples[0].visuals
    assert shades(visuals) == [("video", 1, 1), ("video", 2, 2), ("image", 3, 1)]


def test_a_prefix_may_be_a_second_case_in_the_file():
    one = {
        "prompt": np.array("x"),
        "logits_last": np.zeros(1),
        "config_overrides": text({"rms_norm_eps": 1e-5}),
    }
    batch = {"batch_prompts": np.array(["y", "z"]), "batch_logits_last_1": np.ones(1)}
    plain, both = cases_of("case", one | batch)
    assert [s.prompt for s in plain.samples] == ["x"]
    assert [s.prompt for s in both.samples] == ["y", "z"]
    assert both.samples[1].expected["logits_last"].tolist() == [1]
    assert plain.overrides == both.overrides == {"rms_norm_eps": 1e-5}
    (alone,) = cases_of("case", batch)
    assert [s.prompt for s in alone.samples] == ["y", "z"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "no prompt"),
        ({"prompt": np.array("<image>")}, "more <image> marks"),
        ({"prompt": np.array("x"), "image_0": pixels(0, 4, 4)}, "more visuals"),
        ({"prompt": np.array("<image>"), "modalities": text(["video"])}, "names more videos"),
    ],
)
def test_what_does_not_fit_is_refused(arrays, message):
    with pytest.raises(ValueError, match=message):
        case_of("odd", arrays)


def test_facts_stand_in_for_arrays():
    facts = {"prompt": "hi", "checkpoint": "one", "config_overrides": {"rms_norm_eps": 1e-5}}
    case = case_of("case", {"seq_len": np.int64(1)}, facts)
    assert (case.model, case.samples[0].prompt) == ("one", "hi")
    assert case.overrides == {"rms_norm_eps": 1e-5}


def test_a_folder_without_models_or_cases_is_no_set(tmp_path):
    with pytest.raises(FileNotFoundError, match="no cases"):
        read_set(tmp_path)
    (tmp_path / "cases").mkdir()
    with pytest.raises(FileNotFoundError, match="model folders"):
        read_set(tmp_path)
