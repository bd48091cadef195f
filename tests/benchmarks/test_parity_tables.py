"""Every kind of table is told by its rows and read to its last column; expected values by hand.

Numbers are those of the original code; a row is also given with a value changed, which must be
noticed.
"""

import copy
from typing import Any

import numpy as np
import pytest
from parity_checks import Check, Findings
from parity_model import Candidate, candidate
from parity_tables import compare_pooling, is_pooling, kind_of, rows_of

from llava_video.model.tiny import write_tiny_checkpoint

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)
# One frame per second of 25: 0, 25, 50, 75; of 3, spread from the first to the last: 0, 49.5, 99.
WHOLE_RATES = [
    {
        "total_frames": 100,
        "fps": 25.0,
        "limit": limit,
        "force_sample": False,
        "indices": indices,
        "frame_time": times,
        "video_time": 4.0,
    }
    for limit, indices, times in (
        (32, [0, 25, 50, 75], "0.00s,1.00s,2.00s,3.00s"),
        (3, [0, 49, 99], "0.00s,1.96s,3.96s"),
    )
]
# Borders 0, 24.75, 49.5, 74.25, 99, rounded 0, 25, 50, 74, 99; halfway, rounded down.
MIDPOINTS = [{"total": 100, "want": 4, "indices": [12, 37, 62, 86]}]
PICTURES = {
    "pinpoints_wh": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
    "rows": [
        {
            "size_wh": size,
            "best_resolution_wh": best,
            "grid_wh": [best[0] // 336, best[1] // 336],
            "rows_cols_after_unpad": kept,
            "image_tokens": 576 + kept[0] * (kept[1] + 1),
        }
        for size, best, kept in (
            ([640, 480], [672, 672], [36, 48]),
            ([336, 336], [336, 672], [24, 24]),
            ([500, 200], [672, 336], [20, 48]),
            ([6, 900], [336, 1008], [72, 0]),
        )
    ],
}
TURNS = {
    "vicuna_v1": {
        "one_turn": f"{SYSTEM} USER: <image>\nWho? ASSISTANT:",
        "two_turns": f"{SYSTEM} USER: <image>\nWho? ASSISTANT: Me.</s>USER: Why? ASSISTANT:",
        "sep": " ",
        "sep2": "</s>",
    },
    "mistral_instruct": {
        "one_turn": "[INST] <image>\nWho? [/INST]",
        "two_turns": "[INST] <image>\nWho? [/INST] Me. </s>[INST] Why? [/INST]",
    },
    "chatml_direct": {
        "one_turn": "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n"
        "<image>\nWho?<|im_end|><|im_start|>assistant\n",
        "sep": "<|im_end|>",
        "sep2": None,
    },
}


def labelled() -> list[dict[str, Any]]:
    """Return a conversation in the tiny tokenizer's ids: bytes, then <unk>, <s> and </s>.

    What is learned is the answer with the blank before it, and its end.
    """
    asked = f"{SYSTEM} USER: ".encode(), b"\nWho? ASSISTANT:"
    ids = [257, *asked[0], -200, *asked[1]]
    learned = [*b" Me.", 258]
    conversation = [{"from": "human", "value": "Who?\n<image>"}, {"from": "gpt", "value": "Me."}]
    return [
        {
            "template": "vicuna_v1",
            "sample": "a",
            "conversations": conversation,
            "input_ids": ids + learned,
            "labels": [-100] * len(ids) + learned,
        }
    ]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Candidate]:
    folder = tmp_path_factory.mktemp("tables")
    for member in ("LLaVA-1.5", "LLaVA-NeXT"):
        write_tiny_checkpoint(folder / member, member=member, tile_px=336)
    folders = {path.name: path for path in folder.iterdir()}
    return [candidate(name, folders) for name in sorted(folders)]


def checks_of(table: Any, models: list[Candidate]) -> list[Check]:
    kind = kind_of(table)
    found = []
    for model in kind.models(models):
        findings = Findings(model.name if model else "-", "table")
        kind.compare(findings, model, list(rows_of(table)))
        found += findings.checks
    return found


@pytest.mark.parametrize(
    ("table", "asked"),
    [
        (WHOLE_RATES, {"-"}),
        (MIDPOINTS, {"-"}),
        (PICTURES, {"LLaVA-NeXT"}),
        (TURNS, {"-"}),
        (labelled(), {"LLaVA-1.5", "LLaVA-NeXT"}),
    ],
    ids=["rates", "midpoints", "pictures", "turns", "labels"],
)
def test_a_table_is_read_by_the_models_it_is_asked_of(table, asked, models):
    checks = checks_of(table, models)
    assert [check for check in checks if not check.passed] == []
    assert {check.model for check in checks} == asked
    assert kind_of(table).unknown(list(rows_of(table))) == []


@pytest.mark.parametrize(
    ("table", "path", "value"),
    [
        (WHOLE_RATES, (1, "indices"), [0, 50, 99]),  # rounded, not cut off
        (WHOLE_RATES, (1, "frame_time"), "0.00s,1.98s,3.96s"),
        (WHOLE_RATES, (0, "video_time"), 4.04),
        (MIDPOINTS, (0, "indices"), [12, 37, 62, 87]),  # rounded up
        (PICTURES, ("rows", 0, "best_resolution_wh"), [336, 672]),
        (PICTURES, ("rows", 1, "rows_cols_after_unpad"), [48, 24]),
        (PICTURES, ("rows", 2, "image_tokens"), 576 + 20 * 48 + 1),  # one newline, not one a row
        (PICTURES, ("rows", 3, "rows_cols_after_unpad"), [72, 2]),  # a line kept
        (TURNS, ("vicuna_v1", "two_turns"), f"{SYSTEM} USER: <image>\nWho? ASSISTANT: Me. USER:"),
        (TURNS, ("vicuna_v1", "sep2"), "</s><s>"),
        (TURNS, ("chatml_direct", "one_turn"), "<|im_start|>user\n<image>\nWho?"),
        (labelled(), (0, "input_ids"), [257, 65]),
        (labelled(), (0, "labels"), [-100] * len(labelled()[0]["labels"])),
    ],
)
def test_a_wrong_value_is_noticed(table, path, value, models):
    changed = copy.deepcopy(table)
    at = changed
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    assert [check for check in checks_of(changed, models) if not check.passed]


@pytest.mark.parametrize(
    "table", [[], {}, [1], "text", [{"what": 1}], [*MIDPOINTS, {"total": 1}], {"vicuna_v1": 3}]
)
def test_a_table_of_another_kind_is_none(table):
    assert kind_of(table) is None


def test_keys_that_nothing_reads_are_told():
    rows = [{**MIDPOINTS[0], "colour": "red"}]
    assert kind_of(rows).unknown(rows) == ["colour"]


def test_pooling_is_a_case_of_maps():
    """4 x 4 patches, each its number: the mean of the first four is (0 + 1 + 4 + 5) / 4."""
    maps = np.arange(16, dtype=np.float32).reshape(1, 16, 1)
    arrays = {
        "input": maps,
        "average_stride2": np.array([[[2.5], [4.5], [10.5], [12.5]]]),
        "max_stride2": np.array([[[5.0], [7.0], [13.0], [15.0]]]),
        "mystery": maps,
    }
    assert is_pooling(arrays)
    findings = Findings("model", "pooling")
    assert compare_pooling(findings, arrays) == ["mystery"]
    assert [check.passed for check in findings.checks] == [True, True]
    arrays["max_stride2"] = arrays["average_stride2"]
    findings = Findings("model", "pooling")
    compare_pooling(findings, arrays)
    assert [check.passed for check in findings.checks] == [True, False]
