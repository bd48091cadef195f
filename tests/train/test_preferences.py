"""Preferences become pairs: each answer learned as alone, behind a beginning that is there once."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from llava_video.errors import ConfigError, ExampleError
from llava_video.model.spec import ModelSpec, read_spec
from llava_video.train.check import check_data
from llava_video.train.examples import ExampleMaker
from llava_video.train.forward import Example
from llava_video.train.mixture import Record, read_mixture
from llava_video.train.preferences import PairMaker, pair_of
from llava_video.train.settings import DataSettings, SourceSettings

MARK = -200
DATA = DataSettings(max_frames=3)


def record(folder: Path | str = "m", **values: Any) -> Record:
    return Record(name="one", values=values, folder=str(folder))


def plain(folder: Path, question: str, answer: str, **media: Any) -> Record:
    said = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return record(folder, conversations=said, **media)


def both(pair: Example) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return ids and labels of both conversations, put together by hand."""
    first, second = pair.tails
    shared, hidden = pair.ids[:first], pair.labels[:first]
    return [
        (shared + pair.ids[one], hidden + pair.labels[one])
        for one in (slice(first, second), slice(second, None))
    ]


def test_both_answers_are_learned_as_alone(tiny_spec: ModelSpec, media: Path):
    """The format of LLaVA-Hound: no mark in the prompt, a third answer that is not asked for."""
    values = {"prompt": "What is it?", "answer": "x", "chosen": "A bar.", "rejected": "A dog?"}
    pair = PairMaker(tiny_spec, DATA).example(record(media, **values, video="clip.mp4"))
    alone = [
        ExampleMaker(tiny_spec, DATA).example(
            plain(media, "<image>\nWhat is it?", values[key], video="clip.mp4")
        )
        for key in ("chosen", "rejected")
    ]
    assert both(pair) == [(one.ids, one.labels) for one in alone]
    assert pair.plans == alone[0].plans
    assert pair.tiles.equal(alone[0].tiles)
    # All but the row that the answer's first token is read from is there once.
    num_answer = len(tiny_spec.tokenizer.encode("A bar.<|im_end|>"))
    assert pair.tails == (len(alone[0].ids) - num_answer - 1, len(alone[0].ids))
    assert pair.num_rows == alone[0].num_rows + num_answer + 1


@pytest.mark.parametrize("template", ["vicuna_v1", "llava_llama_2", "mpt", "llava_llama_3_1"])
@pytest.mark.parametrize(
    ("chosen", "rejected"), [("Yes", "Yes, it is"), ("No", "Never"), ("It is a cat. ", "It is")]
)
def test_every_template(shared: Path, media: Path, template: str, chosen: str, rejected: str):
    """One answer may be the other's beginning; Llama's tokens hold the blank before a word."""
    folder = shared / "golden" / "family" / "llava-v1.5-tiny"
    spec = read_spec(folder).with_template(template)
    given = {"prompt": "Is it?", "chosen": chosen, "rejected": rejected, "image": "a.png"}
    pair = PairMaker(spec, DATA).example(record(media, **given))
    alone = [
        ExampleMaker(spec, DATA).example(plain(media, "<image>\nIs it?", answer, image="a.png"))
        for answer in (chosen, rejected)
    ]
    assert both(pair) == [(one.ids, one.labels) for one in alone]
    assert all(pair.labels[tail] == -100 for tail in pair.tails)


def test_of_a_longer_conversation_the_last_answer_is_learned(tiny_spec: ModelSpec, media: Path):
    said = [
        {"from": "human", "value": "Hello"},
        {"from": "gpt", "value": "Good day."},
        {"from": "human", "value": "<video> and <image>?"},
    ]
    answers = {"chosen": {"from": "gpt", "value": "Bars."}, "rejected": "Dogs."}
    pair = PairMaker(tiny_spec, DATA).example(
        record(media, conversations=said, **answers, video="clip.mp4", image="a.png")
    )
    learned = [label for label in pair.labels if label != -100]
    encode = tiny_spec.tokenizer.encode
    assert learned == [*encode("Bars.<|im_end|>"), *encode("Dogs.<|im_end|>")]
    assert pair.ids[: pair.tails[0]].count(MARK) == 2
    whole = record(
        media,
        conversations=[*said, {"from": "gpt", "value": "Dogs."}],
        video="clip.mp4",
        image="a.png",
    )
    assert both(pair)[1][0] == ExampleMaker(tiny_spec, DATA).example(whole).ids


def test_marks_are_put_before_a_prompt_that_has_none():
    answers = {"chosen": "A", "rejected": "B"}
    for given, expected in (
        ({"prompt": "Q"}, "Q"),
        ({"prompt": "Q", "video": "v"}, "<image>\nQ"),
        ({"prompt": "Q", "video": "v", "image": ["a", "b"]}, "<image>\n<image>\n<image>\nQ"),
        ({"prompt": "Q <video>", "video": "v"}, "Q <video>"),
    ):
        chosen, rejected = pair_of(record(**given, **answers))
        assert chosen.values["conversations"] == [
            {"from": "human", "value": expected},
            {"from": "gpt", "value": "A"},
        ]
        assert rejected.values["conversations"][-1]["value"] == "B"


GOOD = {"prompt": "Q", "chosen": "A", "rejected": "B"}
ENDED = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"chosen": " B\n"}, "same answers", "same chosen and rejected"),
        ({"chosen": " "}, "empty answer", "empty chosen"),
        ({"rejected": ""}, "empty answer", "empty rejected"),
        ({"rejected": None}, "preference", "rejected = None"),
        ({"chosen": ["A"]}, "preference", "chosen = ['A']"),
        ({"chosen": {"from": "human", "value": "A"}}, "preference", "chosen = "),
        ({"prompt": None}, "preference", "neither of prompt and conversations"),
        ({"conversations": ENDED[:1]}, "preference", "both of prompt and conversations"),
        ({"prompt": None, "conversations": ENDED}, "preference", "do not end with a question"),
        ({"prompt": None, "conversations": []}, "preference", "do not end with a question"),
        ({"prompt": ["Q"]}, "preference", "prompt = ['Q']"),
        ({"video": "none.mp4"}, "missing file", "none.mp4"),
        ({"video": "noise.mp4"}, "unreadable file", "noise.mp4"),
        ({"prompt": "<image> <image>", "image": "a.png"}, "marks", "2 marks and 1"),
    ],
)
def test_what_is_no_preference_is_told(
    tiny_spec: ModelSpec, media: Path, changes: dict[str, Any], kind: str, words: str
):
    for look in (PairMaker(tiny_spec, DATA).example, PairMaker(tiny_spec, DATA).measure):
        with pytest.raises(ExampleError) as caught:
            look(record(media, **{**GOOD, **changes}))
        assert caught.value.kind == kind
        assert words in str(caught.value)


def test_a_file_is_checked(tiny_spec: ModelSpec, media: Path):
    entries = [GOOD, {**GOOD, "video": "clip.mp4"}, {**GOOD, "chosen": "B"}, {"id": 3}]
    path = media / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(one) for one in entries))
    records = read_mixture([SourceSettings(path=str(path))], 0)
    maker = PairMaker(tiny_spec, DATA)
    report = check_data(maker, records)
    assert [one.kind for one in report.broken] == ["same answers", "preference"]
    pairs = [maker.example(one) for one in records[:2]]
    assert report.total_tokens == sum(pair.num_rows for pair in pairs)
    # "A", "B" and two ends each; one token a byte.
    assert report.learned_share == 8 / report.total_tokens
    assert [one.num_words for one in records] == [3, 3, 3, 0]


def test_what_is_too_long_counts_both_answers(tiny_spec: ModelSpec, media: Path):
    one = record(media, **GOOD)
    num_tokens = PairMaker(tiny_spec, DATA).measure(one).num_tokens
    alone = ExampleMaker(tiny_spec, DATA).measure(plain(media, "Q", "B")).num_tokens
    assert num_tokens == alone + 3  # the row before the answer, "A", its end
    short = dataclasses.replace(DATA, max_tokens=num_tokens - 1)
    with pytest.raises(ExampleError, match=f"{num_tokens} tokens"):
        PairMaker(tiny_spec, short).measure(one)


def test_a_pair_in_a_stage_of_conversations_is_told(tiny_spec: ModelSpec):
    with pytest.raises(ExampleError) as caught:
        ExampleMaker(tiny_spec, DATA).measure(record(**GOOD))
    assert "dpo" in caught.value.hint


def test_captions_have_no_preferences(tiny_spec: ModelSpec):
    with pytest.raises(ConfigError, match="'plain'"):
        PairMaker(tiny_spec.with_template("plain"), DATA)
