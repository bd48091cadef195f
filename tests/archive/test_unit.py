"""A key changes with what decides a result, and with nothing else."""

from dataclasses import replace

import pytest

from llava_video.archive.unit import Item, Unit, UnitError, unit_key
from llava_video.errors import DecodeError, SourceError

ITEM = Item(number=3, address="a.mp4", prompts=("What?",), start_s=1.5, end_s=4.0, name="A")


def key_of(item: Item = ITEM, content: str = "c0", task: str = "t", model: str = "m") -> str:
    return unit_key(content, item, task, model, prompts=("Describe.",))


def test_a_key_is_a_sha256():
    assert len(bytes.fromhex(key_of())) == 32


@pytest.mark.parametrize("same", [{"number": 9}, {"address": "moved/b.mp4"}, {"name": ""}])
def test_path_place_and_name_are_no_part_of_the_work(same: dict):
    assert key_of(replace(ITEM, **same)) == key_of()


@pytest.mark.parametrize(
    "other",
    [{"prompts": ("Who?",)}, {"prompts": ("What?", "Who?")}, {"start_s": 2.0}, {"end_s": None}],
)
def test_another_span_or_prompt_is_other_work(other: dict):
    assert key_of(replace(ITEM, **other)) != key_of()


@pytest.mark.parametrize("other", [{"content": "c1"}, {"task": "t2"}, {"model": "m2"}])
def test_other_bytes_task_or_model_are_other_work(other: dict):
    assert key_of(**other) != key_of()


def test_the_tasks_prompt_counts_only_where_an_item_has_none():
    bare = replace(ITEM, prompts=())
    one, two = (("Describe.",), ("Summarise.",))
    assert unit_key("c", bare, "t", "m", prompts=one) != unit_key("c", bare, "t", "m", prompts=two)
    assert unit_key("c", ITEM, "t", "m", prompts=one) == unit_key("c", ITEM, "t", "m", prompts=two)
    # Asked by the task or by the manifest, the same question is the same work.
    own = replace(ITEM, prompts=one)
    assert unit_key("c", bare, "t", "m", prompts=one) == unit_key("c", own, "t", "m", prompts=two)


def test_whole_seconds_are_seconds():
    assert key_of(replace(ITEM, start_s=2)) == key_of(replace(ITEM, start_s=2.0))


def test_texts_that_run_together_differ():
    apart = replace(ITEM, prompts=("a", "bc"))
    assert key_of(apart) != key_of(replace(ITEM, prompts=("ab", "c")))


@pytest.mark.parametrize(
    "item", [ITEM, Item(number=0, address="é \udce9.mp4"), replace(ITEM, start_s=0.0, prompts=())]
)
def test_items_come_back_from_their_text(item: Item):
    text = item.to_json()
    assert Item.from_json(item.number, text) == item
    assert text.isascii() or "\n" not in text
    text.encode()  # half a character of a file name must not stop the ledger


def test_errors_keep_their_class_sentence_and_place():
    found = UnitError.of(DecodeError("frame 9 is broken.", "cut it off.", pts_s=0.3))
    assert found == UnitError(
        kind="DecodeError", message="frame 9 is broken.", hint="cut it off.", position_s=0.3
    )
    assert UnitError.of(SourceError("gone.")).position_s is None
    assert UnitError.of(ZeroDivisionError()).message == "ZeroDivisionError()"


def test_a_unit_starts_with_a_clean_sheet():
    unit = Unit(key="k", number=0, item=ITEM, content_hash="c")
    assert (unit.attempts, unit.crashes, unit.interruptions) == (0, 0, 0)
