"""Order and batches: every example once, like beside like, and the same order again."""

import json
from pathlib import Path
from typing import Any

import pytest

from llava_video.errors import ExampleError
from llava_video.model.spec import ModelSpec
from llava_video.train.batches import Examples, GroupedOrder, collate
from llava_video.train.examples import ExampleMaker
from llava_video.train.mixture import Record, read_mixture
from llava_video.train.settings import DataSettings, SourceSettings


def record(num_words: int, **media: str) -> Record:
    said = [{"from": "human", "value": "w " * (num_words - 1)}, {"from": "gpt", "value": "a"}]
    return Record(name="one", values={"conversations": said, **media}, folder="")


RECORDS = [
    *[record(2 + idx) for idx in range(11)],
    *[record(2 + idx, image="a") for idx in range(9)],
    *[record(2 + idx, video="a") for idx in range(6)],
]


def order(group_by: str, epoch: int = 0, seed: int = 0) -> list[int]:
    made = GroupedOrder(RECORDS, 4, group_by, seed)
    made.set_epoch(epoch)
    assert len(made) == len(RECORDS)
    return list(made)


def batches(order: list[int]) -> list[list[Record]]:
    return [[RECORDS[i] for i in order[at : at + 4]] for at in range(0, len(order), 4)]


@pytest.mark.parametrize("group_by", ["length", "modality", "none"])
def test_every_example_once_in_an_order_of_seed_and_epoch(group_by: str):
    first = order(group_by)
    assert sorted(first) == list(range(26))
    assert first == order(group_by)
    assert first != order(group_by, epoch=1)
    assert first != order(group_by, seed=1)
    assert first != sorted(first)


def test_modalities_stay_apart_but_for_the_rest():
    found = batches(order("modality"))
    mixed = [one for one in found if len({record.modality for record in one}) > 1]
    # 11, 9 and 6 are 2 + 2 + 1 whole batches; 3 + 1 + 2 are left over: two batches.
    assert len(found) == 7
    assert len(mixed) <= 2
    assert len(found[-1]) == 2


def test_lengths_are_alike_in_a_batch():
    def spread(found: list[list[Record]]) -> int:
        words = [[one.num_words for one in batch] for batch in found]
        return sum(max(batch) - min(batch) for batch in words)

    by_length = spread(batches(order("length")))
    assert by_length < spread(batches(order("none"))) / 2
    # Longest first within a mega-batch would put all long ones at the beginning.
    firsts = [batch[0].num_words for batch in batches(order("length"))]
    assert firsts != sorted(firsts, reverse=True)


@pytest.fixture
def broken(media: Path, good_entries: list[dict[str, Any]]) -> tuple[Record, ...]:
    path = media / "some_broken.json"
    lost = {**good_entries[2], "image": "none.png"}
    path.write_text(json.dumps([good_entries[0], lost, {"id": 3}, good_entries[1]]))
    return read_mixture([SourceSettings(path=str(path))], 0)


def test_a_broken_record_is_counted_and_the_next_one_taken(
    tiny_spec: ModelSpec, broken: tuple[Record, ...]
):
    data = DataSettings()
    examples = Examples(ExampleMaker(tiny_spec, data), broken, data)
    assert len(examples) == 4
    made = [examples[idx] for idx in range(4)]
    assert made[1].broken == ("missing file", "conversation")
    assert made[2].broken == ("conversation",)
    assert made[1].example.ids == made[2].example.ids == made[3].example.ids
    batch = collate(made[:2])
    assert batch["broken"] == ["missing file", "conversation"]
    assert len(batch["shares"]) == 2


def test_the_settings_may_say_that_a_broken_one_is_the_end(
    tiny_spec: ModelSpec, broken: tuple[Record, ...]
):
    data = DataSettings(broken="error")
    with pytest.raises(ExampleError, match=r"none\.png"):
        Examples(ExampleMaker(tiny_spec, data), broken, data)[1]
    short = DataSettings(max_tokens=10, too_long="error", broken="drop")
    with pytest.raises(ExampleError, match="max_tokens is 10"):
        Examples(ExampleMaker(tiny_spec, short), broken, short)[0]


def test_nothing_but_broken_ones_is_the_end(tiny_spec: ModelSpec, broken: tuple[Record, ...]):
    data = DataSettings()
    examples = Examples(ExampleMaker(tiny_spec, data), broken[1:3], data)
    with pytest.raises(ExampleError, match="2 examples one behind the other") as caught:
        examples[0]
    assert caught.value.kind == "conversation"
    assert "train --check" in caught.value.hint
    short = DataSettings(max_tokens=10)
    with pytest.raises(ExampleError, match="max_tokens is 10") as caught:
        Examples(ExampleMaker(tiny_spec, short), broken[:1], short)[0]
    assert str(caught.value).count("hint:") == 1  # not the last one's within the message
    assert caught.value.hint.startswith("raise max_tokens")
