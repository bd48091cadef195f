"""Keys of two vocabularies are read by one grammar, and name the part they say."""

import numpy as np
import pytest
from parity_keys import Key, aligned, index_of, part_of, read_key, rows_at, stored


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("clip_features", Key("features")),
        ("clip_features_frame0_first96", Key("features", ("frame0", "first96"))),
        ("vision_features_frame0", Key("features", ("frame0",))),
        ("image_tokens_last16", Key("visual rows", ("last16",))),
        ("last_image_token", Key("visual rows", ("last",))),
        ("embeds_position_mean", Key("embeddings", ("mean",))),
        ("inputs_embeds_row_mean", Key("embeddings", ("row_mean",))),
        ("spliced_rows", Key("visual rows", ("rows",))),
        ("pixel_values", Key("pixels")),
        ("pixel_values_u8_every24", Key("levels", ("every24",))),
        ("resized_u8_frame0", Key("levels", ("frame0",))),
        ("frames336_every8", Key("whole frames", ("every8",))),
        ("logits", Key("logits")),
        ("logits_last", Key("logits", ("last",))),
        ("logits_last4_valid", Key("logits", ("last4",))),
        ("logits_last16_without_labels", Key("logits", ("last16",), is_free=True)),
        ("logits_max", None),
        ("frames_0", None),
        ("spliced_row_index", None),
        ("mystery_first8", None),
    ],
)
def test_a_key_is_a_word_and_parts(key, expected):
    assert read_key(key) == expected


# Two frames of three rows of two numbers: row r of frame f is (10 f + r, 0).
FRAMES = np.array([[[10 * f + r, 0] for r in range(3)] for f in range(2)], dtype=np.float32)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((), [0, 1, 2, 10, 11, 12]),
        (("all",), [0, 1, 2, 10, 11, 12]),
        (("frame0",), [0, 1, 2]),
        (("frame0", "first2"), [0, 1]),
        (("first4",), [0, 1, 2, 10]),
        (("last2",), [11, 12]),
        (("rows",), [12, 1]),
    ],
)
def test_parts_of_rows(parts, expected):
    found = part_of(FRAMES, parts, np.array([5, 1]))
    assert found[:, 0].tolist() == expected


def test_the_last_row_is_one_row_and_a_mean_one_number():
    assert part_of(FRAMES, ("last",), None).tolist() == [12, 0]
    assert part_of(FRAMES, ("mean",), None).tolist() == [0, 0.5, 1, 5, 5.5, 6]
    assert part_of(FRAMES, ("row_mean",), None).dtype == np.float64


def test_rows_that_are_not_named_are_none():
    assert part_of(FRAMES, ("rows",), None) is None


def test_parts_of_pictures():
    pictures = np.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
    assert part_of(pictures, ("frame0",), None).shape == (3, 4, 4)
    assert part_of(pictures, ("every3",), None)[0, 0].tolist() == [[0, 3], [12, 15]]


def test_rows_outside_are_no_rows():
    rows = np.arange(6.0).reshape(3, 2)
    assert rows_at(rows, np.array([2, 0])).tolist() == [[4.0, 5.0], [0.0, 1.0]]
    assert rows_at(rows, np.array([3])).shape == (0, 2)
    assert rows_at(rows, np.array([-1])).shape == (0, 2)  # not the last one


def test_only_the_grouping_of_rows_may_differ():
    assert aligned(np.zeros((6, 2)), np.zeros((1, 6, 2))).shape == (1, 6, 2)
    assert aligned(np.zeros((6, 2)), np.zeros((5, 2))).shape == (6, 2)


def test_what_is_stored_is_found_under_either_word():
    arrays = {"greedy_ids": np.array([3]), "seq_len": np.array(4)}
    assert stored(arrays, "greedy_tokens") == ("greedy_ids", np.array([3]))
    assert stored(arrays, "seq_len") == ("seq_len", np.array(4))
    assert stored(arrays, "loss") is None


def test_an_index_stands_beside_its_rows():
    arrays = {"spliced_row_index": np.array([1])}
    assert index_of("spliced_rows", arrays) == np.array([1])
    assert index_of("projected_rows", arrays) is None
