"""Cases are read as what their keys say: whose they are, in which order, and what is unknown."""

import json

import numpy as np
import pytest
from parity_case import Visual, case_of, cases_of


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


def test_another_vocabulary_is_sorted_alike():
    """Logits and what is greedy belong to samples, the rest to the case, whatever its words."""
    case = case_of(
        "one",
        {
            "image_0": pixels(7, 4, 5),
            "input_ids": np.array([1, -200, 5]),
            "clip_features_frame0_first96": np.zeros((2, 2)),
            "image_tokens_mean": np.zeros(3),
            "frames336_every8": pixels(1, 2, 3, 3),
            "logits_last16_without_labels": np.zeros((2, 3)),
            "greedy_ids": np.zeros(4, dtype=int),
            "logits_first": np.zeros(1),
        },
        {"prompt": "<image> x", "overrides": {"mm_newline_position": "grid"}, "tiles": 5},
    )
    assert set(case.samples[0].expected) == {"logits_last16_without_labels", "greedy_ids"}
    assert set(case.expected) == {
        "input_ids",
        "clip_features_frame0_first96",
        "image_tokens_mean",
        "frames336_every8",
    }
    assert case.unknown_keys == ("logits_first",)
    assert case.overrides == {"mm_newline_position": "grid"}
    assert case.facts == {"tiles": 5}


def test_rows_of_a_batch_are_each_its_own():
    facts = {"prompt": ["x", "y"]}
    arrays = {
        "logits_last4_valid": np.arange(2 * 4 * 3).reshape(2, 4, 3),
        "expanded_attention_mask": np.array([[True] * 4, [True] * 3 + [False]]),
        "expanded_lengths": np.array([4, 3]),
    }
    case = case_of("two", arrays, facts)
    rows = [sample.expected["logits_last4_valid"] for sample in case.samples]
    assert [row.tolist() for row in rows] == arrays["logits_last4_valid"].tolist()
    assert set(case.expected) == {"expanded_attention_mask", "expanded_lengths"}


def test_a_conversation_or_bare_ids_are_prompts_too():
    turns = [{"from": "human", "value": "<image>\nWho?"}, {"from": "gpt", "value": "Me."}]
    learned = case_of(
        "learned",
        {"image_0": pixels(0, 4, 4), "labels": np.zeros(3), "input_ids": np.zeros(3)},
        {"conversations": turns},
    )
    assert learned.samples[0].conversation == tuple(turns)
    assert len(learned.samples[0].visuals) == 1
    assert set(learned.expected) == {"input_ids"}  # compared with what the turns give
    bare = case_of(
        "bare",
        {
            "image_0": pixels(0, 4, 4),
            "input_ids": np.array([[1, -200], [1, 2]]),
            "labels": np.array([[-100, 3], [-100, 4]]),
            "loss_batch": np.float32(1),
        },
    )
    assert [sample.ids for sample in bare.samples] == [(1, -200), (1, 2)]
    assert [len(sample.visuals) for sample in bare.samples] == [1, 0]
    assert bare.samples[1].expected["labels"].tolist() == [-100, 4]
    assert set(bare.expected) == {"loss_batch"}


@pytest.mark.parametrize(
    ("remark", "overrides"),
    [
        ("one centre-cropped tile in a list", {"image_aspect_ratio": "square"}),
        ("short edge resize, then center crop", {"image_aspect_ratio": "square"}),
        ("fed as it is", {}),
    ],
)
def test_a_remark_may_say_how_pictures_are_handled(remark, overrides):
    assert case_of("case", {}, {"prompt": "x", "remark": remark}).overrides == overrides
